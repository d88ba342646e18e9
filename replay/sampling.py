"""What a batch is drawn from and how far each of its transitions looks ahead; arithmetic on arrays alone.

Axis legend: B batch, S slots of a ring.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from replay.errors import ReplayConfigError, ReplayError

_MAX_ROUNDS = 8
_OVERSAMPLING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRule:
    """How a batch is drawn; the default is uniform over everything held, one step ahead."""

    n_step: int = 1
    """Longest return, environment steps; shorter where an episode ends or its next step has not arrived."""
    discount_factor: float | None = None
    """γ within n-step returns; needed where ``n_step`` is above 1."""
    min_policy_version: int = 0
    """Only transitions made by this version of the policy or a newer one."""
    newest: int = 0
    """Only among this many newest transitions; 0 for all that are held."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ReplayConfigError: naming the field.
        """
        if self.n_step < 1:
            raise ReplayConfigError(f"n_step must be at least 1, got {self.n_step}")
        if self.discount_factor is None and self.n_step > 1:
            raise ReplayConfigError(f"n_step is {self.n_step}, so discount_factor must be given: the γ of the learner")
        if self.discount_factor is not None and not 0.0 < self.discount_factor <= 1.0:
            raise ReplayConfigError(f"discount_factor must be above 0 and at most 1, got {self.discount_factor}")
        for name in ("min_policy_version", "newest"):
            if getattr(self, name) < 0:
                raise ReplayConfigError(f"{name} must not be negative, got {getattr(self, name)}")


EVERYTHING = SampleRule()


def n_step_returns(
    slots: Int64[np.ndarray, "B"],
    n_step: int,
    discount_factor: float,
    *,
    rewards: Float32[np.ndarray, "S"],
    discounts: Float32[np.ndarray, "S"],
    next_slots: Int32[np.ndarray, "S"],
) -> tuple[Float32[np.ndarray, "B"], Float32[np.ndarray, "B"], Int64[np.ndarray, "B"]]:
    """Σₖ γᵏ rₖ over the m ≤ n steps from each slot that belong together, and where they end.

    A return ends early after a step that terminated its episode (d = 0), and where no following step is known: the
    episode was truncated, or its next segment is not here. Both bootstrap correctly, the first with 0, the second from
    the true last observation after m steps.

    Args:
        slots: first step of each return.
        n_step: n.
        discount_factor: γ.
        rewards: r of every slot.
        discounts: d of every slot, 0 where the step terminated the episode, else 1.
        next_slots: the slot of the following step of the same episode, -1 where none is known.

    Returns:
        The returns; γᵐ⁻¹ · Π d, which the learner multiplies by γ as it does for one step; the last slots.

    Source: Sutton and Barto, Reinforcement Learning, 2nd ed., Equation 7.1; off-policy without correction as in Rainbow
    (arXiv:1710.02298, Section 3).
    """
    last = slots.copy()
    total = rewards[slots].astype(np.float64)
    factor = discounts[slots].astype(np.float64)
    for _ in range(n_step - 1):
        following = next_slots[last]
        goes_on = np.flatnonzero((following >= 0) & (factor > 0.0))
        if not len(goes_on):
            break
        step = following[goes_on]
        last[goes_on] = step
        factor[goes_on] *= discount_factor
        total[goes_on] += factor[goes_on] * rewards[step]
        factor[goes_on] *= discounts[step]
    return total.astype(np.float32), factor.astype(np.float32), last


def draw_allowed(
    count: int,
    draw: Callable[[int], Int64[np.ndarray, "D"]],
    is_allowed: Callable[[Int64[np.ndarray, "D"]], Bool[np.ndarray, "D"]],
    draw_exactly: Callable[[], Int64[np.ndarray, "B"]],
) -> Int64[np.ndarray, "B"]:
    """``count`` draws from ``draw`` on condition that they are allowed.

    Args:
        count: B.
        draw: any number of independent draws.
        is_allowed: which draws count.
        draw_exactly: does the same at a cost that grows with the replay; used where few draws are allowed.
    """
    accepted: list[np.ndarray] = []
    missing = count
    for _ in range(_MAX_ROUNDS):
        drawn = draw(_OVERSAMPLING * missing)
        accepted.append(drawn[is_allowed(drawn)][:missing])
        missing -= len(accepted[-1])
        if missing == 0:
            return np.concatenate(accepted)
    # What was accepted so far is kept: it has the right law, and so has the rest.
    return np.concatenate([*accepted, draw_exactly()[:missing]])


def draw_from(
    candidates: Int64[np.ndarray, "C"],
    count: int,
    rng: np.random.Generator,
    weights: Float64[np.ndarray, "C"] | None = None,
) -> Int64[np.ndarray, "B"]:
    """``count`` of the candidates with replacement, uniform or in proportion to ``weights``.

    Raises:
        ReplayError: if there is none.
    """
    if not len(candidates):
        raise ReplayError(
            "no transition held is new enough for this sample rule; wait for newer ones, or loosen min_policy_version"
        )
    if weights is None:
        places = rng.integers(0, len(candidates), count)
    else:
        sums = np.cumsum(weights)
        places = np.minimum(np.searchsorted(sums, rng.random(count) * sums[-1], side="right"), len(candidates) - 1)
    drawn: np.ndarray = candidates[places]
    return drawn
