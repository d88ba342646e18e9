"""Kinds of updates: a captured step of each is a graph of its own (learner/captured_steps.py)."""

from typing import NamedTuple


class StepKind(NamedTuple):
    """What an update does beyond fitting surrogate and critics."""

    moves_policy: bool
    """B3 and B4 too."""
    measures_surrogate: bool
    """Compares the surrogate with the exact circuit, too."""
