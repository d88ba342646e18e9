"""Pauses of a process that somebody else starts again at once: a crash loop slows down by itself.

Ray restarts an actor in place the moment it dies, which keeps handles good and leaves no room for a pause. So the new
process waits before it takes work. How often it was started lately is in a small file of its machine, the only thing
that outlives a process killed with -9.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

STABLE_S = 60.0
"""A process that was well for this long starts with a clean slate."""
_FIRST_PAUSE_S = 0.5
_MAX_PAUSE_S = 30.0


def restart_pause_s(deaths: int) -> float:
    """Seconds to wait after this many deaths in a row: none after the first, which is most often the only one."""
    return 0.0 if deaths < 2 else min(_FIRST_PAUSE_S * 2.0 ** (deaths - 2), _MAX_PAUSE_S)


class StartLog:
    """Starts of one process on this machine that followed each other within ``STABLE_S`` of being well.

    Args:
        name: of the process, the same for each of its lives.
        directory: where the file is; the system's own for temporary files.
        clock: monotonic seconds of the machine, the same for every process.
        sleep: waits.
    """

    def __init__(
        self,
        name: str,
        directory: Path | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        folder = directory or Path(tempfile.gettempdir())
        self._path = folder / f"hdqnn-{os.getuid()}-{name}.starts"
        self._clock, self._sleep = clock, sleep

    def begin(self) -> float:
        """Note a start, and wait where the ones before were close; returns the pause, seconds."""
        now_s = self._clock()
        deaths = 0
        # A file that cannot be read or written means no pause, never no worker.
        with contextlib.suppress(OSError, ValueError):
            ready_s, before = (float(word) for word in self._path.read_text().split())
            deaths = 1 if now_s - ready_s > STABLE_S or ready_s > now_s + _MAX_PAUSE_S else int(before) + 1
        pause_s = restart_pause_s(deaths)
        with contextlib.suppress(OSError):
            self._path.write_text(f"{now_s + pause_s} {deaths}")
        if pause_s:
            self._sleep(pause_s)
        return pause_s

    def end(self) -> None:
        """Forget everything: this was no death."""
        with contextlib.suppress(OSError):
            self._path.unlink()
