"""What a critic's outputs mean and what they are fitted to: one number, or a distribution over bins.

Axis legend: B batch, E critics, K bins.
Sources: TD3 (arXiv:1802.09477) for the scalar minimum; C51 (arXiv:1707.06887, Algorithm 1) for the projection;
thesis (learner/critic_config.py), 3.4, for the asymmetric loss.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from learner.critic_config import CriticConfig


@dataclass(frozen=True, slots=True)
class ScalarHead:
    """Q(s, a) itself, fitted with squared errors."""

    is_huber: bool = False
    """Squares up to an error of 1, linear beyond: what LAP's sampling needs (arXiv:2007.06049, eq. 14)."""
    is_iterated: bool = False
    """Critics form a chain, each the target of the next."""

    def values(self, outputs: Tensor) -> Float[Tensor, "E B"]:
        """Q of every critic. ``outputs`` is (E, B), or (E, B, 1)."""
        return outputs.squeeze(2) if outputs.dim() == 3 else outputs

    def target(self, next_outputs: Tensor, reward: Float[Tensor, "B"], discount: Float[Tensor, "B"]) -> Tensor:
        """Target y = r + discount · min over critics of Q'(s', ã), (B,), ``discount`` with γ in it. Source: TD3.

        Iterated: y of critic k = r + discount · Q'ₖ₋₁(s', ã), (E, B). Source: i-QN (arXiv:2403.02107), with soft
        copies of all critics as targets.
        """
        values = self.values(next_outputs)
        if not self.is_iterated:
            return reward + discount * values.amin(dim=0)
        # Each critic looks one Bellman step further than the one before it; the first one follows itself.
        return reward + discount * torch.cat([values[:1], values[:-1]])

    def loss(self, outputs: Tensor, target: Tensor, asymmetry: Float[Tensor, ""] | None = None) -> Float[Tensor, ""]:
        """Sum over critics of the mean of 2·|α or 1 − α|·(Q − y)²; at α = 0.5 the mean squared error.

        Args:
            outputs: of the critics at (s, a).
            target: y, for all critics or for each.
            asymmetry: α; None is 0.5.

        Source: thesis, 3.4, α max(0, Q − y)² + (1 − α) min(0, Q − y)².
        """
        error = self.values(outputs) - target
        squares = error.square()
        if self.is_huber:
            squares = torch.where(error.abs() > 1, 2 * error.abs() - 1, squares)
        if asymmetry is not None:
            squares = squares * torch.where(error > 0, 2 * asymmetry, 2 * (1 - asymmetry))
        return squares.mean(dim=1).sum()

    def errors(self, outputs: Tensor, target: Tensor) -> Float[Tensor, "B"]:
        """Largest |Q − y| over the critics, which prioritised sampling wants to know."""
        return (self.values(outputs) - target).abs().amax(dim=0)


@dataclass(frozen=True, slots=True)
class CategoricalHead:
    """A distribution over evenly spaced bins, fitted with cross entropy."""

    num_bins: int
    max_value: float
    """The bins reach from −max_value to max_value."""

    def support(self, like: Tensor) -> Float[Tensor, "K"]:
        """Values of the bins."""
        return torch.linspace(-self.max_value, self.max_value, self.num_bins, device=like.device)

    def values(self, outputs: Float[Tensor, "E B K"]) -> Float[Tensor, "E B"]:
        """Means of the distributions."""
        # A sum and not a product of matrices: those run in bfloat16 under mixed precision, too coarse for a value.
        return (torch.softmax(outputs.float(), dim=2) * self.support(outputs)).sum(dim=2)

    def target(
        self, next_outputs: Float[Tensor, "E B K"], reward: Float[Tensor, "B"], discount: Float[Tensor, "B"]
    ) -> Float[Tensor, "B K"]:
        """Bellman image of the critic with the smallest mean, put back on the bins.

        Returns:
            Probabilities: each image r + discount · z gives its mass to the two bins beside it; what falls
            off the ends is clamped to them. Source: C51, Algorithm 1; minimum of means: SimbaV2, XQC.
        """
        probabilities = torch.softmax(next_outputs.float(), dim=2)
        support = self.support(next_outputs)
        smallest = (probabilities * support).sum(dim=2).argmin(dim=0)
        chosen = probabilities[smallest, torch.arange(len(reward), device=reward.device)]
        image = reward.unsqueeze(1) + discount.unsqueeze(1) * support
        position = (image.clamp(-self.max_value, self.max_value) + self.max_value) * (
            (self.num_bins - 1) / (2 * self.max_value)
        )
        lower = position.floor().clamp(0, self.num_bins - 2)
        upper_share = position - lower
        index = lower.long()
        target = torch.zeros_like(chosen)
        target.scatter_add_(1, index, chosen * (1 - upper_share))
        target.scatter_add_(1, index + 1, chosen * upper_share)
        return target

    def loss(
        self, outputs: Float[Tensor, "E B K"], target: Float[Tensor, "B K"], asymmetry: Tensor | None = None
    ) -> Float[Tensor, ""]:
        """Sum over critics of the mean cross entropy, nats.

        Raises:
            ValueError: if an asymmetry is given; cross entropy has no sign to be asymmetric about.
        """
        if asymmetry is not None:
            raise ValueError("cross entropy has no asymmetry, got one; CriticConfig refuses this combination")
        entropies = -(functional.log_softmax(outputs.float(), dim=2) * target).sum(dim=2)
        return entropies.mean(dim=1).sum()

    def errors(self, outputs: Float[Tensor, "E B K"], target: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
        """Largest difference of means over the critics, which prioritised sampling wants to know."""
        mean = (target * self.support(target)).sum(dim=1)
        return (self.values(outputs) - mean).abs().amax(dim=0)


ValueHead = ScalarHead | CategoricalHead


def make_head(config: CriticConfig, *, is_huber: bool = False) -> ValueHead:
    """The configured head; ``is_huber`` concerns the scalar one."""
    if config.head == "categorical":
        return CategoricalHead(config.num_bins, config.max_value)
    return ScalarHead(is_huber, config.target_rule == "iterated")
