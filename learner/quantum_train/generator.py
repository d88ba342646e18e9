"""Quantum-Train: the weights of a network from the outcome probabilities of a circuit.

Axis legend: M weights, C circuits, A angles, N qubits of one circuit, K outcomes (2^N), D digits of a weight's number.

Source: arXiv:2407.06103 and its released code; arXiv:2412.08845. Deviates: none with the defaults of GeneratorConfig.
"""

import functools
import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.quantum_train.config import GeneratorConfig
from learner.quantum_train.sources import ExactSource, ProbabilitySource, VersionedSource, circuit_probabilities
from qpu_service.generator.circuit import GeneratorShape

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def generator_shape(num_weights: int, config: GeneratorConfig) -> tuple[GeneratorShape, int]:
    """Shape of one circuit and number of circuits that M weights need.

    Raises:
        ValueError: if there is nothing to generate.
    """
    if num_weights < 1:
        raise ValueError(f"num_weights must be at least 1, got {num_weights}: the network has no weights")
    num_qubits = max(2, math.ceil(math.log2(num_weights)))
    if config.max_qubits is not None:
        num_qubits = min(num_qubits, config.max_qubits)
    shape = GeneratorShape(num_qubits=num_qubits, depth=config.depth, family=config.family)
    return shape, math.ceil(num_weights / shape.num_outcomes)


class WeightGenerator(nn.Module):
    """Angles and mapping model; calling it gives M weights.

    Weight i comes from outcome i: its probability, stretched to x = (β·tanh(γ·2^(N−1)·p))^α − mean, and the binary
    digits of i as ±1 go through one small network, the same for all weights; the mean over all weights is taken away.

    Args:
        num_weights: M.
        config: circuit and mapping.
        seed: of the initial angles and mapping.
        source: where probabilities come from; default: exact simulation.
        latency_s: every question to the source takes at least so long.
    """

    def __init__(
        self,
        num_weights: int,
        config: GeneratorConfig,
        *,
        seed: int,
        source: ProbabilitySource | None = None,
        latency_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_weights = num_weights
        self.shape, self.num_circuits = generator_shape(num_weights, config)
        self.source = VersionedSource(source or ExactSource(self.shape, self.num_circuits), latency_s)
        self._config = config
        random = torch.Generator().manual_seed(seed)
        # The released code leaves its framework's start for angles: uniform over the circle.
        start = (torch.rand(self.num_circuits, self.shape.num_angles, generator=random) * 2 - 1) * math.pi
        self.angles = nn.Parameter(start)
        num_digits = max(self.shape.num_qubits, math.ceil(math.log2(num_weights)) if num_weights > 1 else 1)
        self.mapping = _mapping(num_digits + 1, config, random)
        digits = torch.arange(num_weights)[:, None] >> torch.arange(num_digits) & 1
        self.register_buffer("digits", digits.float() * 2 - 1, persistent=False)
        self.digits: Tensor

    def forward(self) -> Float[Tensor, "M"]:
        """The weights; asks the source once."""
        return self.map_probabilities(circuit_probabilities(self.angles, self.source))

    def map_probabilities(self, probabilities: Float[Tensor, "C K"]) -> Float[Tensor, "M"]:
        """The mapping model alone."""
        config = self._config
        half = self.shape.num_outcomes / 2
        x = config.probability_scale * torch.tanh(config.probability_gain * half * probabilities.reshape(-1))
        if config.probability_exponent != 1:
            x = x**config.probability_exponent
        x = x[: self.num_weights]
        x = x - x.mean()
        inputs = torch.cat([self.digits, x[:, None]], dim=1)
        weights = self._affine(inputs) if config.activation == "none" else self.mapping(inputs).squeeze(1)
        return config.weight_scale * (weights - weights.mean())

    def _affine(self, inputs: Float[Tensor, "M D+1"]) -> Float[Tensor, "M"]:
        """The mapping without activations: its layers are multiplied first, which costs nothing next to M rows each.

        Biases shift every weight alike, and the mean is taken away: they need not be carried along.
        """
        chain = [layer.weight for layer in self.mapping if isinstance(layer, nn.Linear)]
        return inputs @ functools.reduce(lambda product, weight: weight @ product, chain).squeeze(0)

    @property
    def num_trainable(self) -> int:
        """Angles and mapping parameters."""
        return sum(parameter.numel() for parameter in self.parameters())


def _mapping(num_inputs: int, config: GeneratorConfig, random: torch.Generator) -> nn.Sequential:
    sizes = [num_inputs, *config.mapping_hidden, 1]
    layers: list[nn.Module] = []
    for size, next_size in itertools.pairwise(sizes):
        if layers and config.activation != "none":
            layers.append(_ACTIVATIONS[config.activation]())
        layers.append(seeded_linear(size, next_size, random))
    return nn.Sequential(*layers)


def seeded_linear(num_inputs: int, num_outputs: int, random: torch.Generator) -> nn.Linear:
    """``torch.nn.Linear`` with its usual start, drawn from a generator of one's own."""
    layer = nn.Linear(num_inputs, num_outputs)
    bound = 1 / math.sqrt(num_inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=random)
        layer.bias.uniform_(-bound, bound, generator=random)
    return layer
