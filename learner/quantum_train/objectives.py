"""What on-policy learning climbs: REINFORCE's and PPO's objectives, and the advantages that they weigh actions with.

Axis legend: B steps of a round's episodes, one episode after the other; E episodes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeBatch:
    """Whole episodes of one round, one after the other."""

    observations: Float32[np.ndarray, "B O"]
    actions: np.ndarray
    """int64 (B,) of discrete actions, or float32 (B, A) of continuous ones before clipping to bounds."""
    log_probabilities: Float32[np.ndarray, "B"]
    """Of the actions, under the policy that chose them."""
    rewards: Float32[np.ndarray, "B"]
    lengths: Int64[np.ndarray, "E"]
    """Steps of every episode."""
    is_terminated: np.ndarray
    """bool (E,): whether the episode ended by itself; a truncated one is bootstrapped."""
    last_observations: Float32[np.ndarray, "E O"]
    """Observation after the last step of every episode."""

    @property
    def episode_returns(self) -> list[float]:
        """Undiscounted return of every episode."""
        return [float(part.sum()) for part in np.split(self.rewards, np.cumsum(self.lengths)[:-1])]


def standardised_returns(batch: EpisodeBatch, discount_factor: float) -> Float32[np.ndarray, "B"]:
    """Discounted returns to go, standardised within every episode, as the source does.

    An episode of one step has no spread; it weighs nothing. Source: released code of arXiv:2407.06103, which skips it.
    """
    parts = []
    for rewards in np.split(batch.rewards, np.cumsum(batch.lengths)[:-1]):
        returns = _discounted(rewards, discount_factor)
        spread = returns.std()
        parts.append((returns - returns.mean()) / (spread + 1e-8) if len(returns) > 1 else np.zeros(1))
    return np.concatenate(parts).astype(np.float32)


def generalised_advantages(
    batch: EpisodeBatch,
    values: Float32[np.ndarray, "B"],
    last_values: Float32[np.ndarray, "E"],
    discount_factor: float,
    gae_coefficient: float,
) -> tuple[Float32[np.ndarray, "B"], Float32[np.ndarray, "B"]]:
    """Advantages and value targets.

    Args:
        batch: episodes.
        values: of every observation.
        last_values: of the observation after every episode; used where it was truncated.
        discount_factor: γ.
        gae_coefficient: λ.

    Source: Schulman et al. 2016 (arXiv:1506.02438), Eq. 16.
    """
    starts = np.cumsum(batch.lengths)[:-1]
    advantages = []
    for rewards, own, last, ended in zip(
        np.split(batch.rewards, starts), np.split(values, starts), last_values, batch.is_terminated, strict=True
    ):
        following = np.append(own[1:], 0.0 if ended else last)
        errors = rewards + discount_factor * following - own
        advantages.append(_discounted(errors, discount_factor * gae_coefficient))
    together = np.concatenate(advantages).astype(np.float32)
    return together, together + values


def reinforce_loss(log_probability: Float[Tensor, "B"], weight: Float[Tensor, "B"]) -> Float[Tensor, ""]:
    """−mean of log π(a|s)·weight."""
    return -(log_probability * weight).mean()


def ppo_loss(
    log_probability: Float[Tensor, "B"],
    old_log_probability: Float[Tensor, "B"],
    advantage: Float[Tensor, "B"],
    clip_range: float,
) -> Float[Tensor, ""]:
    """−mean of min(r·A, clip(r, 1−ε, 1+ε)·A), r = π/π_old. Source: arXiv:1707.06347, Eq. 7."""
    ratio = torch.exp(log_probability - old_log_probability)
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def _discounted(values: np.ndarray, factor: float) -> np.ndarray:
    sums = np.empty(len(values))
    running = 0.0
    for step in range(len(values) - 1, -1, -1):
        running = float(values[step]) + factor * running
        sums[step] = running
    return sums
