"""One suite for every backend: the same circuits must give the same law of bits. Takes about 30 s.

To add a backend, add it to BACKENDS_UNDER_TEST. Statistical tests use fixed seeds and state their false-alarm rate.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import chi2

from qpu_service.backends.registry import make_backend
from qpu_service.errors import InvalidCircuitError
from qpu_service.interfaces import CircuitBackend
from qpu_service.types import CircuitBatch, circuit_seeds
from tests.conformance.circuits import exact_probabilities, identical_circuits, outcome_index, random_circuits

BACKENDS_UNDER_TEST = {"statevector": None, "aer": None, "ibm": "ideal_torino"}
"""Backend and device: a device without noise, where the backend has devices at all."""
FALSE_ALARM = 1e-6
"""Probability that a correct backend fails one statistical test, had its seeds been drawn at random."""


@pytest.fixture(scope="module", params=BACKENDS_UNDER_TEST)
def backend(request: pytest.FixtureRequest) -> Iterator[CircuitBackend]:
    made = make_backend(request.param, device=BACKENDS_UNDER_TEST[request.param])
    yield made
    made.close()


def assert_same_law(bits: np.ndarray, probabilities: np.ndarray, false_alarm: float) -> None:
    """Pearson's test of (S, N) bits against 2^N probabilities, rare outcomes pooled until each cell expects 10."""
    shots = len(bits)
    counts = np.bincount(outcome_index(bits), minlength=len(probabilities))
    order = np.argsort(probabilities)
    cells = np.cumsum(probabilities[order]) * shots // 10
    _, cell_of = np.unique(np.minimum(cells, cells[-1] - 1), return_inverse=True)
    expected = np.bincount(cell_of, weights=probabilities[order]) * shots
    seen = np.bincount(cell_of, weights=counts[order])
    statistic = float(np.sum((seen - expected) ** 2 / expected))
    limit = float(chi2.isf(false_alarm, max(len(expected) - 1, 1)))
    assert statistic < limit, f"chi-square {statistic:.1f} over {len(expected)} cells exceeds {limit:.1f}"


def test_result_has_the_requests_shape_id_and_binary_bits(backend: CircuitBackend) -> None:
    asked = random_circuits(3, 4, 2, shots=7)
    measured = backend.run(
        CircuitBatch(
            angles=asked.angles, entangler_pairs=asked.entangler_pairs, seeds=asked.seeds, shots=7, request_id="r-1"
        )
    )
    assert measured.bits.shape == (3, 7, 4)
    assert measured.bits.dtype == np.uint8
    assert set(np.unique(measured.bits)) == {0, 1}
    assert (measured.request_id, measured.backend_name) == ("r-1", backend.name)
    assert measured.execution_s > 0


@pytest.mark.parametrize("flipped", range(4))
def test_bit_q_is_qubit_q(backend: CircuitBackend, flipped: int) -> None:
    angles = np.zeros((1, 4, 2))
    angles[0, flipped] = (np.pi, 0.0)  # R(π, 0) is X up to a phase
    bits = backend.run(identical_circuits(angles, [[0, 0]], shots=50)).bits[0]
    expected = np.zeros(4, np.uint8)
    expected[flipped] = 1
    assert (bits == expected).all()


@pytest.mark.parametrize("phi", [0.0, 0.7, np.pi / 2, -2.0])
@pytest.mark.parametrize("theta", [0.3, np.pi / 2, 2.5, -1.1])
def test_r_has_qiskits_convention_for_both_angles(backend: CircuitBackend, theta: float, phi: float) -> None:
    # A second rotation around another axis makes the outcome depend on φ and on its sign.
    circuits = identical_circuits([[[theta, phi]], [[1.2, 0.4]]], [[0, 0], [0, 0]], shots=4000)
    assert_same_law(backend.run(circuits).bits[0], exact_probabilities(circuits)[0], FALSE_ALARM)


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (0, 2), (2, 1)])
def test_cz_flips_the_phase_of_both_ones_only(backend: CircuitBackend, pair: tuple[int, int]) -> None:
    # H-like · CZ · H-like on three qubits: with |1> on the control the target ends up flipped, else not.
    half_turn = np.pi / 2
    angles = np.zeros((2, 3, 2))
    control, target = pair
    angles[0, control] = (np.pi, 0.0)
    angles[0, target] = (half_turn, np.pi / 2)
    angles[1, target] = (-half_turn, np.pi / 2)
    with_cz = identical_circuits(angles, [pair, (0, 0)], shots=64)
    without = identical_circuits(angles, [(0, 0), (0, 0)], shots=64)
    flipped, kept = np.zeros(3, np.uint8), np.zeros(3, np.uint8)
    flipped[control] = kept[control] = flipped[target] = 1
    assert (backend.run(with_cz).bits[0] == flipped).all()
    assert (backend.run(without).bits[0] == kept).all()


def test_equal_pair_is_the_identity(backend: CircuitBackend) -> None:
    asked = random_circuits(1, 3, 4, shots=6000, seed=5)
    unentangled = CircuitBatch(
        angles=asked.angles, entangler_pairs=np.ones_like(asked.entangler_pairs), seeds=asked.seeds, shots=6000
    )
    assert_same_law(backend.run(unentangled).bits[0], exact_probabilities(unentangled)[0], FALSE_ALARM)


