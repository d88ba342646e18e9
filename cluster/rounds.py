"""Test rounds: what one is, and how a run asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from learner.parameters import VersionedParameters


@dataclass(frozen=True, slots=True)
class TestRound:
    """Returns of one test round and the parameters that made them."""

    parameters: VersionedParameters
    returns: Sequence[float]


class TestRunner(Protocol):
    """Runs test rounds, at once or elsewhere."""

    def request(self, parameters: VersionedParameters) -> Sequence[VersionedParameters]:
        """Ask for a round with these parameters; returns those of waiting rounds that are left out from now on."""
        ...

    def collect(self) -> list[TestRound]:
        """Rounds finished since the last call."""
        ...
