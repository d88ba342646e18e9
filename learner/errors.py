"""Errors of the learner.

LearnerError
├── LearnerDivergedError   a loss or a parameter is not finite
└── StateMismatchError     a saved state does not fit these networks (also ValueError)
"""

from typing import ClassVar


class LearnerError(Exception):
    """Base of every error of this package."""

    retryable: ClassVar[bool] = False


class LearnerDivergedError(LearnerError):
    """Training produced NaN or infinity; nothing of it is published."""


class StateMismatchError(LearnerError, ValueError):
    """A saved state was written for other sizes or another configuration."""
