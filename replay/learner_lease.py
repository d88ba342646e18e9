"""One learner per run: a key that expires, kept alive while its learner lives.

A copy of a run directory has the same run id, and so the same keys on a server; two that train at once would mix their
transitions. The lease names the directory itself. Whoever was killed takes its lease up again at once; anybody else
waits until it has run out. Every server of the run has one, so that each knows whether its data are in use.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from replay.errors import ReplayConfigError, ReplayError
from replay.redis_dataset import key_of
from replay.redis_session import RedisSession, Script
from replay.server_urls import server_urls

logger = logging.getLogger(__name__)

_DURATION_S = 30.0
_RENEWALS = 4
"""Per duration."""


class LearnerLease:
    """The right to learn from a run; see ``hold_lease``.

    Args:
        session: where the run's data is.
        run_id: which run.
        holder: names this learner, the same after its death.
        duration_s: how long it stays taken when its holder dies.
        sleep: waits for somebody else's to run out.
    """

    def __init__(
        self,
        session: RedisSession,
        run_id: str,
        holder: str,
        *,
        duration_s: float = _DURATION_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._session, self._run_id, self._holder = session, run_id, holder
        self._key = key_of(run_id, "learner")
        self._duration_s, self._sleep = duration_s, sleep
        self._script = Script("lease")
        self._lost_to: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="replay-lease", daemon=True)

    def acquire(self) -> None:
        """Take it, and keep it from then on; waits while the lease of another learner runs out.

        Raises:
            ReplayConfigError: if that one is alive.
            ReplayUnreachableError: if the server stays away.
        """
        deadline_s = self._session.clock() + 2 * self._duration_s
        last_ms: int | None = None
        while (taken := self._session.call(self._ask(self._duration_s)))[0] == 0:
            holder, left_ms = taken[1].decode(errors="replace"), int(taken[2])
            if (last_ms is not None and left_ms > last_ms) or self._session.clock() > deadline_s:
                raise ReplayConfigError(self._message(holder))
            if last_ms is None:
                logger.warning("waiting for up to %.0f s whether this learner still lives: %s", left_ms / 1e3, holder)
            last_ms = left_ms
            self._sleep(self._duration_s / _RENEWALS / 2)
        self._thread.start()

    def poll(self) -> None:
        """See whether it is still ours.

        Raises:
            ReplayConfigError: if another learner has it.
        """
        if self._lost_to is not None:
            raise ReplayConfigError(self._message(self._lost_to))

    def close(self, *, gives_back: bool = True) -> None:
        """Stop keeping it; without ``gives_back`` it runs out by itself."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if gives_back:
            with suppress(ReplayError):
                self._session.attempt(self._ask(0.0))

    def _ask(self, duration_s: float) -> Callable[[Any], Any]:
        return self._session.script(self._script, (self._key,), self._holder, int(1e3 * duration_s))

    def _renew(self) -> None:
        while not self._stop.wait(self._duration_s / _RENEWALS):
            # A server that is away has nobody else's either.
            with suppress(ReplayError):
                taken = self._session.attempt(self._ask(self._duration_s))
                self._lost_to = taken[1].decode(errors="replace") if taken[0] == 0 else None

    def _message(self, holder: str) -> str:
        return (
            f"another learner works on the data of run {self._run_id!r} at {self._session.label}: {holder}; expected "
            f"only this one: {self._holder}. Is one run directory a copy of the other? Stop that learner, or give this "
            "one a server of its own"
        )


class HeldLeases:
    """The leases of one run on all its servers."""

    def __init__(self, leases: Sequence[LearnerLease]) -> None:
        self._leases = leases

    def poll(self) -> None:
        """See whether they are still ours; errors as of ``LearnerLease.poll``."""
        for lease in self._leases:
            lease.poll()


@contextmanager
def hold_lease(
    url: str, run_id: str, holder: str, *, duration_s: float = _DURATION_S, deadline_s: float = 60.0
) -> Iterator[HeldLeases]:
    """Keep others from learning from a run, and from dropping its data, for as long as this lasts.

    Args:
        url: of the server that has the run's data, or of several as in ``REDIS_URL``.
        run_id: which run.
        holder: names this learner, the same after its death.
        duration_s: how long it stays taken when this process dies.
        deadline_s: how long a server that is away is waited for.

    Raises:
        ReplayConfigError: if another learner is alive.
        ReplayUnreachableError: if a server stays away.
        ReplayFullError: if a server stays full.
    """
    with ExitStack() as stack:
        leases = []
        for each in server_urls(url):
            session = RedisSession(each, deadline_s=deadline_s)
            stack.callback(session.close)
            lease = LearnerLease(session, run_id, holder, duration_s=duration_s)
            stack.callback(lease.close)
            lease.acquire()
            leases.append(lease)
        yield HeldLeases(leases)
