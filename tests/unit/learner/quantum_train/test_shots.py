"""Gradients from shots against the exact ones."""

import numpy as np
import pytest

from learner.quantum_train.config import GradientConfig
from learner.quantum_train.shots import ShotSource
from qpu_service.generator.backends import ExactShots
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.exact import ExactGenerator
from qpu_service.generator.types import GeneratorCounts


class ExactFrequencies:
    """A backend whose frequencies are the probabilities themselves: infinitely many shots."""

    name = "exact"

    def run(self, circuits):
        simulator = ExactGenerator(circuits.shape)
        rows = [simulator.probabilities(angles).astype(np.float64) for angles in circuits.angles]
        return GeneratorCounts(counts=np.stack(rows) * circuits.shots, backend_name="exact", execution_s=0.0)

    def close(self):
        pass


def setting(family, num_qubits=4, depth=2):
    shape = GeneratorShape(num_qubits=num_qubits, depth=depth, family=family)
    rng = np.random.default_rng(7)
    angles = rng.uniform(-np.pi, np.pi, (1, shape.num_angles))
    weights = rng.normal(size=(1, shape.num_outcomes)).astype(np.float32)
    return shape, angles, weights, ExactGenerator(shape).gradient(angles[0], weights[0])


@pytest.mark.parametrize("family", ["u3_cu3", "ry_cnot"])
def test_parameter_shift_is_exact_without_shot_noise(family):
    shape, angles, weights, exact = setting(family)
    source = ShotSource(shape, ExactFrequencies(), GradientConfig(method="parameter_shift"), seed=0)
    np.testing.assert_allclose(source.gradient(angles, weights)[0], exact, atol=2e-6)
    # U3: 3 angles of 2 circuits; CU3: 2 of 2, and θ of 4
    assert source.circuits_run == (14 if family == "u3_cu3" else 2) * 4 * 2


@pytest.mark.parametrize("family", ["u3_cu3", "ry_cnot"])
def test_parameter_shift_from_shots_is_unbiased(family):
    # z = (mean of 40 estimates − exact) / its standard error, per angle; |z| < 5 for all of at most 48 angles has a
    # false-alarm rate below 5e-5 (t with 39 degrees of freedom).
    shape, angles, weights, exact = setting(family, depth=2)
    source = ShotSource(shape, ExactShots(), GradientConfig(method="parameter_shift", shots=200), seed=3)
    estimates = np.stack([source.gradient(angles, weights)[0] for _ in range(40)])
    error = estimates.std(axis=0, ddof=1) / np.sqrt(40)
    assert (np.abs(estimates.mean(axis=0) - exact) < 5 * error + 1e-6).all()


def test_spsa_points_downhill_and_asks_two_circuits_per_direction():
    shape, angles, weights, exact = setting("u3_cu3")
    config = GradientConfig(method="spsa", spsa_samples=400, spsa_step_rad=0.02)
    source = ShotSource(shape, ExactFrequencies(), config, seed=1)
    estimate = source.gradient(angles, weights)[0]
    assert source.circuits_run == 800
    cosine = estimate @ exact / np.linalg.norm(estimate) / np.linalg.norm(exact)
    assert cosine > 0.9  # expected 1/sqrt(1 + 47/400) = 0.95


def test_shots_depend_on_the_seed_alone():
    shape, angles, _, _ = setting("u3_cu3")
    source = ShotSource(shape, ExactShots(), GradientConfig(method="spsa", shots=50), seed=5)
    first, second = source.probabilities(angles), source.probabilities(angles)
    assert not np.array_equal(first, second)
    source.seek(5)
    np.testing.assert_array_equal(source.probabilities(angles), first)
    source.seek(6)
    assert not np.array_equal(source.probabilities(angles), first)
