"""A job that gave no bits, the time in which that is dealt with, and how that time is cut short."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from qpu_service.errors import (
    BackendFailedError,
    BackendUnavailableError,
    InvalidCircuitError,
    JobFailedError,
    QPUError,
)
from qpu_service.ibm.redaction import is_clean, redact
from qpu_service.retry import Blame, Rule

_ERRORS: dict[Blame, type[QPUError]] = {
    Blame.SERVICE: BackendFailedError,
    Blame.SETUP: BackendUnavailableError,
    Blame.CIRCUIT: InvalidCircuitError,
    Blame.JOB: JobFailedError,
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Time and chance, so that tests need neither."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = lambda: float(np.random.default_rng().random())


class Interruption:
    """Ends a run that waits: its sleeps raise after ``interrupt``.

    Args:
        timing: whose sleeps become interruptible.
    """

    def __init__(self, timing: Timing) -> None:
        self._is_set = threading.Event()
        # Real sleep is cut short; that of a test takes no time.
        self._sleep = self._is_set.wait if timing.sleep is time.sleep else timing.sleep
        self.timing = replace(timing, sleep=self._sleep_or_raise)

    def interrupt(self) -> None:
        """From now on; any thread may call it."""
        self._is_set.set()

    def check(self) -> None:
        """Raise if somebody has interrupted.

        Raises:
            BackendUnavailableError: then.
        """
        if self._is_set.is_set():
            raise BackendUnavailableError(
                "the QPU backend was closed during a request; its job goes on and is taken up by the next start"
            )

    def _sleep_or_raise(self, seconds: float) -> None:
        self._sleep(seconds)
        self.check()


class JobTroubleError(Exception):
    """A job gave no bits; the rule says what may be tried."""

    def __init__(self, rule: Rule, what: str, cause: BaseException | None = None) -> None:
        super().__init__(redact(f"{what} ({rule.name}; {rule.action.value}). {rule.advice}"))
        self.rule = rule
        self._cause = cause if cause is not None and is_clean(cause) else None

    def as_qpu_error(self) -> QPUError:
        """What the caller sees when nothing more is tried."""
        error = _ERRORS[self.rule.blame](str(self))
        error.__cause__ = self._cause
        return error
