"""A file of segment frames: what a checkpoint of an in-memory replay refers to by offset.

It starts with ``HDQJ``, u32 version and u64 base, little-endian. Record: u32 length, then the frame. A record counts
only up to the offset that a checkpoint names, so a tail that was half written when the process died is cut off by the
next start. Offsets count every byte of records ever written: ``drop_before`` takes old ones off the file and raises the
base, and all offsets keep their meaning.
"""

import contextlib
import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from replay.codec import HEAD_BYTES, MAX_FRAME_BYTES, FrameHead, read_head
from replay.errors import CorruptFrameError, ReplayConfigError, ReplayLostError

logger = logging.getLogger(__name__)

_START = struct.Struct("<4sIQ")
_MAGIC, _VERSION = b"HDQJ", 2
_LENGTH = struct.Struct("<I")
_MIN_DROPPED_BYTES = 16 * 2**20
_COPY_BYTES = 2**20


class SegmentJournal:
    """One writer's journal."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        """Open the file and keep what lies before ``offset``; None creates a new journal.

        Raises:
            ReplayConfigError: if a new journal would overwrite an old one.
            ReplayLostError: if the file does not reach ``offset``.
            CorruptFrameError: if it is no journal of this version.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        size = path.stat().st_size if path.exists() else 0
        if size and offset is None:
            raise ReplayConfigError(
                f"{path} already holds {size} bytes of an earlier start; resume from its checkpoint, or delete "
                "the file to start over"
            )
        self._base = self._read_base() if size else 0
        self.offset = offset or 0
        end = self._base + max(0, size - _START.size)
        if not self._base <= self.offset <= end:
            raise ReplayLostError(
                f"{path} holds bytes {self._base} to {end} of its run, but the checkpoint was written at "
                f"{self.offset}; resume from another checkpoint, or bring the file back"
            )
        self._file = path.open("ab", buffering=0)
        if not size:
            self._file.write(_START.pack(_MAGIC, _VERSION, 0))
        self._file.truncate(self._place(self.offset))

    def append(self, frame: bytes) -> None:
        """Write one frame; on an error of the file system the journal stays as it was."""
        record = memoryview(_LENGTH.pack(len(frame)) + frame)
        try:
            written = 0
            while written < len(record):
                written += self._file.write(record[written:])
        except OSError:
            self._file.truncate(self._place(self.offset))
            raise
        self.offset += len(record)

    def sync(self) -> int:
        """Wait until everything is on the disk; returns the offset that a checkpoint may refer to."""
        os.fsync(self._file.fileno())
        return self.offset

    def drop_before(self, offset: int) -> None:
        """Take the records before ``offset`` off the file, once they are more than half of it.

        The file is written anew beside the old one and takes its place at once; a full disk only puts that off.
        """
        if offset - self._base <= max(_MIN_DROPPED_BYTES, self.offset - offset):
            return
        beside = self.path.with_suffix(".new")
        try:
            with self.path.open("rb") as old, beside.open("wb") as new:
                old.seek(self._place(offset))
                new.write(_START.pack(_MAGIC, _VERSION, offset))
                while part := old.read(_COPY_BYTES):
                    new.write(part)
                new.flush()
                os.fsync(new.fileno())
            opened = beside.open("ab", buffering=0)
            beside.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            logger.warning("old transitions stay in %s for now: %s", self.path, error)
            return
        self._file.close()
        self._file, self._base = opened, offset

    def heads(self, offset: int) -> Iterator[tuple[int, FrameHead]]:
        """Offset and head of every record from one on; frames are skipped unread.

        Raises:
            CorruptFrameError: if a record is cut or impossibly long.
            ReplayLostError: if the file no longer holds ``offset``.
        """
        if offset < self._base:
            raise ReplayLostError(
                f"{self.path} holds bytes from {self._base} of its run, the checkpoint needs those from {offset}; "
                "resume from a newer checkpoint"
            )
        with self.path.open("rb") as file:
            while offset < self.offset:
                file.seek(self._place(offset))
                start = file.read(_LENGTH.size + HEAD_BYTES)
                length = _LENGTH.unpack_from(start)[0] if len(start) == _LENGTH.size + HEAD_BYTES else 0
                if not HEAD_BYTES <= length <= min(MAX_FRAME_BYTES, self.offset - offset - _LENGTH.size):
                    raise CorruptFrameError(
                        f"{self.path} is damaged at byte {self._place(offset)}: a record of {length} bytes where "
                        f"{self.offset - offset} are left; resume from an older checkpoint"
                    )
                yield offset, read_head(start[_LENGTH.size :])
                offset += _LENGTH.size + length

    def frames(self, offset: int) -> Iterator[bytes]:
        """The frames from an offset that ``heads`` gave."""
        with self.path.open("rb", buffering=2**20) as file:
            file.seek(self._place(offset))
            while file.tell() < self._place(self.offset):
                yield file.read(_LENGTH.unpack(file.read(_LENGTH.size))[0])

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        self._file.close()

    def _place(self, offset: int) -> int:
        """Where in the file an offset is."""
        return _START.size + offset - self._base

    def _read_base(self) -> int:
        with self.path.open("rb") as file:
            start = file.read(_START.size)
        if len(start) < _START.size or start[:8] != struct.pack("<4sI", _MAGIC, _VERSION):
            raise CorruptFrameError(
                f"{self.path} starts with {start[:8]!r}, expected a journal of version {_VERSION}; was the run started "
                "with another release?"
            )
        base: int = _START.unpack(start)[2]
        return base
