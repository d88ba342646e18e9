"""Follows a run's segments on the server into a mirror."""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

from replay.codec import CRC_END, CRC_START, MAX_FRAME_BYTES, decode_segment
from replay.errors import CorruptFrameError
from replay.redis_dataset import RedisDataset, RingState
from replay.redis_session import Script
from replay.types import Segment

logger = logging.getLogger(__name__)

_REPLY_BYTES = 2**20
"""One MGET asks for about this much: a giant reply would stop the server and cost the client copies."""
_BYTES_IN_FLIGHT = 8 * _REPLY_BYTES
_MAX_SEGMENTS_IN_FLIGHT = 4_096


class SegmentSink(Protocol):
    """What is filled: a mirror, or what stands before one."""

    def append(self, segment: Segment) -> object:
        """Take in a checked segment."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class RedisTail:
    """Position in the ring of segments, and the mirror that is filled from there. Not thread-safe."""

    def __init__(self, dataset: RedisDataset, mirror: SegmentSink, ring: RingState) -> None:
        """Start at the oldest segment that ``ring`` holds."""
        self._dataset = dataset
        self._mirror = mirror
        self._position = ring.oldest_index
        self._lengths = Script("lengths")
        self._last_mark = b""
        self.last_index: int | None = None
        """Index of the segment read last, whose mark the next ``RingState`` should bring."""
        self.num_rejected_frames = 0
        """Frames that failed their checks and were skipped."""
        self.num_missed_segments = 0
        """Segments that fell out of the ring before they were read."""

    @property
    def position(self) -> int:
        """Index of the segment to read next."""
        return self._position

    def is_ahead_of(self, ring: RingState) -> bool:
        """Whether segments were read that the server does not have any more: it lost its last writes."""
        return ring.next_index < self._position or bool(ring.mark and ring.mark != self._last_mark)

    def catch_up(self, ring: RingState) -> None:
        """Read every segment up to ``ring.next_index``; what was read stays read where an error ends it early.

        Raises:
            ReplayUnreachableError: if the server goes away.
        """
        if self.is_ahead_of(ring):
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
        count = min(max(1, _BYTES_IN_FLIGHT // mean_bytes), _MAX_SEGMENTS_IN_FLIGHT)
        while self._position < ring.next_index:
            end = min(ring.next_index, self._position + count)
            for frame in self._dataset.session.attempt(partial(self._fetch, end=end)):
                self._take(frame)
                self._position += 1

    def _fetch(self, client: Any, *, end: int) -> list[bytes | int | None]:
        """Frames from here to ``end``, or to where they fill the memory meant for them; of one too large, its size."""
        dataset = self._dataset
        first = self._position
        read_lengths = dataset.session.script(
            self._lengths, (dataset.meta_key,), dataset.segment_prefix, first, end - 1
        )
        lengths = _within(_BYTES_IN_FLIGHT, read_lengths(client))
        frames: list[bytes | int | None] = list(lengths)
        wanted = [place for place, length in enumerate(lengths) if length <= MAX_FRAME_BYTES]
        with client.pipeline(transaction=False) as pipeline:
            for places in _replies(wanted, lengths):
                pipeline.mget([f"{dataset.segment_prefix}{first + place}" for place in places])
            found = [frame for reply in pipeline.execute() for frame in reply]
        for place, frame in zip(wanted, found, strict=True):
            frames[place] = frame
        return frames

    def _take(self, frame: bytes | int | None) -> None:
        if frame is None:
            self._miss(1)
            return
        if isinstance(frame, int):
            self._reject(f"it has {frame} bytes, at most {MAX_FRAME_BYTES} are read")
            return
        self.last_index = self._position
        self._last_mark = frame[CRC_START:CRC_END]
        try:
            segment = decode_segment(frame, self._dataset.spec, self._dataset.run_id)
        except CorruptFrameError as error:
            self._reject(error)
            return
        self._mirror.append(segment)

    def _reject(self, cause: object) -> None:
        self.num_rejected_frames += 1
        # At powers of two, so that one bad actor cannot fill the disk with warnings.
        if self.num_rejected_frames & (self.num_rejected_frames - 1) == 0:
            logger.warning("skipped bad frame %d (%d so far): %s", self._position, self.num_rejected_frames, cause)

    def _miss(self, count: int) -> None:
        if self.num_missed_segments == 0:
            logger.warning(
                "segments fall out of the server before they are read: its capacity is too small, or we are slow"
            )
        self.num_missed_segments += count


def _within(num_bytes: int, lengths: list[int]) -> list[int]:
    """The first of ``lengths`` that together are no longer than that, at least one; what is too large is not read."""
    total = 0
    for place, length in enumerate(lengths):
        total += length if length <= MAX_FRAME_BYTES else 0
        if total > num_bytes and place:
            return lengths[:place]
    return lengths


def _replies(places: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """``places`` in groups of about ``_REPLY_BYTES``."""
    group, total = list[int](), 0
    for place in places:
        group.append(place)
        total += lengths[place]
        if total >= _REPLY_BYTES:
            yield group
            group, total = [], 0
    if group:
        yield group
