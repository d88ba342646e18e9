"""Who is submitting a job right now: locks in a directory that all workers share, released by the kernel at any death.

A worker that is slow, or cut off from those who asked it, still holds its lock; one that was killed does not.
"""

import fcntl
from pathlib import Path
from typing import IO


class SubmissionLocks:
    """Locks by tag.

    Args:
        directory: created when the first lock is taken; on a network disk it must support ``flock``.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, IO[bytes]] = {}

    def hold(self, tag: str) -> None:
        """Take a lock that nobody else can want: tags are made by whoever holds the journal."""
        self._directory.mkdir(exist_ok=True)
        file = self._path(tag).open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        self._held[tag] = file

    def release(self, tag: str) -> None:
        """Give a lock back; calling it twice is fine."""
        file = self._held.pop(tag, None)
        if file is not None:
            self._path(tag).unlink(missing_ok=True)
            file.close()

    def is_held(self, tag: str) -> bool:
        """Whether a living process holds the lock; the file of a dead one is removed."""
        try:
            file = self._path(tag).open("rb")
        except FileNotFoundError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            self._path(tag).unlink(missing_ok=True)
            return False

    def close(self) -> None:
        """Give all locks back."""
        for tag in list(self._held):
            self.release(tag)

    def _path(self, tag: str) -> Path:
        return self._directory / f"{tag}.lock"
