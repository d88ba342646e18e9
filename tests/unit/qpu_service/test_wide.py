"""Registers too large for a core's first cache, and the teams of threads that share them. Takes about 5 s."""

import numpy as np
import pytest
from scipy.stats import chi2

from qpu_service.backends import team as slots
from qpu_service.backends import wide
from qpu_service.backends.exact import average_bits, tabulate_probabilities
from qpu_service.backends.sampling import sample_circuits, widest_register
from qpu_service.backends.scratch import TEAM, make_scratch
from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.backends.wide import WIDE_BITS
from qpu_service.types import CircuitBatch
from tests.conformance.circuits import exact_probabilities, outcome_index, random_circuits

# Deep enough that (nearly) all qubits are in the register at once.
DEEP = [(13, 60), (14, 70), (15, 50), (16, 80)]


def widest(circuits: CircuitBatch) -> int:
    _, num_layers, num_qubits, _ = circuits.angles.shape
    scratch = make_scratch(num_layers, num_qubits, 1)
    return widest_register(circuits.entangler_pairs, 0, num_qubits, scratch.state, scratch.planning)


def test_kernels_of_small_circuits_are_compiled_without_what_wide_registers_need() -> None:
    # Half of the compilation, which the first run on a machine waits for.
    assert make_scratch(2, WIDE_BITS - 1, 1).state[TEAM] is None
    assert make_scratch(2, WIDE_BITS, 1).state[TEAM] is not None
    before = list(wide._run.signatures)
    m, zero = (np.float32(0.0),) * 8, np.int64(0)
    wide.wide_apply(None, zero, zero, zero, zero, zero, m)
    wide.wide_grow(None, zero, zero, zero, zero, m)
    wide.wide_shrink(None, zero, zero, zero, zero, zero, m)
    wide.wide_entangle(None, zero, zero, zero, zero, zero, m, m)
    wide.wide_tabulate(None, zero, zero, zero, zero)
    assert wide.wide_weigh(None, zero, zero, zero, zero, m) == (0.0, 0.0)
    assert wide._run.signatures == before


@pytest.mark.parametrize(("num_qubits", "num_layers"), DEEP)
@pytest.mark.parametrize("num_threads", [1, 3])
def test_probabilities_and_bit_means_of_wide_states_match_qiskit(
    num_qubits: int, num_layers: int, num_threads: int
) -> None:
    circuits = random_circuits(1, num_qubits, num_layers, seed=num_qubits)
    expected = exact_probabilities(circuits)
    backend = StatevectorBackend(num_threads)
    np.testing.assert_allclose(backend.probabilities(circuits), expected, rtol=0.01, atol=1e-8)
    is_one = np.arange(1 << num_qubits)[:, None] >> np.arange(num_qubits) & 1
    np.testing.assert_allclose(backend.bit_means(circuits), expected @ is_one, atol=1e-6)
    backend.close()


@pytest.mark.parametrize(("num_qubits", "num_layers"), DEEP)
def test_shots_of_wide_registers_follow_qiskits_law(num_qubits: int, num_layers: int) -> None:
    # Pearson over 256 cells of equally many outcomes each, in an order that has nothing to do with their bits.
    # False alarm 1e-6 in all.
    circuits = random_circuits(1, num_qubits, num_layers, shots=20_000, seed=3 * num_qubits)
    assert widest(circuits) >= WIDE_BITS
    backend = StatevectorBackend(2)
    cell = np.random.default_rng(0).permutation(1 << num_qubits) & 255
    expected = np.bincount(cell, weights=exact_probabilities(circuits)[0]) * 20_000
    seen = np.bincount(cell[outcome_index(backend.run(circuits).bits[0])], minlength=256)
    assert np.sum((seen - expected) ** 2 / expected) < chi2.isf(1e-6 / len(DEEP), 255)
    backend.close()


def test_bit_means_of_shots_of_a_wide_register_are_the_exact_ones() -> None:
    # 16 means of 40,000 bits: |difference| < 5.5σ everywhere; false alarm 16 · 4e-8 = 6e-7.
    circuits = random_circuits(1, 16, 80, shots=40_000, seed=21)
    backend = StatevectorBackend()
    expected = backend.bit_means(circuits)[0]
    seen = backend.run(circuits).bits[0].mean(axis=0)
    assert (np.abs(seen - expected) < 5.5 * np.sqrt(expected * (1 - expected) / 40_000)).all()


def test_a_leader_whose_helpers_never_come_does_all_the_work() -> None:
    circuits = random_circuits(1, 16, 60, shots=9, seed=4)
    alone = StatevectorBackend()
    scratch = make_scratch(60, 16, 9, max_members=3)
    scratch.team[slots.NUM_MEMBERS] = 3
    table, means = np.zeros((1, 1 << 16), np.float32), np.zeros((1, 16), np.float32)
    bits = np.zeros((1, 9, 16), np.uint8)
    angles, pairs = circuits.angles, circuits.entangler_pairs
    sample_circuits(angles, pairs, circuits.seeds, scratch.state + scratch.planning, 0, 1, bits)
    tabulate_probabilities(angles, pairs, scratch.state, scratch.planning[-1], 0, 1, table)
    average_bits(angles, pairs, scratch.state, scratch.planning[-1], 0, 1, means)
    assert scratch.team[slots.TICKET] > 0  # jobs were posted
    assert (bits == alone.run(circuits).bits).all()
    assert (table == alone.probabilities(circuits)).all()
    assert (means == alone.bit_means(circuits)).all()


def test_a_leader_that_had_to_wait_works_alone_for_a_while() -> None:
    circuits = random_circuits(1, 15, 40, seed=4)
    scratch = make_scratch(40, 15, 1, max_members=2)
    scratch.team[slots.NUM_MEMBERS], scratch.team[slots.ALONE] = 2, 1 << 40
    means = np.zeros((1, 15), np.float32)
    average_bits(circuits.angles, circuits.entangler_pairs, scratch.state, scratch.planning[-1], 0, 1, means)
    assert scratch.team[slots.TICKET] == 0
    assert scratch.team[slots.ALONE] < 1 << 40
    assert (means == StatevectorBackend().bit_means(circuits)).all()


def test_shallow_circuits_of_many_qubits_stay_narrow() -> None:
    assert widest(random_circuits(1, 20, 20, seed=1)) < WIDE_BITS <= widest(random_circuits(1, 16, 80, seed=1))
