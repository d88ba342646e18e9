"""Policy families: what PostDNN's outputs mean as a distribution over actions in (-1, 1).

Every family is reparameterised: action = f(outputs, ε) with ε standard normal, and ε = 0 gives the action of test
rounds. The quantum layer sits before PostDNN and knows nothing of the family.

Axis legend: B batch, A action, D latent, R outputs of PostDNN, E noise.
Source: thesis (learner/critic_config.py), 2.1.2; squashed Gaussian as SAC (arXiv:1801.01290, appendix C).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from learner.config import PolicyConfig, check_family

_CONTEXT_SIZE = 64
_HIDDEN_SIZE = 64
_LOG_STD_MIN, _LOG_STD_MAX = -5.0, 2.0

Sample = tuple[Float[Tensor, "B A"], Float[Tensor, "B"] | None]


class DeterministicHead(nn.Module):
    """tanh(outputs); exploration noise is the rollout's, and there is no entropy. Source: DDPG, TD3."""

    def __init__(self, action_size: int) -> None:
        super().__init__()
        self.num_outputs, self.num_noise = action_size, 0

    def forward(self, outputs: Float[Tensor, "B R"], noise: Float[Tensor, "B E"]) -> Sample:  # noqa: ARG002
        """Action, and no log-probability; E = 0."""
        return torch.tanh(outputs), None


class GaussianHead(nn.Module):
    """tanh of a Gaussian whose mean and standard deviation depend on the state. Source: SAC; thesis, 2.1.2."""

    def __init__(self, action_size: int) -> None:
        super().__init__()
        self.num_outputs, self.num_noise = 2 * action_size, action_size

    def forward(self, outputs: Float[Tensor, "B R"], noise: Float[Tensor, "B E"]) -> Sample:
        """Action and log π(a | s)."""
        latent, log_prob = _gaussian_sample(outputs, noise)
        return torch.tanh(latent), log_prob - _log_tanh_slope(latent).sum(dim=1)


class FlowHead(nn.Module):
    """tanh of a conditional RealNVP flow over a Gaussian; its couplings see the state through a context.

    Source: thesis, 2.1.2; RealNVP (arXiv:1605.08803), affine couplings with alternating halves.
    """

    def __init__(self, action_size: int, num_layers: int) -> None:
        super().__init__()
        check_family("flow", action_size)
        self.num_outputs, self.num_noise = 2 * action_size + _CONTEXT_SIZE, action_size
        self._split = action_size // 2
        sizes = [(self._split, action_size - self._split), (action_size - self._split, self._split)]
        self.couplings = nn.ModuleList(
            [_mlp(fixed + _CONTEXT_SIZE, 2 * moved) for fixed, moved in (sizes[i % 2] for i in range(num_layers))]
        )
        for coupling in self.couplings:
            # The flow starts as the identity, so that training starts from a squashed Gaussian.
            nn.init.zeros_(coupling[-1].weight)  # type: ignore[index]
            nn.init.zeros_(coupling[-1].bias)  # type: ignore[index]

    def forward(self, outputs: Float[Tensor, "B R"], noise: Float[Tensor, "B E"]) -> Sample:
        """Action and log π(a | s)."""
        action_size = self.num_noise
        latent, log_prob = _gaussian_sample(outputs[:, : 2 * action_size], noise)
        context = outputs[:, 2 * action_size :]
        for number, coupling in enumerate(self.couplings):
            first, second = latent[:, : self._split], latent[:, self._split :]
            fixed, moved = (first, second) if number % 2 == 0 else (second, first)
            raw_scale, shift = coupling(torch.cat([fixed, context], dim=1)).chunk(2, dim=1)
            log_scale = torch.tanh(raw_scale)
            moved = moved * log_scale.exp() + shift
            latent = torch.cat([fixed, moved] if number % 2 == 0 else [moved, fixed], dim=1)
            log_prob = log_prob - log_scale.sum(dim=1)
        return torch.tanh(latent), log_prob - _log_tanh_slope(latent).sum(dim=1)


