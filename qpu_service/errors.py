"""Errors of the QPU service.

QPUError
├── InvalidCircuitError      wrong shape, dtype, value        (also ValueError)
├── UnknownBackendError      QPU_BACKEND names no backend     (also ValueError)
├── BackendUnavailableError  package, device or token missing
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


class BackendFailedError(QPUError):
    """The backend accepted the circuits and failed; asking again may help."""

    retryable: ClassVar[bool] = True
