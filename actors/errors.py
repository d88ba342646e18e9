"""Errors of the actors.

ActorError
├── UnsupportedEnvironmentError   unknown id, or spaces that this agent cannot use   (also ValueError)
├── InvalidEnvironmentError       the environment returned NaN, infinity or a wrong shape
└── InvalidActionError            the policy gave NaN or infinity
"""

from typing import ClassVar


class ActorError(Exception):
    """Base of every error of this package."""

    retryable: ClassVar[bool] = False


class UnsupportedEnvironmentError(ActorError, ValueError):
    """The environment does not exist here or its spaces do not fit a continuous-control agent."""


class InvalidEnvironmentError(ActorError):
    """The environment broke its own contract; nothing of that step is stored."""


class InvalidActionError(ActorError):
    """The policy gave an action that is not finite; no environment sees it and nothing of that step is stored."""
