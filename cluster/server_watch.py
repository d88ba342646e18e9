"""Keeps a run's own replay server alive: a dead one is started again, one that dies again and again ends the run."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from cluster.errors import RunFailedError

_log = logging.getLogger(__name__)
_MAX_DEATHS = 5
"""Deaths in a row, each within ``_STABLE_S`` of its start, after which the run ends with the cause."""
_STABLE_S = 60.0
_BACKOFF_S = 0.5


class RestartableServer(Protocol):
    """What is watched."""

    def is_running(self) -> bool:
        """Whether the process lives."""
        ...

    def restart(self) -> None:
        """Start it again on its data."""
        ...

    def log_end(self) -> str:
        """Its last words."""
        ...


class ServerWatch:
    """Looks after one server; None means that it is somebody else's.

    Args:
        server: the run's own, or None.
        clock: monotonic seconds.
    """

    def __init__(self, server: RestartableServer | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._clock = server, clock
        self._started_s = clock()
        self._deaths = 0
        self._restart_at_s: float | None = None

    def poll(self) -> None:
        """Start the server again where it is due; clients wait meanwhile.

        Raises:
            RunFailedError: if it dies again and again.
            ReplayError: if it does not come up.
        """
        if self._server is None or self._server.is_running():
            return
        now_s = self._clock()
        if self._restart_at_s is None:
            self._deaths = 1 if now_s - self._started_s > _STABLE_S else self._deaths + 1
            if self._deaths >= _MAX_DEATHS:
                raise RunFailedError(
                    f"the replay server died {self._deaths} times in a row; its log ends: {self._server.log_end()}. "
                    "Nothing acknowledged is lost; mend the cause and go on with `hdqnn resume`"
                )
            # The first time at once: it is most often the only time.
            pause_s = 0.0 if self._deaths == 1 else _BACKOFF_S * 2 ** (self._deaths - 2)
            self._restart_at_s = now_s + pause_s
            _log.warning("the replay server died; starting it again with the data it had acknowledged")
        if now_s >= self._restart_at_s:
            self._server.restart()
            self._started_s, self._restart_at_s = self._clock(), None
