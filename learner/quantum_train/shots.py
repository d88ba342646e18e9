"""Probabilities and gradients of generator circuits from measured shots: parameter shift and SPSA.

Axis legend: C circuits, A angles, K outcomes (2^N).
"""

import numpy as np
from jaxtyping import Float32, Float64, Int64

from learner.quantum_train.config import GradientConfig
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.types import GeneratorBackend, GeneratorBatch

_TWO_TERM = ((np.pi / 2, 0.5),)
# A controlled RY has three frequencies' worth of eigenvalues, −1/2, 0 and 1/2, and needs two shifts.
# Source: Anselmetti et al. 2021 (arXiv:2104.05695), Eq. 9.
_FOUR_TERM = (
    (np.pi / 2, (np.sqrt(2) + 1) / (4 * np.sqrt(2))),
    (3 * np.pi / 2, -(np.sqrt(2) - 1) / (4 * np.sqrt(2))),
)


class ShotSource:
    """ProbabilitySource that measures.

    A fresh seed goes with every request, counted from ``seed``, so equal histories give equal shots.

    Args:
        shape: family and size of every circuit.
        backend: measures them; this source owns it.
        config: shots, and how to take gradients.
        seed: root of the requests' seeds.
    """

    def __init__(self, shape: GeneratorShape, backend: GeneratorBackend, config: GradientConfig, *, seed: int) -> None:
        self.circuits_run = 0
        self._shape, self._backend, self._config = shape, backend, config
        self._root, self._requests = seed, 0
        self._shifts = _shift_table(shape)

    def probabilities(self, angles: Float64[np.ndarray, "C A"]) -> Float32[np.ndarray, "C K"]:
        """Observed frequencies."""
        return self._measure(angles)

    def gradient(
        self, angles: Float64[np.ndarray, "C A"], weights: Float32[np.ndarray, "C K"]
    ) -> Float64[np.ndarray, "C A"]:
        """Estimate of d Σ weights·p / d angles; unbiased with parameter shift, nearly so with SPSA."""
        take = self._by_spsa if self._config.method == "spsa" else self._by_shift
        return np.stack([take(row, weight) for row, weight in zip(angles, weights, strict=True)])

    def seek(self, seed: int) -> None:
        """Begin a new series of requests, so that what follows depends on this seed alone."""
        self._root, self._requests = seed, 0

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()

    def _by_shift(self, angles: Float64[np.ndarray, "A"], weights: Float32[np.ndarray, "K"]) -> np.ndarray:
        moved = angles + self._shifts.moves
        values = self._measure(moved) @ weights.astype(np.float64)
        gradient = np.zeros(len(angles))
        np.add.at(gradient, self._shifts.angle, self._shifts.factors * values)
        return gradient

    def _by_spsa(self, angles: Float64[np.ndarray, "A"], weights: Float32[np.ndarray, "K"]) -> np.ndarray:
        """Source: Spall 1992, simultaneous perturbation with ±1 directions."""
        rng = np.random.default_rng([self._root, self._requests, 1])
        signs = rng.choice(np.array([-1.0, 1.0]), (self._config.spsa_samples, len(angles)))
        step = self._config.spsa_step_rad * signs
        values = self._measure(np.concatenate([angles + step, angles - step])) @ weights.astype(np.float64)
        slopes = (values[: len(signs)] - values[len(signs) :]) / (2 * self._config.spsa_step_rad)
        gradient: np.ndarray = (slopes[:, None] * signs).mean(axis=0)
        return gradient

    def _measure(self, angles: Float64[np.ndarray, "B A"]) -> Float32[np.ndarray, "B K"]:
        request = int(np.random.SeedSequence([self._root, self._requests]).generate_state(1, np.uint64)[0] >> 1)
        self._requests += 1
        self.circuits_run += len(angles)
        batch = GeneratorBatch(shape=self._shape, angles=angles, shots=self._config.shots, seed=request)
        return (self._backend.run(batch).counts / self._config.shots).astype(np.float32)


class _Shifts:
    """All shifted circuits of one gradient: what is added to the angles, for which angle, with which factor."""

    def __init__(self, moves: np.ndarray, angle: Int64[np.ndarray, "R"], factors: np.ndarray) -> None:
        self.moves, self.angle, self.factors = moves, angle, factors


def _shift_table(shape: GeneratorShape) -> _Shifts:
    is_controlled_theta = np.zeros(shape.num_angles, dtype=bool)
    if shape.family == "u3_cu3":
        # θ of CU3; its φ and λ are phases of one basis state each, whose two eigenvalues differ by 1.
        is_controlled_theta.reshape(shape.depth, 2, shape.num_qubits, 3)[:, 1, :, 0] = True
    rows, owners, factors = [], [], []
    for angle in range(shape.num_angles):
        for shift, factor in _FOUR_TERM if is_controlled_theta[angle] else _TWO_TERM:
            for sign in (1.0, -1.0):
                move = np.zeros(shape.num_angles)
                move[angle] = sign * shift
                rows.append(move)
                owners.append(angle)
                factors.append(sign * factor)
    return _Shifts(np.array(rows), np.array(owners, np.int64), np.array(factors))
