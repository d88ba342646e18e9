"""Gradients from measurements: exact with exact means, right in the mean with few shots, and what they cost."""

import dataclasses

import numpy as np
import pytest

from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.shift_rules import parameter_shift_gradient, spsa_gradient
from tests.conformance.circuits import random_circuits


def problem(count=4, num_qubits=3, num_layers=4):
    circuits = random_circuits(count, num_qubits, num_layers, seed=3)
    weights = np.random.default_rng(1).standard_normal((count, num_qubits)).astype(np.float32)
    backend = StatevectorBackend()
    return backend, circuits, weights, backend.bit_mean_gradients(circuits, weights)[1]


def test_shift_rules_with_exact_means_give_the_exact_gradient():
    backend, circuits, weights, exact = problem()
    found = parameter_shift_gradient(backend.bit_means, circuits, weights, seed=0)
    np.testing.assert_allclose(found.gradient, exact, atol=1e-5)
    assert found.num_circuits == 4 * 6 * 3 * 4


def test_shift_rules_with_shots_scatter_around_the_exact_gradient():
    backend, circuits, weights, exact = problem(count=2)
    shots = 2000

    def measured(batch):
        return backend.run(dataclasses.replace(batch, shots=shots)).bits.mean(axis=1, dtype=np.float32)

    found = parameter_shift_gradient(measured, circuits, weights, seed=0)
    # a mean of bits has a std of at most 1/2 / sqrt(shots); the factors' squares add up to at most 1.1 (four shifts)
    bound = 5 * np.abs(weights).sum(axis=1).max() * 0.5 * np.sqrt(1.1 / shots)
    assert 0 < np.abs(found.gradient - exact).max() < bound


@pytest.mark.parametrize("num_directions", [1, 400])
def test_spsa_is_unbiased_up_to_its_step(num_directions):
    backend, circuits, weights, exact = problem()
    found = spsa_gradient(backend.bit_means, circuits, weights, num_directions=num_directions, step_rad=0.02, seed=0)
    assert found.num_circuits == 2 * num_directions * 4
    flat, target = found.gradient.reshape(4, -1), exact.reshape(4, -1)
    cosine = (flat * target).sum(axis=1) / np.linalg.norm(flat, axis=1) / np.linalg.norm(target, axis=1)
    # 24 angles: one direction has an expected |cosine| near 0.2, 400 of them one near 1 / sqrt(1 + 23 / 400) = 0.97
    assert (cosine > 0.9).all() if num_directions == 400 else (np.abs(cosine) < 0.8).all()