class VariationalHead(nn.Module):
    """Two stages: a latent z from the state, then a squashed Gaussian from z and the state (VQL).

    log π(a | s) has no closed form. In its place stands log π₁(a | z, s) + log π₂(z | s) − log q(z | a, s), whose
    negative is a lower bound of the entropy in expectation; q is trained by the same objective.
    Source: thesis, 2.1.2, the objective of Variational Q-Learning.
    """

    def __init__(self, action_size: int, latent_size: int) -> None:
        super().__init__()
        self.num_outputs, self.num_noise = 2 * latent_size + _CONTEXT_SIZE, latent_size + action_size
        self._latent_size = latent_size
        self.action_network = _mlp(latent_size + _CONTEXT_SIZE, 2 * action_size)
        self.posterior_network = _mlp(action_size + _CONTEXT_SIZE, 2 * latent_size)

    def forward(self, outputs: Float[Tensor, "B R"], noise: Float[Tensor, "B E"]) -> Sample:
        """Action and the bound's estimate of log π(a | s)."""
        size = self._latent_size
        latent, log_prior = _gaussian_sample(outputs[:, : 2 * size], noise[:, :size])
        context = outputs[:, 2 * size :]
        parameters = self.action_network(torch.cat([latent, context], dim=1))
        unsquashed, log_prob = _gaussian_sample(parameters, noise[:, size:])
        action = torch.tanh(unsquashed)
        posterior = self.posterior_network(torch.cat([action, context], dim=1))
        log_conditional = log_prob - _log_tanh_slope(unsquashed).sum(dim=1)
        return action, log_conditional + log_prior - _gaussian_log_prob(posterior, latent)


ActionHead = DeterministicHead | GaussianHead | FlowHead | VariationalHead


def make_action_head(config: PolicyConfig, action_size: int) -> ActionHead:
    """The configured family.

    Raises:
        ValueError: if a flow is asked for with a single action component.
    """
    if config.family == "gaussian":
        return GaussianHead(action_size)
    if config.family == "flow":
        return FlowHead(action_size, config.num_flow_layers)
    if config.family == "variational":
        return VariationalHead(action_size, config.latent_size)
    return DeterministicHead(action_size)


class EntropyCoefficient(nn.Module):
    """β of the entropy bonus, tuned so that the policy's entropy meets a target. Source: thesis, eq. 2.1.2."""

    def __init__(self, initial: float, target_entropy: float) -> None:
        super().__init__()
        self.log_value = nn.Parameter(torch.tensor(math.log(initial)))
        self.target_entropy = target_entropy

    @property
    def value(self) -> Float[Tensor, ""]:
        """β, without gradient."""
        return self.log_value.detach().exp()

    def loss(self, log_prob: Float[Tensor, "B"]) -> Float[Tensor, ""]:
        """β · (entropy − target): falls where entropy is above its target, so β does too."""
        return self.log_value.exp() * (-log_prob.detach().mean() - self.target_entropy)


def _gaussian_sample(
    parameters: Float[Tensor, "B 2*D"], noise: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B"]]:
    """Mean + std · ε, and its log-density summed over the components."""
    mean, log_std = _mean_and_log_std(parameters)
    log_prob = (-0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=1)
    return mean + log_std.exp() * noise, log_prob


def _gaussian_log_prob(parameters: Float[Tensor, "B 2*D"], value: Float[Tensor, "B D"]) -> Float[Tensor, "B"]:
    mean, log_std = _mean_and_log_std(parameters)
    scaled = (value - mean) * (-log_std).exp()
    return (-0.5 * scaled.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=1)


def _mean_and_log_std(parameters: Float[Tensor, "B 2*D"]) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
    mean, raw = parameters.chunk(2, dim=1)
    # Smooth bounds keep a gradient everywhere, where a clamp would lose it.
    return mean, _LOG_STD_MIN + 0.5 * (_LOG_STD_MAX - _LOG_STD_MIN) * (torch.tanh(raw) + 1)


def _log_tanh_slope(latent: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
    """log(1 − tanh²(z)), in the form that does not underflow."""
    return 2 * (math.log(2) - latent - functional.softplus(-2 * latent))


def _mlp(num_inputs: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_inputs, _HIDDEN_SIZE), nn.LeakyReLU(), nn.Linear(_HIDDEN_SIZE, num_outputs))
