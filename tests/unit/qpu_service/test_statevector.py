"""What only the statevector backend promises: bits per circuit seed, exact tables, threads that change nothing."""

import numpy as np
import pytest
from scipy.stats import chi2

from qpu_service.backends.sampling import sample_circuits
from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.types import CircuitBatch, circuit_seeds
from tests.conformance.circuits import exact_probabilities, random_circuits


def part(circuits: CircuitBatch, rows: slice | np.ndarray) -> CircuitBatch:
    return CircuitBatch(
        angles=circuits.angles[rows],
        entangler_pairs=circuits.entangler_pairs[rows],
        seeds=circuits.seeds[rows],
        shots=circuits.shots,
    )


@pytest.mark.parametrize("shots", [1, 3, 200])
def test_bits_do_not_depend_on_the_batch_a_circuit_is_in(shots: int) -> None:
    backend = StatevectorBackend()
    circuits = random_circuits(60, 10, 10, shots=shots)
    whole = backend.run(circuits).bits
    for size in (1, 7, 32):
        split = [backend.run(part(circuits, slice(first, first + size))).bits for first in range(0, 60, size)]
        assert (np.concatenate(split) == whole).all()
    order = np.random.default_rng(0).permutation(60)
    assert (backend.run(part(circuits, order)).bits == whole[order]).all()


@pytest.mark.parametrize(("count", "num_qubits", "num_layers"), [(4096, 10, 10), (200, 5, 40), (130, 13, 12)])
def test_bits_do_not_depend_on_threads(count: int, num_qubits: int, num_layers: int) -> None:
    circuits = random_circuits(count, num_qubits, num_layers)
    one, three = StatevectorBackend(1), StatevectorBackend(3)
    assert (one.run(circuits).bits == three.run(circuits).bits).all()
    assert (one.bit_means(circuits) == three.bit_means(circuits)).all()
    three.close()


@pytest.mark.parametrize(
    ("num_qubits", "num_layers", "scale_rad"),
    [(1, 1, 3.0), (1, 4, 3.0), (2, 5, 3.0), (4, 8, 3.0), (6, 60, 3.0), (10, 10, 3.0), (11, 30, 3.0), (5, 5, 1e4)],
)
def test_probabilities_and_bit_means_match_qiskit(num_qubits: int, num_layers: int, scale_rad: float) -> None:
    circuits = random_circuits(8, num_qubits, num_layers, scale_rad=scale_rad, seed=num_layers)
    backend = StatevectorBackend()
    expected = exact_probabilities(circuits)
    table, means = backend.probabilities(circuits), backend.bit_means(circuits)
    assert table.dtype == means.dtype == np.float32
    np.testing.assert_allclose(table, expected, atol=1e-5)
    is_one = np.arange(1 << num_qubits)[:, None] >> np.arange(num_qubits) & 1
    np.testing.assert_allclose(means, expected @ is_one, atol=1e-5)


@pytest.mark.parametrize("scale_rad", [1e6, 1e9, 1e30])
def test_huge_angles_are_reduced_exactly(scale_rad: float) -> None:
    circuits = random_circuits(4, 3, 3, scale_rad=scale_rad)
    np.testing.assert_allclose(StatevectorBackend().probabilities(circuits), exact_probabilities(circuits), atol=1e-5)


def test_special_angles_match_qiskit() -> None:
    # Multiples of a quarter turn make every branch of the sine, zero amplitudes and impossible outcomes.
    generator = np.random.default_rng(3)
    circuits = random_circuits(40, 4, 6, seed=3)
    angles = (generator.integers(-8, 9, size=circuits.angles.shape) * (np.pi / 4)).astype(np.float32)
    special = CircuitBatch(angles=angles, entangler_pairs=circuits.entangler_pairs, seeds=circuits.seeds, shots=2000)
    expected = exact_probabilities(special)
    backend = StatevectorBackend()
    np.testing.assert_allclose(backend.probabilities(special), expected, atol=1e-5)
    seen = backend.run(special).bits.astype(np.int64) << np.arange(4)
    for row in range(40):
        assert (expected[row][np.unique(seen[row].sum(axis=-1))] > 1e-9).all()


@pytest.mark.parametrize("shots", [1, 100])
def test_mean_of_many_seeds_is_the_bit_mean(shots: int) -> None:
    # 60 means of 20,000 bits each: |difference| < 5.5σ everywhere; false alarm 60 · 4e-8 = 2e-6.
    circuits = random_circuits(6, 10, 10, seed=8)
    copies = 20_000 // shots
    repeated = CircuitBatch(
        angles=np.repeat(circuits.angles, copies, axis=0),
        entangler_pairs=np.repeat(circuits.entangler_pairs, copies, axis=0),
        seeds=circuit_seeds(5, 6 * copies),
        shots=shots,
    )
    backend = StatevectorBackend()
    seen = backend.run(repeated).bits.reshape(6, 20_000, 10).mean(axis=1)
    expected = backend.bit_means(circuits)
    sigma = np.sqrt(expected * (1 - expected) / 20_000)
    assert (np.abs(seen - expected) < 5.5 * sigma + 1e-6).all()


def test_arrays_in_any_memory_order_are_read_alike() -> None:
    circuits = random_circuits(9, 5, 4)
    strided = CircuitBatch(
        angles=np.asfortranarray(circuits.angles),
        entangler_pairs=np.asfortranarray(circuits.entangler_pairs),
        seeds=np.repeat(circuits.seeds, 2)[::2],
    )
    backend = StatevectorBackend()
    assert (backend.run(strided).bits == backend.run(circuits).bits).all()


def test_bits_survive_the_next_run() -> None:
    backend = StatevectorBackend()
    first = backend.run(random_circuits(4, 6, 5, seed=1)).bits
    kept = first.copy()
    backend.run(random_circuits(4, 6, 5, seed=2))
    assert (first == kept).all()


def test_read_only_arrays_use_the_same_compiled_kernel() -> None:
    circuits = random_circuits(3, 4, 3)
    shared = CircuitBatch(
        angles=circuits.angles.copy(), entangler_pairs=circuits.entangler_pairs.copy(), seeds=circuits.seeds.copy()
    )
    shared.angles.flags.writeable = shared.seeds.flags.writeable = False
    backend = StatevectorBackend()
    bits, compiled = backend.run(circuits).bits, list(sample_circuits.signatures)
    assert (backend.run(shared).bits == bits).all()
    assert sample_circuits.signatures == compiled


def test_one_circuit_takes_a_shot_exactly_as_among_many_shots() -> None:
    many = random_circuits(30, 10, 10, shots=64)
    one = random_circuits(30, 10, 10, shots=1)
    backend = StatevectorBackend()
    assert (backend.run(one).bits[:, 0] == backend.run(many).bits[:, 0]).all()


def test_every_outcome_of_a_wide_entangled_state_is_drawn_fairly() -> None:
    # Deep circuits keep all 9 qubits in the register at once, so that shots split nine times, from 512 amplitudes on.
    # Pearson over the 512 outcomes of 4 circuits: false alarm 1e-6.
    circuits = random_circuits(4, 9, 60, shots=20_000, seed=12)
    backend = StatevectorBackend()
    places = 1 << np.arange(9)
    for bits, probabilities in zip(backend.run(circuits).bits, backend.probabilities(circuits), strict=True):
        counts = np.bincount(bits.astype(np.int64) @ places, minlength=512)
        expected = probabilities * 20_000
        common = expected >= 5
        statistic = np.sum((counts - expected)[common] ** 2 / expected[common])
        assert statistic < chi2.isf(1e-6 / 4, common.sum())


def test_zero_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        StatevectorBackend(0)
