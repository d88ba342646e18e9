"""Running statistics: observations brought to mean 0 and variance 1, rewards to returns that fit the critic's range.

Axis legend: B batch, O observation.
Sources: observation normalisation as SimBa (arXiv:2410.09754), reward scaling as SimbaV2 (arXiv:2502.15280).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn


class ObservationNormaliser(nn.Module):
    """(s − mean) / std over every observation seen so far, clamped; part of the published policy."""

    def __init__(self, size: int, *, clip: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.mean: Tensor
        self.variance: Tensor
        self.count: Tensor
        self._clip = clip

    def forward(self, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """Normalised observations; a component that never changed becomes 0."""
        scaled = (observation - self.mean) * torch.rsqrt(self.variance + 1e-8)
        return scaled.clamp(-self._clip, self._clip)

    @torch.no_grad()
    def update(self, observation: Float[Tensor, "B O"]) -> None:
        """Take a batch into the statistics (parallel variance, Chan et al. 1979)."""
        # Not var_mean, which goes down the columns one number after the other: a tenth of its time.
        batch_mean = observation.mean(dim=0)
        batch_variance = (observation - batch_mean).square_().mean(dim=0)
        count = self.count + len(observation)
        share = (len(observation) / count).to(observation.dtype)
        delta = batch_mean - self.mean
        self.variance.lerp_(batch_variance, share).add_(delta.square() * share * (1 - share))
        # The first batch has nothing to be mixed with: the initial variance of 1 counts for nothing.
        self.mean.add_(delta * share)
        self.count.copy_(count)


@dataclass(frozen=True, slots=True)
class ReturnMoments:
    """Sums over steps of running discounted returns G ← r + γ G, each from the first step of its episode on."""

    count: int = 0
    total: float = 0.0
    total_squares: float = 0.0
    largest: float = 0.0
    """max |G|."""

    def after(self, returns: Float64[np.ndarray, "E"]) -> "ReturnMoments":
        """With one more step of every environment, whose G it is given."""
        return ReturnMoments(
            self.count + len(returns),
            self.total + float(returns.sum()),
            self.total_squares + float(np.square(returns).sum()),
            max(self.largest, float(np.abs(returns).max())),
        )


class ReturnScale:
    """Divisor of rewards that gives discounted returns a variance of about 1 and keeps them in the critic's range.

    scale = max(std(G), max|G| / max_value). Source: SimbaV2 (arXiv:2502.15280), reward scaling.
    """

    def __init__(self, max_value: float) -> None:
        self._max_value = max_value
        self._count, self._total, self._total_squares, self._largest = 0, 0.0, 0.0, 0.0

    def add(self, moments: ReturnMoments) -> None:
        """Take in the steps since the last call."""
        self._count += moments.count
        self._total += moments.total
        self._total_squares += moments.total_squares
        self._largest = max(self._largest, moments.largest)

    @property
    def scale(self) -> float:
        """The divisor; 1 until there was a reward."""
        if self._largest == 0:
            return 1.0
        mean = self._total / self._count
        variance = max(self._total_squares / self._count - mean * mean, 0.0)
        return max(math.sqrt(variance), self._largest / self._max_value, 1e-8)

    def state(self) -> dict[str, Any]:
        """JSON-able; floats survive it bit for bit."""
        return {
            "count": self._count,
            "total": self._total,
            "total_squares": self._total_squares,
            "largest": self._largest,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        self._count, self._total = int(state["count"]), float(state["total"])
        self._total_squares, self._largest = float(state["total_squares"]), float(state["largest"])
