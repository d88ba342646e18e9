"""Follows a run's segments on the server into a mirror."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
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
_SEGMENTS_PER_LOOK = 4_096


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
        while self._position < ring.next_index:
            first, end = self._position, min(ring.next_index, self._position + _SEGMENTS_PER_LOOK)
            sizes = dict(enumerate(self._dataset.session.attempt(self._look(first, end)), first))
            for indices in _parts(range(first, end), sizes, _BYTES_IN_FLIGHT):
                for frame in self._dataset.session.attempt(partial(self._fetch, indices=indices, sizes=sizes)):
                    self._take(frame)
                    self._position += 1

    def _look(self, first: int, end: int) -> Callable[[Any], list[int]]:
        """Sizes of these segments, bytes."""
        dataset = self._dataset
        return dataset.session.script(self._lengths, (dataset.meta_key,), dataset.segment_prefix, first, end - 1)

    def _fetch(self, client: Any, *, indices: list[int], sizes: Mapping[int, int]) -> list[bytes | int | None]:
        """Frames; of one that is too large only its size."""
        prefix = self._dataset.segment_prefix
        readable = [index for index in indices if sizes[index] <= MAX_FRAME_BYTES]
        with client.pipeline(transaction=False) as pipeline:
            for part in _parts(readable, sizes, _REPLY_BYTES):
                pipeline.mget([f"{prefix}{index}" for index in part])
            found = [frame for reply in pipeline.execute() for frame in reply]
        frames = dict(zip(readable, found, strict=True))
        return [frames[index] if index in frames else sizes[index] for index in indices]

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


def _parts(indices: Iterable[int], sizes: Mapping[int, int], num_bytes: int) -> Iterator[list[int]]:
    """``indices`` in parts of at most this much, or of one; what is too large to be read counts nothing."""
    part, total = list[int](), 0
    for index in indices:
        size = sizes[index] if sizes[index] <= MAX_FRAME_BYTES else 0
        if part and total + size > num_bytes:
            yield part
            part, total = [], 0
        part.append(index)
        total += size
    if part:
        yield part
