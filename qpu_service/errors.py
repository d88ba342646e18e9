"""Errors of the QPU service.

QPUError
├── InvalidCircuitError      wrong shape, dtype, value        (also ValueError)
├── UnknownBackendError      QPU_BACKEND names no backend     (also ValueError)
├── BackendUnavailableError  package, device or token missing
├── BudgetExceededError      the next job cannot be paid for
├── JobFailedError           a paid job ended without bits; running it again would be paid again
└── BackendFailedError       the backend ran and failed       (retryable)
"""

from typing import ClassVar


class QPUError(Exception):
    """Base of every error of this package."""

    retryable: ClassVar[bool] = False


class InvalidCircuitError(QPUError, ValueError):
    """The circuits cannot run on any backend; fix the caller."""


class UnknownBackendError(QPUError, ValueError):
    """The backend's name is not known."""


class BackendUnavailableError(QPUError):
    """The backend's package, device or credentials are missing."""


class BudgetExceededError(QPUError):
    """The budget of QPU seconds or jobs does not cover the next job; nothing was sent."""


class JobFailedError(QPUError):
    """A job on a device ended without bits, and running the same again would only be paid again."""


class BackendFailedError(QPUError):
    """The backend accepted the circuits and failed; asking again may help."""

    retryable: ClassVar[bool] = True
