"""Errors of the replay.

ReplayError
├── InvalidSegmentError       wrong shape, dtype, value                    (also ValueError)
├── CorruptFrameError         bytes that are not a frame of this run       (also ValueError)
├── ReplayConfigError         settings that would deadlock or lose data    (also ValueError)
├── SequenceGapError          an earlier segment of this actor is missing
├── ReplayUnreachableError    no server, connection lost                   (retryable)
│   └── CredentialsRefusedError   wrong user or password, missing rights
├── ReplayFullError           server out of memory or disk                 (retryable)
└── ReplayLostError           the server came back without this run's data
"""

from typing import ClassVar, Self


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

    @classmethod
    def of(cls, *, actor_id: int, incarnation: int, sequence: int, expected: int) -> Self:
        """The error for a segment that arrives before its predecessor."""
        return cls(
            f"actor {actor_id}, incarnation {incarnation}, sent sequence {sequence}, expected {expected}: an earlier "
            "segment was never stored; register the actor again and start at sequence 0"
        )


class ReplayUnreachableError(ReplayError):
    """The server cannot be reached, or is still loading its data."""

    retryable: ClassVar[bool] = True


class CredentialsRefusedError(ReplayUnreachableError):
    """The server refuses the user or the password; asking again does not help."""

    retryable: ClassVar[bool] = False


class ReplayFullError(ReplayError):
    """The server is out of memory or disk; writers wait and try again."""

    retryable: ClassVar[bool] = True


class ReplayLostError(ReplayError):
    """The server answers but the run's data set is gone."""
