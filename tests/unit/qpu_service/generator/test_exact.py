"""The generator's simulator against dense tensors and finite differences."""

import numpy as np
import pytest

from qpu_service.errors import InvalidCircuitError
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.exact import ExactGenerator
from tests.unit.qpu_service.generator.reference import reference_probabilities

FAMILIES = ("u3_cu3", "ry_cnot")


def make(num_qubits, depth, family, seed=0):
    shape = GeneratorShape(num_qubits=num_qubits, depth=depth, family=family)
    return shape, np.random.default_rng(seed).uniform(-np.pi, np.pi, shape.num_angles)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_qubits", range(2, 11))
def test_probabilities_are_those_of_the_circuit(family, num_qubits):
    shape, angles = make(num_qubits, 3, family)
    probabilities = ExactGenerator(shape).probabilities(angles)
    np.testing.assert_allclose(probabilities, reference_probabilities(shape, angles), atol=3e-7)
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("num_qubits", "depth"), [(2, 1), (3, 2), (5, 2), (6, 1), (7, 2)])
def test_gradient_is_that_of_finite_differences(family, num_qubits, depth):
    shape, angles = make(num_qubits, depth, family, seed=1)
    weights = np.random.default_rng(2).normal(size=shape.num_outcomes).astype(np.float32)
    step = 1e-5 * np.eye(shape.num_angles)
    slopes = [
        (reference_probabilities(shape, angles + s) - reference_probabilities(shape, angles - s)) @ weights / 2e-5
        for s in step
    ]
    np.testing.assert_allclose(ExactGenerator(shape).gradient(angles, weights), slopes, atol=3e-6)


def test_gradient_after_other_angles_is_of_its_own_angles():
    shape, angles = make(5, 2, "u3_cu3")
    weights = np.arange(32, dtype=np.float32)
    fresh = ExactGenerator(shape).gradient(angles, weights)
    used = ExactGenerator(shape)
    used.probabilities(angles)
    np.testing.assert_array_equal(used.gradient(angles, weights), fresh)
    used.probabilities(angles + 1)
    np.testing.assert_array_equal(used.gradient(angles, weights), fresh)


def test_angles_that_change_in_place_are_noticed():
    shape, angles = make(4, 1, "u3_cu3")
    weights = np.arange(16, dtype=np.float32)
    generator = ExactGenerator(shape)
    generator.probabilities(angles)
    angles += 0.5
    np.testing.assert_array_equal(generator.gradient(angles, weights), ExactGenerator(shape).gradient(angles, weights))


def test_number_of_angles():
    assert GeneratorShape(num_qubits=10, depth=5).num_angles == 300
    assert GeneratorShape(num_qubits=13, depth=13).num_angles == 1014
    assert GeneratorShape(num_qubits=10, depth=5, family="ry_cnot").num_angles == 50


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_qubits": 1, "depth": 1}, "num_qubits must be in 2..24, got 1"),
        ({"num_qubits": 3, "depth": 0}, "depth must be at least 1, got 0"),
        ({"num_qubits": 3, "depth": 1, "family": "rz"}, "family must be u3_cu3 or ry_cnot, got 'rz'"),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GeneratorShape(**fields)


def test_wrong_input_is_refused():
    shape, angles = make(3, 1, "u3_cu3")
    generator = ExactGenerator(shape)
    with pytest.raises(InvalidCircuitError, match=r"angles must have shape \(18,\)"):
        generator.probabilities(angles[:-1])
    with pytest.raises(InvalidCircuitError, match="NaN or infinity"):
        generator.probabilities(angles * np.nan)
    with pytest.raises(InvalidCircuitError, match=r"weights must have shape \(8,\)"):
        generator.gradient(angles, np.zeros(4, np.float32))
