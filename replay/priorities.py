"""Which transitions are drawn more often: a sum tree over the slots of a mirror, and LAP's rule for what it holds.

Axis legend: B batch, S slots.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32, Float64, Int64

from replay.errors import ReplayConfigError, ReplayError

_FAN_OUT = 16
"""Children per node: 5 numpy passes for a million slots, where a binary tree needs 20."""


class SumTree:
    """Non-negative weights, drawn in proportion; every sum is computed anew from its parts, so nothing drifts."""

    def __init__(self, num_slots: int) -> None:
        """All weights 0.

        Raises:
            ReplayConfigError: without a slot.
        """
        if num_slots < 1:
            raise ReplayConfigError(f"a sum tree needs at least one slot, got {num_slots}")
        self._levels = [np.zeros(_padded(num_slots))]
        while len(self._levels[-1]) > _FAN_OUT:
            self._levels.append(np.zeros(_padded(len(self._levels[-1]) // _FAN_OUT)))

    @property
    def total(self) -> float:
        """Sum of all weights."""
        return float(self._levels[-1].sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tree."""
        return sum(level.nbytes for level in self._levels)

    def get(self, slots: Int64[np.ndarray, "B"]) -> Float64[np.ndarray, "B"]:
        """Weights of these slots."""
        weights: np.ndarray = self._levels[0][slots]
        return weights

    def set(self, slots: Int64[np.ndarray, "B"], weights: Float64[np.ndarray, "B"]) -> None:
        """Set the weights of these slots; of a slot named twice the last weight counts."""
        if not len(slots):
            return
        self._levels[0][slots] = weights
        nodes = slots
        for lower, upper in zip(self._levels[:-1], self._levels[1:], strict=True):
            nodes = np.unique(nodes // _FAN_OUT)
            upper[nodes] = lower.reshape(-1, _FAN_OUT)[nodes].sum(axis=1)

    def draw(self, count: int, rng: np.random.Generator) -> Int64[np.ndarray, "B"]:
        """``count`` slots with replacement, each with probability weight / total; a weight of 0 is never drawn.

        Raises:
            ReplayError: if every weight is 0.
        """
        total = self.total
        if total <= 0.0:
            raise ReplayError("every weight is 0, so nothing can be drawn; add transitions before sampling")
        rest = rng.random(count) * total
        nodes = np.zeros(count, np.int64)
        rows = np.arange(count)
        for level in reversed(self._levels):
            children = level.reshape(-1, _FAN_OUT)[nodes]
            sums = np.cumsum(children, axis=1)
            child = (sums <= rest[:, None]).sum(axis=1)
            # Rounding can leave a rest at or above the last sum: that is the last child that weighs anything.
            over = np.flatnonzero(child == _FAN_OUT)
            if len(over):
                child[over] = _FAN_OUT - 1 - np.argmax(children[over, ::-1] > 0.0, axis=1)
            rest = np.maximum(rest - (sums[rows, child] - children[rows, child]), 0.0)
            nodes = nodes * _FAN_OUT + child
        return nodes


class LossAdjustedPriorities:
    """Weights max(|δ|, 1)^α of the transitions in the slots of a ring; new ones weigh as much as the heaviest ever.

    Errors below 1 weigh alike because the loss that belongs to it, Huber with threshold 1, has gradients proportional
    to them there; above 1 its gradient is constant and the sampling restores the proportion. No importance weights are
    needed: draw with this and minimise the Huber loss.

    Source: LAP (loss-adjusted prioritised replay), arXiv:2007.06049; α = 0.4 as there.
    """

    def __init__(self, num_slots: int, exponent: float = 0.4) -> None:
        """No transition yet.

        Args:
            num_slots: capacity of the ring.
            exponent: α; 0 draws uniformly.

        Raises:
            ReplayConfigError: if ``exponent`` is not within 0..1.
        """
        if not 0.0 <= exponent <= 1.0:
            raise ReplayConfigError(f"the exponent of priorities must be within 0..1, got {exponent}")
        self.tree = SumTree(num_slots)
        self._exponent = exponent
        self._largest = 1.0

    def add(self, slots: Int64[np.ndarray, "B"]) -> None:
        """Transitions that came in."""
        self.tree.set(slots, np.full(len(slots), self._largest))

    def remove(self, slots: Int64[np.ndarray, "B"]) -> None:
        """Transitions that fell out."""
        self.tree.set(slots, np.zeros(len(slots)))

    def update(self, slots: Int64[np.ndarray, "B"], td_errors: Float32[np.ndarray, "B"]) -> None:
        """New weights of transitions that were just learned from.

        Raises:
            ReplayError: if an error is not finite.
        """
        if not np.isfinite(td_errors).all():
            bad = int(np.argmin(np.isfinite(td_errors)))
            raise ReplayError(
                f"td_errors[{bad}] is {td_errors[bad]}, expected finite numbers; the critic diverged: lower its "
                "learning rate or check the rewards"
            )
        # Through float32, in which they are saved: a resumed run draws the very same transitions.
        weights = (np.maximum(np.abs(td_errors), 1.0) ** self._exponent).astype(np.float32).astype(np.float64)
        self._largest = max(self._largest, float(weights.max(initial=1.0)))
        self.tree.set(slots, weights)

    def state(self, slots: Int64[np.ndarray, "S"]) -> dict[str, np.ndarray]:
        """Weights of the transitions held, in the order of ``slots``, for a checkpoint."""
        return {
            "priorities": self.tree.get(slots).astype(np.float32),
            "largest_priority": np.array([self._largest], np.float32),
        }

    def restore(self, slots: Int64[np.ndarray, "S"], state: Mapping[str, np.ndarray]) -> None:
        """Put back what ``state`` gave.

        Raises:
            ReplayError: if the state belongs to another number of transitions.
        """
        weights = state["priorities"]
        if len(weights) != len(slots):
            raise ReplayError(
                f"the checkpoint has priorities of {len(weights)} transitions, the replay holds {len(slots)}; were the "
                "checkpoint and the replay written by the same run?"
            )
        self._largest = float(state["largest_priority"][0])
        self.tree.set(slots, weights.astype(np.float64))


def _padded(count: int) -> int:
    """Up to the next multiple of the fan-out."""
    return -(-count // _FAN_OUT) * _FAN_OUT
