"""Errors of the composition root, and what the process exits with.

ClusterError
├── ConfigError            unknown field or preset, bad value, existing run directory   (exit 2)
├── CheckpointError        no checkpoint that loads                                     (exit 2)
├── ClusterUnreachableError  RAY_ADDRESS cannot be joined, or it lacks resources        (exit 2)
└── RunFailedError         a part of the run failed again and again                     (exit 1)
"""

from typing import ClassVar

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


class ClusterError(Exception):
    """Base of every error of this package."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_REFUSED


class ConfigError(ClusterError, ValueError):
    """The run was asked for something that cannot be."""


class CheckpointError(ClusterError):
    """There is no checkpoint to go on from."""


class ClusterUnreachableError(ClusterError):
    """The Ray cluster cannot be joined or cannot hold the run."""


class RunFailedError(ClusterError):
    """A process of the run failed more often than it may."""

    exit_code: ClassVar[int] = EXIT_FAILED
