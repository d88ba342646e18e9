"""Who may use the data directory of an embedded server: one run, and one server process.

The owner's lock dies with the run's process. The server inherits the other one and holds it until its own end, so a
server whose run was killed is found, ended and its data taken over, never written to by two servers at once.
"""

import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from replay.errors import ReplayConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time and the means to wait for it."""

    at_s: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def has_passed(self) -> bool:
        """Whether it is too late."""
        return self.clock() > self.at_s


def lock_owner(directory: Path) -> IO[str]:
    """Claim the directory for this process, until the file is closed.

    Raises:
        ReplayConfigError: if another process owns it.
    """
    lock = (directory / "owner.lock").open("a+")
    if not _try_lock(lock):
        owner = _written_pid(lock)
        lock.close()
        raise ReplayConfigError(
            f"process {owner or 'unknown'} already runs a replay server in {directory}; stop that run, or give this "
            "one another directory"
        )
    write_pid(lock, os.getpid())
    return lock


def lock_server(directory: Path, deadline: Deadline) -> IO[str]:
    """The lock that a server process inherits; ends the server of a run that was killed.

    Raises:
        ReplayConfigError: if such a server does not end in time.
    """
    lock = (directory / "server.lock").open("a+")
    asked = False
    while not _try_lock(lock):
        pid = _written_pid(lock)
        if pid is None or deadline.has_passed():
            lock.close()
            raise ReplayConfigError(
                f"a replay server without an owner (pid {pid or 'unknown'}) still uses {directory}; end it first"
            )
        if not asked:
            logger.warning("ending replay server %d, whose owner has gone, to take over its data", pid)
            os.kill(pid, signal.SIGTERM)
            asked = True
        deadline.sleep(0.05)
    return lock


def server_lives(directory: Path) -> bool:
    """Whether a server process holds its lock; a dead one, reaped or not, holds none."""
    with (directory / "server.lock").open("a+") as lock:
        return not _try_lock(lock)


def write_pid(lock: IO[str], pid: int) -> None:
    """Tell who holds the lock."""
    lock.truncate(0)
    lock.write(str(pid))
    lock.flush()


def _written_pid(lock: IO[str]) -> int | None:
    lock.seek(0)
    text = lock.read().strip()
    return int(text) if text.isdigit() else None


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
