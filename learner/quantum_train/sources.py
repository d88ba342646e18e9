"""Where a generator's probabilities come from, as differentiable torch functions: exact, or measured shots.

Axis legend: C circuits, A angles, N qubits, K outcomes (2^N).
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.exact import ExactGenerator


class ProbabilitySource(Protocol):
    """Turns angles into outcome probabilities; both ways of the product with a gradient."""

    def probabilities(self, angles: np.ndarray) -> np.ndarray:
        """Probabilities (C, K), float32, of circuits with angles (C, A) in rad."""
        ...

    def gradient(self, angles: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """D Σ weights·p / d angles (C, A), for weights (C, K)."""
        ...

    def seek(self, seed: int) -> None:
        """Begin a new series of random numbers, where there are any: what follows depends on this seed alone."""
        ...


class ExactSource:
    """Simulates every circuit exactly; its gradient is the adjoint method's.

    Args:
        shape: family and size of every circuit.
        num_circuits: how many there are.
    """

    def __init__(self, shape: GeneratorShape, num_circuits: int) -> None:
        self._simulators = [ExactGenerator(shape) for _ in range(num_circuits)]

    def probabilities(self, angles: Float[np.ndarray, "C A"]) -> Float[np.ndarray, "C K"]:
        """See ProbabilitySource."""
        return np.stack([sim.probabilities(row) for sim, row in zip(self._simulators, angles, strict=True)])

    def gradient(self, angles: Float[np.ndarray, "C A"], weights: Float[np.ndarray, "C K"]) -> Float[np.ndarray, "C A"]:
        """See ProbabilitySource."""
        rows = zip(self._simulators, angles, weights, strict=True)
        return np.stack([simulator.gradient(row, weight) for simulator, row, weight in rows])

    def seek(self, seed: int) -> None:
        """Nothing is random here."""


class VersionedSource:
    """Asks its source once per version of the angles: what acted is what the gradient is taken at.

    Args:
        source: exact or measuring.
        latency_s: every question takes at least so long, as at a device; for measurements of scaling. What the source
            itself takes counts, since it stands in for the device.
        sleep: how to wait.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        source: ProbabilitySource,
        latency_s: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._latency_s, self._sleep, self._clock = source, latency_s, sleep, clock
        self._newest: tuple[np.ndarray, np.ndarray] | None = None

    def probabilities(self, angles: Float[np.ndarray, "C A"]) -> Float[np.ndarray, "C K"]:
        """See ProbabilitySource."""
        if self._newest is None or not np.array_equal(self._newest[0], angles):
            asked_s = self._clock()
            self._newest = (angles.copy(), self._source.probabilities(angles))
            self._wait(asked_s)
        return self._newest[1]

    def gradient(self, angles: Float[np.ndarray, "C A"], weights: Float[np.ndarray, "C K"]) -> Float[np.ndarray, "C A"]:
        """See ProbabilitySource."""
        asked_s = self._clock()
        gradient = self._source.gradient(angles, weights)
        self._wait(asked_s)
        return gradient

    def seek(self, seed: int) -> None:
        """See ProbabilitySource; measured frequencies are forgotten."""
        self._newest = None
        self._source.seek(seed)

    def _wait(self, asked_s: float) -> None:
        if self._latency_s > 0:
            self._sleep(max(0.0, asked_s + self._latency_s - self._clock()))


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, source: ProbabilitySource) -> Tensor:
        values = angles.detach().numpy().astype(np.float64)
        ctx.source, ctx.values = source, values
        return torch.from_numpy(source.probabilities(values).copy())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        weights = np.ascontiguousarray(gradients[0].numpy(), np.float32)
        return torch.from_numpy(ctx.source.gradient(ctx.values, weights).astype(np.float32)), None


def circuit_probabilities(angles: Float[Tensor, "C A"], source: ProbabilitySource) -> Float[Tensor, "C K"]:
    """Outcome probabilities of every circuit, differentiable in the angles."""
    result: Tensor = _Probabilities.apply(angles, source)  # type: ignore[no-untyped-call]
    return result
