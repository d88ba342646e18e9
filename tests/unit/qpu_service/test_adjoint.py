"""Exact gradients of bit means: against autograd through a dense simulator, finite differences and shift rules."""

import numpy as np
import pytest
import torch

from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.errors import InvalidCircuitError
from qpu_service.types import CircuitBatch
from tests.conformance.circuits import random_circuits


def dense_bit_means(angles: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """P(bit = 1) by one matrix product per gate on the whole state, complex128; another program altogether."""
    num_circuits, num_layers, num_qubits, _ = angles.shape
    index = torch.arange(2**num_qubits)
    state = torch.zeros(num_circuits, len(index), dtype=torch.complex128)
    state[:, 0] = 1
    for layer in range(num_layers):
        for q in range(num_qubits):
            theta, phi = angles[:, layer, q, 0, None, None], angles[:, layer, q, 1, None, None]
            pair = state.view(num_circuits, -1, 2, 2**q)
            zero, one = pair[:, :, 0], pair[:, :, 1]
            sine = -1j * torch.sin(theta / 2)
            up = torch.cos(theta / 2) * zero + sine * torch.exp(-1j * phi) * one
            down = sine * torch.exp(1j * phi) * zero + torch.cos(theta / 2) * one
            state = torch.stack([up, down], dim=2).reshape(num_circuits, -1)
        p, k = pairs[:, layer, 0, None], pairs[:, layer, 1, None]
        state = state * (1 - 2 * ((index >> p) & (index >> k) & 1) * (p != k))
    bits = index[:, None] >> torch.arange(num_qubits) & 1
    return state.abs().square() @ bits.double()


def weights_of(circuits: CircuitBatch) -> np.ndarray:
    shape = circuits.angles.shape[0], circuits.angles.shape[2]
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("num_qubits", "num_layers", "scale_rad"),
    [(1, 1, 3), (1, 4, 3), (2, 5, 3), (4, 8, 3), (5, 5, 1e4), (6, 30, 3), (10, 10, 3), (10, 10, 1e-4), (11, 12, 3)],
)
def test_means_and_gradients_are_those_of_autograd(num_qubits: int, num_layers: int, scale_rad: float) -> None:
    circuits = random_circuits(6, num_qubits, num_layers, scale_rad=scale_rad, seed=num_qubits)
    weights = weights_of(circuits)
    angles = torch.tensor(circuits.angles, dtype=torch.float64, requires_grad=True)
    expected = dense_bit_means(angles, torch.tensor(circuits.entangler_pairs).long())
    (gradient,) = torch.autograd.grad((expected * torch.tensor(weights)).sum(), angles)
    means, found = StatevectorBackend().bit_mean_gradients(circuits, weights)
    assert means.dtype == found.dtype == np.float32
    np.testing.assert_allclose(means, expected.detach(), atol=1e-5)
    np.testing.assert_allclose(found, gradient, atol=1e-5)


def test_gradients_are_finite_differences_of_the_exact_means() -> None:
    circuits, step_rad = random_circuits(2, 4, 3, seed=2), 0.01
    weights = weights_of(circuits)
    backend = StatevectorBackend()
    _, found = backend.bit_mean_gradients(circuits, weights)
    for place in np.ndindex(circuits.angles.shape[1:]):
        values = []
        for sign in (1, -1):
            angles = circuits.angles.copy()
            angles[(slice(None), *place)] += sign * step_rad
            moved = CircuitBatch(angles=angles, entangler_pairs=circuits.entangler_pairs, seeds=circuits.seeds)
            values.append((backend.bit_means(moved) * weights).sum(axis=1))
        # third derivatives are at most 8 · Σ|v|: the central difference is off by step²/6 of that
        np.testing.assert_allclose(found[(slice(None), *place)], (values[0] - values[1]) / 0.02, atol=1e-3)


def test_gradients_do_not_depend_on_threads_or_batches() -> None:
    circuits = random_circuits(300, 7, 9)
    weights = weights_of(circuits)
    one, three = StatevectorBackend(1), StatevectorBackend(3)
    means, gradients = one.bit_mean_gradients(circuits, weights)
    shared_means, shared_gradients = three.bit_mean_gradients(circuits, weights)
    assert (means == shared_means).all()
    assert (gradients == shared_gradients).all()
    last = CircuitBatch(
        angles=circuits.angles[-1:], entangler_pairs=circuits.entangler_pairs[-1:], seeds=circuits.seeds[-1:]
    )
    assert (one.bit_mean_gradients(last, weights[-1:])[1] == gradients[-1:]).all()
    three.close()


def test_weights_of_another_shape_are_refused() -> None:
    circuits = random_circuits(3, 4, 2)
    with pytest.raises(InvalidCircuitError, match=r"one per circuit and qubit, \(3, 4\), got \(4, 3\)"):
        StatevectorBackend().bit_mean_gradients(circuits, np.ones((4, 3), np.float32))
