"""Versions of the acting parameters: the learner publishes, actors and the evaluator pull when theirs is older.

Without torch: processes that only hold parameters or hand them on start sooner and smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class VersionedParameters:
    """One published set of acting parameters."""

    version: int
    """1, 2, 3, …; 0 means that nothing was published yet."""
    arrays: Mapping[str, np.ndarray]
    """Parameter name → values."""
    env_step: int
    """Environment steps inserted when they were published."""
    update_step: int = 0
    """Updates made when they were published."""


class ParameterSource(Protocol):
    """Where actors get parameters."""

    def get_parameters(self, *, newer_than: int) -> VersionedParameters | None:
        """The newest version, or None if it is not newer than ``newer_than``."""
        ...


class ParameterBoard:
    """Holds the newest version; the in-process ParameterSource, and what the cluster puts behind a handle."""

    def __init__(self) -> None:
        self._newest: VersionedParameters | None = None

    def publish(self, parameters: VersionedParameters) -> None:
        """Replace the newest version; an older one is ignored, so a late message changes nothing."""
        if self._newest is None or parameters.version > self._newest.version:
            self._newest = parameters

    def get_parameters(self, *, newer_than: int) -> VersionedParameters | None:
        """See ParameterSource."""
        if self._newest is None or self._newest.version <= newer_than:
            return None
        return self._newest
