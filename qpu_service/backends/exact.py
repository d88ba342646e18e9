"""Exact probabilities of the statevector simulator: the whole state at once, qubit q at position q.

Here every qubit is needed until the end, so none of the shortcuts of program.py apply except that gates are merged.
"""

import numpy as np

from qpu_service.backends.jit import entry_kernel, kernel
from qpu_service.backends.lanes import LANES, get
from qpu_service.backends.maps import IDENTITY, gate_matrix, square
from qpu_service.backends.register import LANE_BITS, apply, apply_cz, clear, grow, weigh
from qpu_service.backends.rotations import merge_rotations, rotation_columns
from qpu_service.backends.wide import (
    WIDE_BITS,
    wide_apply,
    wide_entangle,
    wide_grow,
    wide_tabulate,
    wide_weigh,
)

_BASE = np.int64(0)
"""Where the register begins; a number with a type, so that Numba compiles no second version for a literal."""


@kernel()
def _evolve(angles, pairs, circuit, scratch, first_gate):  # type: ignore[no-untyped-def]
    """State before the last rotations of the qubits that have a CZ; the others' only rotations are in it.

    Returns:
        Width of the register, number of CZs.
    """
    columns, running, gates, state, team, entanglers = scratch
    num_qubits = angles.shape[2]
    rotation_columns(angles, circuit, columns)
    count = merge_rotations(pairs, circuit, num_qubits, columns, running, gates, entanglers)
    for q in range(num_qubits):
        first_gate[q] = 2 * count + q
    for gate in range(2 * count - 1, -1, -1):
        first_gate[entanglers[gate // 2, gate % 2]] = gate
    clear(state)
    width = np.int64(LANE_BITS)
    for q in range(num_qubits):
        m = gate_matrix(gates, first_gate[q])
        if q < LANE_BITS:
            apply(state, _BASE, _BASE, width, q, m)
        else:
            if width < WIDE_BITS:
                grow(state, _BASE, _BASE, width, m)
            else:
                wide_grow(team, state, _BASE, _BASE, width, m)
            width += 1
    for e in range(count):
        p, k = entanglers[e, 0], entanglers[e, 1]
        gate_p = gate_matrix(gates, 2 * e) if first_gate[p] != 2 * e else IDENTITY
        gate_k = gate_matrix(gates, 2 * e + 1) if first_gate[k] != 2 * e + 1 else IDENTITY
        if width >= WIDE_BITS:
            wide_entangle(team, state, _BASE, width, p, k, gate_p, gate_k)
            continue
        if first_gate[p] != 2 * e:
            apply(state, _BASE, _BASE, width, p, gate_p)
        if first_gate[k] != 2 * e + 1:
            apply(state, _BASE, _BASE, width, k, gate_k)
        apply_cz(state, _BASE, width, p, k)
    return width, count


@entry_kernel
def tabulate_probabilities(angles, pairs, scratch, first_gate, start, stop, table):  # type: ignore[no-untyped-def]
    """Outcome probabilities of circuits start..stop-1; float32 (B, 2^N) out, qubit q is bit q of the index."""
    gates, state, team = scratch[2], scratch[3], scratch[4]
    num_qubits = angles.shape[2]
    for c in range(start, stop):
        width, count = _evolve(angles, pairs, c, scratch, first_gate)
        for q in range(num_qubits):
            if first_gate[q] < 2 * count:
                m = gate_matrix(gates, 2 * count + q)
                if width < WIDE_BITS:
                    apply(state, _BASE, _BASE, width, q, m)
                else:
                    wide_apply(team, state, _BASE, _BASE, width, q, m)
        if width >= WIDE_BITS:
            wide_tabulate(team, state, _BASE, width, table[c].ctypes.data)
            continue
        norm = 0.0
        for i in range(1 << num_qubits):
            place = i + (i // LANES) * LANES
            weight = square(get(state, place), get(state, place + LANES))
            table[c, i] = weight
            norm += np.float64(weight)
        scale = np.float32(1.0 / norm)
        for i in range(1 << num_qubits):
            table[c, i] *= scale


@entry_kernel
def average_bits(angles, pairs, scratch, first_gate, start, stop, means):  # type: ignore[no-untyped-def]
    """P(bit = 1) of every qubit of circuits start..stop-1; float32 (B, N) out."""
    gates, state, team = scratch[2], scratch[3], scratch[4]
    for c in range(start, stop):
        width, count = _evolve(angles, pairs, c, scratch, first_gate)
        for q in range(angles.shape[2]):
            m = gate_matrix(gates, 2 * count + q) if first_gate[q] < 2 * count else IDENTITY
            if width < WIDE_BITS:
                zero, one = weigh(state, _BASE, width, q, m)
            else:
                zero, one = wide_weigh(team, state, _BASE, width, q, m)
            means[c, q] = one / (zero + one)
