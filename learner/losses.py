"""Pure functions of the TD3 update; no state, no randomness beyond what is passed in.

Axis legend: B batch, A action.
Source: Fujimoto et al. 2018 (arXiv:1802.09477), Algorithm 1; arXiv:2503.09119, Algorithm 1.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def smoothed_action(
    action: Float[Tensor, "B A"],
    noise: Float[Tensor, "B A"],
    *,
    action_scale: Float[Tensor, "A"],
    action_center: Float[Tensor, "A"],
    noise_std: float,
    noise_clip: float,
) -> Float[Tensor, "B A"]:
    """Target policy smoothing ã = clamp(a + scale · clamp(std · ε, ±clip), low, high).

    Args:
        action: target policy's action, environment units.
        noise: ε, standard normal.
        action_scale: half-range of each component; std and clip are fractions of it.
        action_center: middle of each component's range.
        noise_std: standard deviation, fraction of the half-range.
        noise_clip: bound, fraction of the half-range.

    Source: arXiv:1802.09477, eq. 14 and Section 5.3; each component is clamped to its own bounds.
    """
    offset = (noise * noise_std).clamp(-noise_clip, noise_clip) * action_scale
    return torch.clamp(action + offset, action_center - action_scale, action_center + action_scale)


def surrogate_loss(logits: Float[Tensor, "B N"], bits: Float[Tensor, "B N"]) -> Float[Tensor, ""]:
    """Binary cross entropy in nats per bit. Source: arXiv:2503.09119, Algorithm 1, step B1."""
    return functional.binary_cross_entropy_with_logits(logits, bits)


def polyak_update_(targets: Sequence[Tensor], sources: Sequence[Tensor], polyak_coefficient: float) -> None:
    """θ' ← τ θ + (1 − τ) θ', in place. Source: arXiv:2503.09119, Algorithm 1, step B4."""
    torch._foreach_lerp_(list(targets), list(sources), polyak_coefficient)
