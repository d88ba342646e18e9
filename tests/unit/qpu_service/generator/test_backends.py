"""Shots of every backend against exact probabilities, gate by gate the same circuit.

Total variation: for S shots over K outcomes its mean is below sqrt(K/(2πS))·… ≤ 0.5·sqrt(K/S); McDiarmid bounds a
further excess of t by exp(−2·S·t²). With S = 20,000 and t = 0.03 the false-alarm rate is 2e-16 per circuit.
"""

import numpy as np
import pytest

from qpu_service.errors import BackendUnavailableError, InvalidCircuitError, UnknownBackendError
from qpu_service.generator.backends import make_generator_backend
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.exact import ExactGenerator
from qpu_service.generator.types import GeneratorBatch

SHOTS = 20_000


def batch(family="u3_cu3", num_qubits=4, depth=2, count=2, shots=SHOTS, seed=0):
    shape = GeneratorShape(num_qubits=num_qubits, depth=depth, family=family)
    angles = np.random.default_rng(1).uniform(-np.pi, np.pi, (count, shape.num_angles))
    return GeneratorBatch(shape=shape, angles=angles, shots=shots, seed=seed)


def distances(circuits, counts):
    simulator = ExactGenerator(circuits.shape)
    exact = np.stack([simulator.probabilities(angles) for angles in circuits.angles])
    return 0.5 * np.abs(counts / circuits.shots - exact).sum(axis=1)


@pytest.mark.parametrize("family", ["u3_cu3", "ry_cnot"])
@pytest.mark.parametrize(("name", "device"), [("statevector", None), ("aer", None), ("ibm", "ideal_torino")])
def test_frequencies_are_the_exact_probabilities(name, device, family):
    circuits = batch(family)
    backend = make_generator_backend(name, device=device)
    counts = backend.run(circuits).counts
    backend.close()
    assert counts.shape == (2, 16)
    assert (counts.sum(axis=1) == SHOTS).all()
    assert distances(circuits, counts).max() < 0.5 * np.sqrt(16 / SHOTS) + 0.03


@pytest.mark.parametrize("name", ["aer", "ibm"])
def test_a_noisy_device_is_near_and_not_equal(name):
    circuits = batch(num_qubits=3, depth=1)
    result = make_generator_backend(name, device="fake_torino").run(circuits)
    assert "torino" in result.backend_name
    assert 0.5 * np.sqrt(8 / SHOTS) < distances(circuits, result.counts).min()
    assert distances(circuits, result.counts).max() < 0.4


def test_counts_depend_on_seed_and_row_alone():
    backend = make_generator_backend("statevector")
    both, one = backend.run(batch(count=2, shots=100)).counts, backend.run(batch(count=1, shots=100)).counts
    np.testing.assert_array_equal(both[0], one[0])
    assert not np.array_equal(both, backend.run(batch(count=2, shots=100, seed=1)).counts)


def test_unknown_backends_and_devices_are_refused():
    with pytest.raises(UnknownBackendError, match="statevector, aer, ibm"):
        make_generator_backend("nope")
    with pytest.raises(BackendUnavailableError, match="has no device"):
        make_generator_backend("statevector", device="fake_torino")
    with pytest.raises(BackendUnavailableError, match="fake devices of the ibm backend only"):
        make_generator_backend("ibm", device="ibm_torino")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": 0}, "shots must be at least 1"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"angles": np.zeros((1, 3))}, r"angles must be float64 of shape \(B, 48\)"),
        ({"angles": np.full((1, 48), np.inf)}, "NaN or infinity"),
    ],
)
def test_wrong_circuits_are_refused(change, message):
    shape = GeneratorShape(num_qubits=4, depth=2)
    fields = {"shape": shape, "angles": np.zeros((1, 48)), "shots": 1, "seed": 0, **change}
    with pytest.raises(InvalidCircuitError, match=message):
        GeneratorBatch(**fields)
