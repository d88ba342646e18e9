"""What the statevector simulator computes does not depend on how the work is shared. Takes about 10 s."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.types import CircuitBatch
from tests.conformance.circuits import random_circuits

BACKENDS = [StatevectorBackend(num_threads) for num_threads in (1, 2, 3, 4)]
"""Their threads live until the tests end."""


def rows(circuits: CircuitBatch, chosen: slice) -> CircuitBatch:
    return CircuitBatch(
        angles=circuits.angles[chosen],
        entangler_pairs=circuits.entangler_pairs[chosen],
        seeds=circuits.seeds[chosen],
        shots=circuits.shots,
    )


def assert_alike(circuits: CircuitBatch, threads: int, split: int) -> None:
    """Whole on one thread, and in two parts on several."""
    parts = [rows(circuits, slice(None, split)), rows(circuits, slice(split, None))]
    one, many = BACKENDS[0], BACKENDS[threads]
    for result in (lambda backend, part: backend.run(part).bits, StatevectorBackend.bit_means):
        shared = np.concatenate([result(many, part) for part in parts])
        assert (shared == result(one, circuits)).all()
    if circuits.angles.shape[2] <= 16:
        shared = np.concatenate([many.probabilities(part) for part in parts])
        assert (shared == one.probabilities(circuits)).all()


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 5),
    num_qubits=st.integers(13, 17),
    num_layers=st.integers(1, 70),
    shots=st.integers(1, 40),
    threads=st.integers(1, 3),
    split=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
def test_large_states_are_the_same_for_every_number_of_threads_and_split(
    count: int, num_qubits: int, num_layers: int, shots: int, threads: int, split: int, seed: int
) -> None:
    assert_alike(random_circuits(count, num_qubits, num_layers, shots=shots, seed=seed), threads, split)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 300),
    num_qubits=st.integers(1, 11),
    num_layers=st.integers(1, 20),
    shots=st.integers(1, 20),
    threads=st.integers(1, 3),
    split=st.integers(0, 300),
    seed=st.integers(0, 2**32),
)
def test_small_states_are_the_same_for_every_number_of_threads_and_split(
    count: int, num_qubits: int, num_layers: int, shots: int, threads: int, split: int, seed: int
) -> None:
    assert_alike(random_circuits(count, num_qubits, num_layers, shots=shots, seed=seed), threads, split)
