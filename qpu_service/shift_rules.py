"""Gradients from measurements alone: parameter-shift rules and SPSA, for comparison with the surrogate.

They ask for bit means of other circuits of the same family, so a device can run them; what they cost is why the paper
trains a surrogate instead. Nothing here is used while training.

Axis legend: B batch, M layers, N qubits, S shots.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from qpu_service.types import CircuitBatch, circuit_seeds

BitMeans = Callable[[CircuitBatch], Float32[np.ndarray, "B N"]]
"""Estimated or exact P(bit = 1) of every circuit and qubit."""

_THETA_RULE = ((np.pi / 2, 0.5), (-np.pi / 2, -0.5))
"""Shifts in rad and their factors; θ enters through one rotation with eigenvalues ±1/2."""

_PHI_RULE = tuple(((2 * i + 1) * np.pi / 4, (-1) ** i / (8 * np.sin((2 * i + 1) * np.pi / 8) ** 2)) for i in range(4))
"""φ enters as Rz(φ)·Rx(θ)·Rz(−φ): a mean is a trigonometric polynomial of degree 2 in it, which takes four shifts."""


@dataclass(frozen=True, slots=True)
class GradientEstimate:
    """Gradient of Σ_q v_q · P(bit_q = 1) in the angles, and what it took."""

    gradient: Float32[np.ndarray, "B M N 2"]
    """1/rad."""
    num_circuits: int
    """Circuits run, each with the shots that ``bit_means`` takes."""


def parameter_shift_gradient(
    bit_means: BitMeans, circuits: CircuitBatch, weights: Float32[np.ndarray, "B N"], *, seed: int
) -> GradientEstimate:
    """Exact in expectation: 2 circuits for every θ and 4 for every φ, 6·N·M for each circuit of the batch.

    All qubits are measured at once, so the number of outputs does not enter, whatever the weights.

    Args:
        bit_means: measures a batch; its noise is the gradient's.
        circuits: where; seeds are not used.
        weights: v.
        seed: of the measurements.

    Source: arXiv:2107.12390, eq. 20 (general shift rule, R = 1 for θ and R = 2 for φ).
    """
    num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
    gradient = np.zeros(circuits.angles.shape, np.float32)
    shifts = [(0, *one) for one in _THETA_RULE] + [(1, *one) for one in _PHI_RULE]
    for place, (layer, qubit) in enumerate(np.ndindex(num_layers, num_qubits)):
        angles = np.repeat(circuits.angles[None], len(shifts), axis=0)
        for row, (kind, shift_rad, _) in enumerate(shifts):
            angles[row, :, layer, qubit, kind] += np.float32(shift_rad)
        values = _weighted_means(bit_means, circuits, angles, weights, seed + place)
        for row, (kind, _, factor) in enumerate(shifts):
            gradient[:, layer, qubit, kind] += np.float32(factor) * values[row]
    return GradientEstimate(gradient, len(shifts) * num_layers * num_qubits * num_circuits)


def spsa_gradient(
    bit_means: BitMeans,
    circuits: CircuitBatch,
    weights: Float32[np.ndarray, "B N"],
    *,
    num_directions: int,
    step_rad: float,
    seed: int,
) -> GradientEstimate:
    """Simultaneous perturbation: 2 circuits for each random direction, whatever the number of angles.

    Args:
        bit_means: measures a batch.
        circuits: where; seeds are not used.
        weights: v.
        num_directions: directions averaged, each with every angle moved by ±``step_rad``.
        step_rad: larger steps are less noisy and more biased.
        seed: of directions and measurements.

    Source: Spall 1992, "Multivariate stochastic approximation using a simultaneous perturbation gradient
    approximation", eq. 2.2.
    """
    rng = np.random.default_rng(seed)
    gradient = np.zeros(circuits.angles.shape, np.float32)
    for direction in range(num_directions):
        signs = rng.choice(np.array([-1, 1], np.float32), circuits.angles.shape)
        step = np.float32(step_rad) * signs
        angles = np.stack([circuits.angles + step, circuits.angles - step])
        up, down = _weighted_means(bit_means, circuits, angles, weights, seed + direction)
        slope = (up - down) / np.float32(2 * step_rad * num_directions)
        gradient += slope[:, None, None, None] * signs
    return GradientEstimate(gradient, 2 * num_directions * len(circuits))


def _weighted_means(
    bit_means: BitMeans,
    circuits: CircuitBatch,
    angles: Float32[np.ndarray, "V B M N 2"],
    weights: Float32[np.ndarray, "B N"],
    seed: int,
) -> Float32[np.ndarray, "V B"]:
    """Σ_q v_q · mean_q of V variants of every circuit, measured as one batch."""
    num_variants, num_circuits = angles.shape[:2]
    measured = bit_means(
        CircuitBatch(
            angles=np.ascontiguousarray(angles.reshape(-1, *angles.shape[2:])),
            entangler_pairs=np.tile(circuits.entangler_pairs, (num_variants, 1, 1)),
            seeds=circuit_seeds(seed, num_variants * num_circuits),
            shots=circuits.shots,
        )
    )
    values: Float32[np.ndarray, "V B"] = (measured.reshape(num_variants, num_circuits, -1) * weights).sum(axis=2)
    return values
