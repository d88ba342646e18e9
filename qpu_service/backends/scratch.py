"""Working memory of the statevector simulator's threads: kernels allocate nothing."""

from typing import Any, NamedTuple

import numpy as np

from qpu_service.backends import team as slots
from qpu_service.backends.adjoint import NUM_MARKS
from qpu_service.backends.lanes import LANES
from qpu_service.backends.memory import check_memory
from qpu_service.backends.program import NUM_FIELDS, NUM_SCRATCH_ROWS
from qpu_service.backends.register import LANE_BITS
from qpu_service.backends.wide import WIDE_BITS, sums_size, sums_slot

_VECTOR_BYTES = 4 * LANES


TEAM = 4
"""Which element of ``Scratch.state`` is the team's address, None where no register gets wide."""


class Scratch(NamedTuple):
    """Memory of one thread, or one team of threads, for one circuit size and number of shots."""

    buffer: np.ndarray
    """Keeps the state's memory alive: kernels get its address, rounded up to a whole vector."""
    team: np.ndarray
    """Slots of team.py; kernels get its address too."""
    state: tuple[Any, ...]
    planning: tuple[np.ndarray, ...]
    adjoint: tuple[np.ndarray, ...]


def make_scratch(num_layers: int, num_qubits: int, shots: int, max_members: int = 1) -> Scratch:
    """Working memory for circuits of one size, up to ``shots`` shots and ``max_members`` threads.

    Raises:
        InvalidCircuitError: if it does not fit into this machine.
    """
    lanes = -(-num_qubits // LANES) * LANES
    # Registers of shots that a measurement told apart wait on a stack: each half as large as the one before.
    amplitudes = (2 << num_qubits) + LANES * (num_qubits + 2)
    check_memory(
        8 * amplitudes
        + 12 * num_layers * num_qubits
        + 8 * (3 * NUM_FIELDS + NUM_SCRATCH_ROWS) * num_layers
        + 8 * shots,
        f"a state of {num_qubits} qubits, the plan of {num_layers} layers and the order of {shots} shots",
        "fewer qubits, layers or shots",
    )
    buffer = np.zeros(2 * amplitudes + LANES, np.float32)
    num_slots = slots.num_slots(max_members)
    team = np.zeros(num_slots + sums_size(num_qubits) + _VECTOR_BYTES // 8, np.int64)
    first_slot = -team.ctypes.data % _VECTOR_BYTES // 8
    team = team[first_slot:]
    team[slots.NUM_MEMBERS] = 1
    team[sums_slot()] = team.ctypes.data + 8 * num_slots
    return Scratch(
        buffer=buffer,
        team=team,
        state=(
            np.zeros((3, num_layers * num_qubits + lanes), np.float32),
            np.zeros((4, lanes), np.float32),
            np.zeros((2 * num_layers + num_qubits, 4), np.float32),
            np.int64(-(-buffer.ctypes.data // _VECTOR_BYTES) * _VECTOR_BYTES),
            np.int64(team.ctypes.data) if num_qubits >= WIDE_BITS else None,
            np.zeros((num_layers, 2), np.int64),
        ),
        planning=(
            np.zeros((NUM_SCRATCH_ROWS, max(num_qubits, num_layers) + LANE_BITS), np.int64),
            np.zeros((3 * num_layers, NUM_FIELDS), np.int64),
            np.zeros(num_layers, np.int64),
            np.zeros((num_qubits + 1, 4), np.int64),
            np.zeros(max(shots, num_qubits), np.int64),
        ),
        adjoint=(
            np.zeros((NUM_MARKS, num_qubits), np.int64),
            np.zeros((2 * num_layers + num_qubits, 3), np.float64),
        ),
    )
