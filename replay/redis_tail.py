"""Follows a run's segments on the server into a mirror."""

import logging
from functools import partial
from typing import Any

from replay.codec import CRC_END, CRC_START, decode_segment
from replay.errors import CorruptFrameError
from replay.mirror import Mirror
from replay.redis_dataset import RedisDataset, RingState

logger = logging.getLogger(__name__)

_REPLY_BYTES = 2**20
"""One MGET asks for about this much: a giant reply would stop the server and cost the client copies."""
_REPLIES_IN_FLIGHT = 8


class RedisTail:
    """Position in the ring of segments, and the mirror that is filled from there. Not thread-safe."""

    def __init__(self, dataset: RedisDataset, mirror: Mirror, ring: RingState) -> None:
        """Start at the oldest segment that ``ring`` holds."""
        self._dataset = dataset
        self._mirror = mirror
        self._position = ring.oldest_index
        self._last_mark = b""
        self.last_index: int | None = None
        """Index of the segment read last, whose mark the next ``RingState`` should bring."""
        self.num_rejected_frames = 0
        """Frames that failed their checks and were skipped."""
        self.num_missed_segments = 0
        """Segments that fell out of the ring before they were read."""

    def catch_up(self, ring: RingState) -> None:
        """Read every segment up to ``ring.next_index``; what was read stays read where an error ends it early.

        Raises:
            ReplayUnreachableError: if the server goes away.
        """
        if ring.next_index < self._position or (ring.mark and ring.mark != self._last_mark):
            # Its host died within the second that an append-only file may lack: acknowledged segments are gone and
            # their indices may already hold others.
            logger.warning("the server came back without its last writes; reading everything it holds again")
            self._mirror.clear()
            self._position = ring.oldest_index
            self.last_index = None
        if ring.oldest_index > self._position:
            self._miss(ring.oldest_index - self._position)
            self._position = ring.oldest_index
        if self._position == ring.next_index:
            return
        mean_bytes = max(1, ring.held_bytes // max(1, ring.next_index - ring.oldest_index))
        per_reply = max(1, _REPLY_BYTES // mean_bytes)
        while self._position < ring.next_index:
            end = min(ring.next_index, self._position + per_reply * _REPLIES_IN_FLIGHT)
            starts = range(self._position, end, per_reply)
            frames = self._dataset.session.attempt(partial(self._fetch, starts=starts, end=end))
            for frame in frames:
                self._take(frame)
                self._position += 1

    def _fetch(self, client: Any, *, starts: range, end: int) -> list[bytes | None]:
        prefix = self._dataset.segment_prefix
        with client.pipeline(transaction=False) as pipeline:
            for start in starts:
                pipeline.mget([f"{prefix}{index}" for index in range(start, min(end, start + starts.step))])
            return [frame for reply in pipeline.execute() for frame in reply]

    def _take(self, frame: bytes | None) -> None:
        if frame is None:
            self._miss(1)
            return
        self.last_index = self._position
        self._last_mark = frame[CRC_START:CRC_END]
        try:
            segment = decode_segment(frame, self._dataset.spec, self._dataset.run_id)
        except CorruptFrameError as error:
            self.num_rejected_frames += 1
            # At powers of two, so that one bad actor cannot fill the disk with warnings.
            if self.num_rejected_frames & (self.num_rejected_frames - 1) == 0:
                logger.warning("skipped bad frame %d (%d so far): %s", self._position, self.num_rejected_frames, error)
            return
        self._mirror.append(segment)

    def _miss(self, count: int) -> None:
        if self.num_missed_segments == 0:
            logger.warning(
                "segments fall out of the server before they are read: its capacity is too small, or we are slow"
            )
        self.num_missed_segments += count
