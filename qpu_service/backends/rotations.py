"""First half of the statevector simulator: angles → one SU(2) matrix per qubit between two entanglers.

A circuit of M layers on N qubits has N·M rotations but at most 2M + N places where the product of a qubit's rotations
must be known: before each CZ that touches it, and before its measurement. The products in between are formed here, for
all qubits at once. Must never touch a state.

A rotation is stored as (a, b), the first column of ``[[a, -b*], [b, a*]]``. For Qiskit's RGate(θ, φ),
a = cos(θ/2) and b = -i·exp(iφ)·sin(θ/2).
"""

import math

import numpy as np

from qpu_service.backends.jit import kernel
from qpu_service.backends.lanes import LANES, get, load, put, splat, store

_FAST = {"contract", "nsz"}
"""Fused multiply-add, and signs of zero that do not matter; nothing may be reordered."""

_REDUCIBLE_RAD = 1.0e7
"""Up to here one float64 multiplication finds the quadrant with an error below float32's resolution."""


@kernel(inline="always", fastmath=_FAST)
def _sine_cosine(angle):  # type: ignore[no-untyped-def]
    """Branch-free float32 sine and cosine (Cephes' polynomials on ±π/4), so that a loop over angles vectorises."""
    quarter_turns = math.floor(np.float64(angle) * 0.6366197723675814 + 0.5)
    quadrant = np.int64(quarter_turns)
    x = np.float32(np.float64(angle) - quarter_turns * 1.5707963267948966)
    x2 = x * x
    sine = np.float32(-1.9515295891e-4)
    sine = sine * x2 + np.float32(8.3321608736e-3)
    sine = sine * x2 + np.float32(-1.6666654611e-1)
    sine = sine * x2 * x + x
    cosine = np.float32(2.443315711809948e-5)
    cosine = cosine * x2 + np.float32(-1.388731625493765e-3)
    cosine = cosine * x2 + np.float32(4.166664568298827e-2)
    cosine = cosine * x2 * x2 - np.float32(0.5) * x2 + np.float32(1.0)
    is_odd = (quadrant & 1) != 0
    s = cosine if is_odd else sine
    c = sine if is_odd else cosine
    s = -s if (quadrant & 2) != 0 else s
    c = -c if ((quadrant + 1) & 2) != 0 else c
    return s, c


@kernel(fastmath=_FAST)
def rotation_columns(angles, circuit, columns):  # type: ignore[no-untyped-def]
    """Write Re a, Re b and Im b (Im a is zero) of one circuit's rotations.

    Args:
        angles: float32 (B, M, N, 2), rad.
        circuit: row of the batch.
        columns: float32 (3, ≥ M·N) out.
    """
    count, stride = angles.shape[1] * angles.shape[2], columns.shape[1]
    first = 2 * count * circuit
    is_huge = False
    for i in range(first, first + 2 * count):
        is_huge |= abs(get(angles, i)) > _REDUCIBLE_RAD
    if is_huge:
        for i in range(count):
            half, phi = 0.5 * np.float64(get(angles, first + 2 * i)), np.float64(get(angles, first + 2 * i + 1))
            put(columns, i, np.float32(math.cos(half)))
            put(columns, i + stride, np.float32(math.sin(half) * math.sin(phi)))
            put(columns, i + 2 * stride, np.float32(-math.sin(half) * math.cos(phi)))
        return
    for i in range(count):
        s, c = _sine_cosine(get(angles, first + 2 * i) * np.float32(0.5))
        s_phi, c_phi = _sine_cosine(get(angles, first + 2 * i + 1))
        put(columns, i, c)
        put(columns, i + stride, s * s_phi)
        put(columns, i + 2 * stride, -s * c_phi)


@kernel(fastmath=_FAST)
def merge_rotations(pairs, circuit, num_qubits, columns, running, gates, entanglers):  # type: ignore[no-untyped-def]
    """Multiply each qubit's rotations between two entanglers.

    The CZ of the last layer is left out: it is diagonal and only measurements follow.

    Args:
        pairs: int16 (B, M, 2), CZ of each layer.
        circuit: row of the batch.
        num_qubits: N.
        columns: float32 (3, ≥ M·N + LANES), rows of ``rotation_columns``.
        running: float32 (4, N rounded up to LANES), scratch.
        gates: float32 (≥ 2E + N, 4) out, rows (Re a, Im a, Re b, Im b): 2e and 2e + 1 precede entangler e on its two
            qubits, 2E + q precedes the measurement of qubit q.
        entanglers: int64 (≥ M, 2) out, the qubits of the CZs that act.

    Returns:
        Number of entanglers E.
    """
    num_lanes, num_layers, stride = running.shape[1], pairs.shape[1], columns.shape[1]
    zero, one = splat(np.float32(0.0)), splat(np.float32(1.0))
    for q in range(0, num_lanes, LANES):
        store(running, q, one)
        for row in range(1, 4):
            store(running, row * num_lanes + q, zero)
    count = 0
    for layer in range(num_layers):
        start = layer * num_qubits
        for q in range(0, num_lanes, LANES):
            c, s, t = load(columns, start + q), load(columns, start + q + stride), load(columns, start + q + 2 * stride)
            ar, ai = load(running, q), load(running, q + num_lanes)
            br, bi = load(running, q + 2 * num_lanes), load(running, q + 3 * num_lanes)
            store(running, q, c * ar - s * br - t * bi)
            store(running, q + num_lanes, c * ai - s * bi + t * br)
            store(running, q + 2 * num_lanes, c * br + s * ar - t * ai)
            store(running, q + 3 * num_lanes, c * bi + s * ai + t * ar)
        p, k = np.int64(pairs[circuit, layer, 0]), np.int64(pairs[circuit, layer, 1])
        if p == k or layer == num_layers - 1:
            continue
        entanglers[count, 0], entanglers[count, 1] = p, k
        _move_gate(running, num_lanes, p, gates, 2 * count)
        _move_gate(running, num_lanes, k, gates, 2 * count + 1)
        count += 1
    for q in range(num_qubits):
        _move_gate(running, num_lanes, q, gates, 2 * count + q)
    return count


@kernel(fastmath=_FAST)
def _move_gate(running, num_lanes, qubit, gates, index):  # type: ignore[no-untyped-def]
    """Write out a qubit's product and start a new one."""
    for part in range(4):
        put(gates, 4 * index + part, get(running, part * num_lanes + qubit))
        put(running, part * num_lanes + qubit, np.float32(1.0) if part == 0 else np.float32(0.0))
