"""Brings a server's append-only file to the disk every second, in the server's place.

With ``appendfsync everysec`` a server holds back what it should write while its own fsync runs, and answers all the
same: a kill -9 in that moment loses acknowledged segments (3 of 40 kills right after a first insert, Valkey 9.1). With
``appendfsync no`` every write reaches the kernel before its answer, so the death of the process loses nothing; what the
machine's death may lose is kept to about a second from here.
"""

import contextlib
import os
import threading
from pathlib import Path

_PERIOD_S = 1.0


class FileSync:
    """A thread that syncs the append-only files below a directory until ``stop``."""

    def __init__(self, directory: Path, period_s: float = _PERIOD_S) -> None:
        self._directory, self._period_s = directory, period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replay-file-sync", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; calling it twice is fine."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            for path in self._directory.glob("appendonlydir/*.incr.aof"):
                # A rewrite may have removed it; a disk that fails is the server's to report.
                with contextlib.suppress(OSError):
                    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
