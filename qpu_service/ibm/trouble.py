"""A job that gave no bits, and the time in which that is dealt with."""

import time
from collections.abc import Callable
from dataclasses import dataclass

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