@pytest.mark.parametrize(
    ("num_qubits", "num_layers", "scale_rad"),
    [(1, 1, 3.0), (1, 5, 3.0), (2, 6, 3.0), (3, 12, 3.0), (4, 5, 3.0), (5, 8, 3.0), (6, 25, 3.0), (4, 6, 1e4)],
)
def test_random_circuits_follow_qiskits_statevector(
    backend: CircuitBackend, num_qubits: int, num_layers: int, scale_rad: float
) -> None:
    count = 6
    circuits = random_circuits(count, num_qubits, num_layers, shots=4000, seed=num_layers, scale_rad=scale_rad)
    bits = backend.run(circuits).bits
    for row, probabilities in enumerate(exact_probabilities(circuits)):
        assert_same_law(bits[row], probabilities, FALSE_ALARM / count)


def test_paper_sized_circuits_follow_qiskits_statevector(backend: CircuitBackend) -> None:
    count = 4
    circuits = random_circuits(count, 10, 10, shots=4000, seed=99)
    bits = backend.run(circuits).bits
    for row, probabilities in enumerate(exact_probabilities(circuits)):
        assert_same_law(bits[row], probabilities, FALSE_ALARM / count)


def test_single_shots_of_many_copies_follow_the_law_of_many_shots(backend: CircuitBackend) -> None:
    # One shot may take another path through a simulator than many, and has to be as random.
    one = random_circuits(1, 5, 8, seed=3)
    copies = 1000
    circuits = CircuitBatch(
        angles=np.repeat(one.angles, copies, axis=0),
        entangler_pairs=np.repeat(one.entangler_pairs, copies, axis=0),
        seeds=circuit_seeds(17, copies),
        shots=1,
    )
    assert_same_law(backend.run(circuits).bits[:, 0], exact_probabilities(one)[0], FALSE_ALARM)


def test_equal_requests_give_equal_bits_and_other_seeds_give_others(backend: CircuitBackend) -> None:
    asked = random_circuits(4, 6, 6, shots=50, seed=1)
    other = CircuitBatch(
        angles=asked.angles, entangler_pairs=asked.entangler_pairs, seeds=circuit_seeds(2, 4), shots=50
    )
    first = backend.run(asked).bits
    assert (first == backend.run(asked).bits).all()
    assert (first != backend.run(other).bits).any(axis=(1, 2)).all()


def test_circuits_with_equal_angles_and_different_seeds_differ(backend: CircuitBackend) -> None:
    # All ones or all equal would mean one stream for the whole batch. P(two of 64 fair 8-bit × 50 rows equal) < 1e-100.
    angles = np.full((64, 1, 8, 2), np.pi / 2, np.float32)
    circuits = CircuitBatch(
        angles=angles, entangler_pairs=np.zeros((64, 1, 2), np.int16), seeds=circuit_seeds(4, 64), shots=50
    )
    bits = backend.run(circuits).bits.reshape(64, -1)
    assert len(np.unique(bits, axis=0)) == 64


@pytest.mark.parametrize("count", [0, 1, 4096])
def test_batches_of_any_size(backend: CircuitBackend, count: int) -> None:
    bits = backend.run(random_circuits(count, 4, 4, shots=2)).bits
    assert bits.shape == (count, 2, 4)
    assert bits.max(initial=0) <= 1


def test_deterministic_circuits_answer_row_by_row(backend: CircuitBackend) -> None:
    # Row r flips the qubits of r's binary digits; entanglers act on basis states and change nothing.
    count, num_qubits = 256, 8
    digits = np.arange(count)[:, None] >> np.arange(num_qubits) & 1
    angles = np.zeros((count, 2, num_qubits, 2), np.float32)
    angles[:, 0, :, 0] = np.pi * digits
    pairs = np.random.default_rng(0).integers(0, num_qubits, size=(count, 2, 2)).astype(np.int16)
    circuits = CircuitBatch(angles=angles, entangler_pairs=pairs, seeds=circuit_seeds(0, count), shots=3)
    assert (backend.run(circuits).bits == digits[:, None]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angles": np.full((2, 3, 4, 2), np.nan, np.float32)}, "NaN"),
        ({"angles": np.zeros((2, 3, 4, 2), np.float64)}, "float64"),
        ({"angles": np.zeros((2, 3, 4), np.float32)}, "shape"),
        ({"angles": np.zeros((2, 3, 21, 2), np.float32)}, "21 qubits"),
        ({"entangler_pairs": np.full((2, 3, 2), 4, np.int16)}, "qubit 4"),
        ({"entangler_pairs": np.full((2, 3, 2), -1, np.int16)}, "qubit -1"),
        ({"entangler_pairs": np.zeros((2, 2, 2), np.int16)}, "entangler_pairs"),
        ({"seeds": np.zeros(3, np.uint64)}, "seeds"),
        ({"shots": 0}, "shots"),
    ],
)
def test_impossible_circuits_are_refused_before_any_backend(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "angles": np.zeros((2, 3, 4, 2), np.float32),
        "entangler_pairs": np.zeros((2, 3, 2), np.int16),
        "seeds": np.zeros(2, np.uint64),
        "shots": 1,
    }
    with pytest.raises(InvalidCircuitError, match=message):
        CircuitBatch(**(good | change))  # type: ignore[arg-type]


def test_close_twice_is_fine() -> None:
    for name, device in BACKENDS_UNDER_TEST.items():
        made = make_backend(name, device=device)
        made.close()
        made.close()
