"""Errors of the replay.

ReplayError
├── InvalidSegmentError       wrong shape, dtype, value                    (also ValueError)
├── CorruptFrameError         bytes that are not a frame of this run       (also ValueError)
├── ReplayConfigError         settings that would deadlock or lose data    (also ValueError)
├── SequenceGapError          an earlier segment of this actor is missing
├── ReplayUnreachableError    no server, wrong password, connection lost   (retryable)
├── ReplayFullError           server out of memory                         (retryable)
└── ReplayLostError           the server came back without this run's data
"""

from typing import ClassVar


class ReplayError(Exception):
    """Base of every error of this package."""

    retryable: ClassVar[bool] = False


class InvalidSegmentError(ReplayError, ValueError):
    """A segment does not fit the run's TransitionSpec or holds non-finite numbers."""


class CorruptFrameError(ReplayError, ValueError):
    """Bytes that are not a frame of this version and schema."""


class ReplayConfigError(ReplayError, ValueError):
    """Settings that cannot work; raised at the start."""


class SequenceGapError(ReplayError):
    """An earlier segment of this actor was never stored; the actor starts over as a new incarnation."""


class ReplayUnreachableError(ReplayError):
    """The server cannot be reached or refuses the credentials."""

    retryable: ClassVar[bool] = True


class ReplayFullError(ReplayError):
    """The server is out of memory; writers wait and try again."""

    retryable: ClassVar[bool] = True


class ReplayLostError(ReplayError):
    """The server answers but the run's data set is gone."""
