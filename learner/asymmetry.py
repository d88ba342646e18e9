"""α of the asymmetric squared loss: fixed, annealed, or found during training.

α weighs errors of overestimation, 1 − α those of underestimation; 0.5 is symmetric.
Sources: thesis (learner/critic_config.py), 3.4 (fixed α; its adaptation is named as future work); annealed
Q-learning (arXiv:2506.05968): optimistic targets at first, the policy's own values in the end.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from learner.critic_config import CriticConfig

_MIN, _MAX = 0.05, 0.95


class Asymmetry:
    """Owner of α; a tensor, because a captured update may not read numbers of the host.

    Adaptive: the critic's values are held against returns that look many steps ahead before they bootstrap. One-step
    targets pile their bias up along a path, so a mean gap above 0 says that values are too high: α goes up; below 0
    they are too low: α goes down. No environment needs an α of its own. This rule is ours.

    Args:
        config: start, end and rule.
        decay_updates: updates over which α goes from start to end.
        device: where the learner computes.
    """

    def __init__(self, config: CriticConfig, decay_updates: int | None, device: torch.device) -> None:
        self.value = torch.tensor(config.asymmetry, device=device)
        self._config, self._decay_updates = config, decay_updates

    def anneal(self, update_step: int) -> None:
        """Linear from start to end, if there is an end."""
        end = self._config.final_asymmetry
        if end is None or self._decay_updates is None:
            return
        progress = min(update_step / self._decay_updates, 1.0)
        self.value.fill_(self._config.asymmetry + (end - self._config.asymmetry) * progress)

    def adapt(self, values: Float[Tensor, "B"], far_returns: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """One step of α against the mean gap between values and far-sighted returns.

        Args:
            values: Q(s, a).
            far_returns: Σ γᵏ rₖ over many steps, then a value.

        Returns:
            The gap, as a fraction of the returns' standard deviation.
        """
        gap = ((values - far_returns).mean() / (far_returns.std(correction=0) + 1e-6)).clamp(-1, 1)
        logit = torch.logit(self.value) + self._config.adaptation_rate * gap
        self.value.copy_(torch.sigmoid(logit).clamp(_MIN, _MAX))
        return gap

    @property
    def is_adaptive(self) -> bool:
        """Whether ``adapt`` is to be called."""
        return self._config.adapts_asymmetry

    def state(self) -> float:
        """α; floats survive JSON bit for bit."""
        return float(self.value)

    def restore(self, value: float) -> None:
        """Put back what ``state`` gave.

        Raises:
            ValueError: if it is no α.
        """
        if not 0 < value < 1 or not math.isfinite(value):
            raise ValueError(f"asymmetry must be in (0, 1), got {value}; the checkpoint is damaged")
        self.value.fill_(value)
