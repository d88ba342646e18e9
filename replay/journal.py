"""An append-only file of segment frames: what a checkpoint of an in-memory replay refers to by offset.

Record: u32 little-endian length, then the frame. A record counts only up to the offset that a checkpoint names, so a
tail that was half written when the process died is cut off by the next start.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from replay.codec import HEAD_BYTES, MAX_FRAME_BYTES, FrameHead, read_head
from replay.errors import CorruptFrameError, ReplayConfigError, ReplayLostError

_LENGTH = struct.Struct("<I")


class SegmentJournal:
    """One writer's journal."""

    def __init__(self, path: Path, offset: int | None = None) -> None:
        """Open the file and keep its first ``offset`` bytes; None creates a new journal.

        Raises:
            ReplayConfigError: if a new journal would overwrite an old one.
            ReplayLostError: if the file is shorter than ``offset``.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        size = path.stat().st_size if path.exists() else 0
        if size and offset is None:
            raise ReplayConfigError(
                f"{path} already holds {size} bytes of an earlier start; resume from its checkpoint, or delete "
                "the file to start over"
            )
        offset = offset or 0
        if size < offset:
            raise ReplayLostError(
                f"{path} has {size} bytes, but the checkpoint was written at {offset}; "
                "resume from an older checkpoint, or bring the file back"
            )
        self._file = path.open("ab", buffering=0)
        self._file.truncate(offset)
        self.offset = offset

    def append(self, frame: bytes) -> None:
        """Write one frame; on an error of the file system the journal stays as it was."""
        record = memoryview(_LENGTH.pack(len(frame)) + frame)
        try:
            written = 0
            while written < len(record):
                written += self._file.write(record[written:])
        except OSError:
            self._file.truncate(self.offset)
            raise
        self.offset += len(record)

    def sync(self) -> int:
        """Wait until everything is on the disk; returns the offset that a checkpoint may refer to."""
        os.fsync(self._file.fileno())
        return self.offset

    def heads(self) -> Iterator[tuple[int, FrameHead]]:
        """Position and head of every record, from the beginning; frames are skipped unread.

        Raises:
            CorruptFrameError: if a record is cut or impossibly long.
        """
        with self.path.open("rb") as file:
            position = 0
            while position < self.offset:
                file.seek(position)
                start = file.read(_LENGTH.size + HEAD_BYTES)
                length = _LENGTH.unpack_from(start)[0] if len(start) == _LENGTH.size + HEAD_BYTES else 0
                if not HEAD_BYTES <= length <= min(MAX_FRAME_BYTES, self.offset - position - _LENGTH.size):
                    raise CorruptFrameError(
                        f"{self.path} is damaged at byte {position}: a record of {length} bytes where "
                        f"{self.offset - position} are left; resume from an older checkpoint"
                    )
                yield position, read_head(start[_LENGTH.size :])
                position += _LENGTH.size + length

    def frames(self, position: int) -> Iterator[bytes]:
        """The frames from a position that ``heads`` gave."""
        with self.path.open("rb", buffering=2**20) as file:
            file.seek(position)
            while file.tell() < self.offset:
                yield file.read(_LENGTH.unpack(file.read(_LENGTH.size))[0])

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        self._file.close()
