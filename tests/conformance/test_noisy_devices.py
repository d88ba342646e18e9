"""What a backend with a device's noise can be held to: shapes, order, seeds, refusals, and laws up to its errors."""

from collections.abc import Iterator

import numpy as np
import pytest

from qpu_service.backends.registry import make_backend
from qpu_service.interfaces import CircuitBackend
from qpu_service.types import CircuitBatch, circuit_seeds
from tests.conformance.circuits import exact_probabilities, identical_circuits, outcome_index, random_circuits

NOISY = {"aer": "fake_manila", "ibm": "fake_manila"}


@pytest.fixture(scope="module", params=NOISY)
def backend(request: pytest.FixtureRequest) -> Iterator[CircuitBackend]:
    made = make_backend(request.param, device=NOISY[request.param])
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, 30])
def test_shape_and_shots(backend: CircuitBackend, count: int) -> None:
    bits = backend.run(random_circuits(count, 4, 3, shots=7)).bits
    assert bits.shape == (count, 7, 4)
    assert bits.dtype == np.uint8
    assert bits.max(initial=0) <= 1


@pytest.mark.parametrize("flipped", range(4))
def test_bit_q_is_qubit_q(backend: CircuitBackend, flipped: int) -> None:
    # Readout errors are below 5 %: a mean of 400 bits on the wrong side of 1/2 has a probability below 1e-100.
    angles = np.zeros((1, 4, 2))
    angles[0, flipped] = (np.pi, 0.0)
    means = backend.run(identical_circuits(angles, [[0, 0]], shots=400)).bits[0].mean(axis=0)
    assert ((means > 0.5) == (np.arange(4) == flipped)).all()


@pytest.mark.parametrize(("num_qubits", "num_layers", "scale_rad"), [(1, 3, 3.0), (3, 4, 3.0), (3, 4, 1e4)])
def test_distributions_are_qiskits_up_to_the_devices_errors(
    backend: CircuitBackend, num_qubits: int, num_layers: int, scale_rad: float
) -> None:
    # A few gates of 1 % and a readout of 3 % per qubit move less than 0.2 of the probability; 4,000 shots over at most
    # 8 outcomes add less than 0.05 (six times the spread, false alarm below 1e-6).
    circuits = random_circuits(4, num_qubits, num_layers, shots=4000, seed=7, scale_rad=scale_rad)
    for bits, expected in zip(backend.run(circuits).bits, exact_probabilities(circuits), strict=True):
        seen = np.bincount(outcome_index(bits), minlength=len(expected)) / 4000
        assert 0.5 * np.abs(seen - expected).sum() < 0.25


def test_equal_requests_give_equal_bits_and_other_seeds_give_others(backend: CircuitBackend) -> None:
    asked = random_circuits(3, 4, 3, shots=60, seed=1)
    other = CircuitBatch(
        angles=asked.angles, entangler_pairs=asked.entangler_pairs, seeds=circuit_seeds(2, 3), shots=60
    )
    first = backend.run(asked).bits
    assert (first == backend.run(asked).bits).all()
    assert (first != backend.run(other).bits).any(axis=(1, 2)).all()
