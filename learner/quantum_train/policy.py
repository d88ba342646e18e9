"""Plain policy networks, the distributions that they mean, and where their weights come from.

Axis legend: B batch, O observation, A action or number of actions, M weights.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn
from torch.nn import functional

from learner.quantum_train.config import GeneratorConfig, Parametrisation, PolicyShape
from learner.quantum_train.generator import WeightGenerator, seeded_linear
from learner.quantum_train.sources import ProbabilitySource

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def make_network(shape: PolicyShape, random: torch.Generator) -> nn.Sequential:
    """The policy network: linear layers with ReLU between; logits of actions, or means of a continuous action."""
    sizes = [shape.observation_size, *shape.hidden_sizes, shape.num_outputs]
    layers: list[nn.Module] = []
    for size, next_size in itertools.pairwise(sizes):
        if layers:
            layers.append(nn.ReLU())
        layers.append(seeded_linear(size, next_size, random))
    return nn.Sequential(*layers)


def num_weights(network: nn.Module) -> int:
    """Weights M of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def split_weights(network: nn.Module, weights: Float[Tensor, "M"]) -> dict[str, Tensor]:
    """Cut a vector into a network's parameters, in the order of its ``named_parameters``.

    Raises:
        ValueError: if the vector has another length than the network has weights.
    """
    if len(weights) != num_weights(network):
        raise ValueError(f"the network has {num_weights(network)} weights, got {len(weights)} to fill it with")
    named = list(network.named_parameters())
    parts = torch.split(weights, [parameter.numel() for _, parameter in named])
    return {name: part.view(parameter.shape) for (name, parameter), part in zip(named, parts, strict=True)}


class DirectWeights(nn.Module):
    """The classical control: the weights themselves are trained, from the start that torch gives them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in network.parameters()]))

    def forward(self) -> Float[Tensor, "M"]:
        """The weights."""
        return self.weights


class Policy(nn.Module):
    """A policy network, and what its weights are made of.

    Args:
        shape: sizes of the network.
        generator: circuit and mapping.
        parametrisation: quantum_train, or classical for the control.
        seed: of all initial values.
        source: where probabilities come from; default: exact simulation.
        latency_s: every question to the source takes at least so long.
    """

    def __init__(
        self,
        shape: PolicyShape,
        generator: GeneratorConfig,
        parametrisation: Parametrisation,
        *,
        seed: int,
        source: ProbabilitySource | None = None,
        latency_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.shape = shape
        # Not a submodule: its parameters are places to fill, nothing of them is trained.
        self._network = [make_network(shape, torch.Generator().manual_seed(seed)).requires_grad_(False)]
        self._names = [name for name, _ in self.network.named_parameters()]
        self._held = [*self.network.parameters()]
        self.weights: WeightGenerator | DirectWeights = (
            WeightGenerator(num_weights(self.network), generator, seed=seed, source=source, latency_s=latency_s)
            if parametrisation == "quantum_train"
            else DirectWeights(self.network)
        )
        self.log_std = None if shape.is_discrete else nn.Parameter(torch.full((shape.num_outputs,), -0.5))

    @property
    def network(self) -> nn.Sequential:
        """The plain network; ``fill`` gives it the newest weights."""
        return self._network[0]

    def generate(self) -> dict[str, Tensor]:
        """The network's parameters, differentiable in what they are made of; asks a QPU once."""
        return split_weights(self.network, self.weights())

    def fill(self) -> None:
        """Generate once and copy into ``network``: what acts never asks a QPU."""
        with torch.no_grad():
            self.take(self.generate())

    def take(self, parameters: Mapping[str, Tensor]) -> None:
        """Copy generated parameters into ``network``."""
        with torch.no_grad():
            for name, values in parameters.items():
                self.network.get_parameter(name).copy_(values)

    def seek(self, seed: int) -> None:
        """Begin a new series of the source's random numbers, where it has any."""
        if isinstance(self.weights, WeightGenerator):
            self.weights.source.seek(seed)

    def export(self) -> dict[str, Tensor]:
        """State of ``network``, which any torch program loads without this package or a QPU."""
        return {name: value.clone() for name, value in self.network.state_dict().items()}

    def outputs(self, parameters: Mapping[str, Tensor], observation: Float[Tensor, "B O"]) -> Float[Tensor, "B A"]:
        """Logits or means with generated parameters."""
        return _forward([parameters[name] for name in self._names], observation)

    def act(self, observation: Float32[np.ndarray, "B O"]) -> Float64[np.ndarray, "B A"]:
        """Logits or means with the weights that ``network`` holds."""
        outputs = _forward(self._held, torch.from_numpy(observation))
        return outputs.numpy().astype(np.float64)


def _forward(parameters: Sequence[Tensor], inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B J"]:
    """What ``make_network``'s modules compute, by the same operations.

    The modules' own time is most of it for one observation at a time.
    """
    for index in range(0, len(parameters), 2):
        if index > 0:
            inputs = functional.relu(inputs)
        inputs = functional.linear(inputs, parameters[index], parameters[index + 1])
    return inputs


def log_probability(policy: Policy, outputs: Float[Tensor, "B A"], action: Any) -> Float[Tensor, "B"]:
    """Log-probability (discrete) or log-density (continuous, before clipping to bounds) of actions."""
    if policy.log_std is None:
        return torch.log_softmax(outputs, dim=1).gather(1, action.long()[:, None]).squeeze(1)
    scaled = (action - outputs) * torch.exp(-policy.log_std)
    density: Tensor = -(0.5 * scaled**2 + policy.log_std + _LOG_SQRT_2PI).sum(dim=1)
    return density


def entropy(policy: Policy, outputs: Float[Tensor, "B A"]) -> Float[Tensor, "B"]:
    """Entropy of the action, nat."""
    if policy.log_std is None:
        log_p = torch.log_softmax(outputs, dim=1)
        return -(log_p.exp() * log_p).sum(dim=1)
    return (policy.log_std + _LOG_SQRT_2PI + 0.5).sum().expand(len(outputs))
