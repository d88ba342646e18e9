"""First half of the statevector simulator: angles → one SU(2) matrix per qubit between two entanglers.

A circuit of M layers on N qubits has N·M rotations but at most 2M + N places where the product of a qubit's rotations
must be known: before each CZ that touches it, and before its measurement. The products in between are formed here, for
all qubits at once. Must never touch a state.

A rotation is stored as (a, b), the first column of ``[[a, -b*], [b, a*]]``. For Qiskit's RGate(θ, φ),
a = cos(θ/2) and b = -i·exp(iφ)·sin(θ/2).
"""

import math

import numpy as np
from numba import njit

LANES = 16
"""Rows over qubits are padded to a multiple of this many float32 (one AVX-512 register): no loop has a remainder."""

_REDUCIBLE_RAD = 1.0e7
"""Up to here one float64 multiplication finds the quadrant with an error below float32's resolution."""

_FAST = {"contract", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST, inline="always")
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


@njit(nogil=True, cache=True, fastmath=_FAST)
def rotation_columns(angles, re_a, re_b, im_b):  # type: ignore[no-untyped-def]
    """Write Re a, Re b and Im b (Im a is zero) of the rotations with flat ``angles`` (θ₀, φ₀, θ₁, φ₁, …)."""
    num_rotations = angles.size // 2
    largest = np.float32(0.0)
    for i in range(angles.size):
        largest = max(largest, abs(angles[i]))
    if largest <= _REDUCIBLE_RAD:
        for i in range(num_rotations):
            s, c = _sine_cosine(angles[2 * i] * np.float32(0.5))
            s_phi, c_phi = _sine_cosine(angles[2 * i + 1])
            re_a[i] = c
            re_b[i] = s * s_phi
            im_b[i] = -s * c_phi
        return
    for i in range(num_rotations):
        half, phi = 0.5 * np.float64(angles[2 * i]), np.float64(angles[2 * i + 1])
        re_a[i] = math.cos(half)
        re_b[i] = math.sin(half) * math.sin(phi)
        im_b[i] = -math.sin(half) * math.cos(phi)


@njit(nogil=True, cache=True, fastmath=_FAST)
def merge_rotations(pairs, num_qubits, columns, running, gates, entanglers):  # type: ignore[no-untyped-def]
    """Multiply each qubit's rotations between two entanglers.

    The CZ of the last layer is left out: it is diagonal and only measurements follow.

    Args:
        pairs: int16 (M, 2), CZ of each layer.
        num_qubits: N.
        columns: float32 (3, ≥ M·N + LANES), rows of ``rotation_columns``.
        running: float32 (4, N rounded up to LANES), scratch.
        gates: float32 (≥ 2E + N, 4) out, rows (Re a, Im a, Re b, Im b): 2e and 2e + 1 precede entangler e on its two
            qubits, 2E + q precedes the measurement of qubit q.
        entanglers: int64 (≥ M, 2) out, the qubits of the CZs that act.

    Returns:
        Number of entanglers E.
    """
    re_c, re_s, im_s = columns[0], columns[1], columns[2]
    re_a, im_a, re_b, im_b = running[0], running[1], running[2], running[3]
    num_lanes = running.shape[1]
    for q in range(num_lanes):
        re_a[q], im_a[q], re_b[q], im_b[q] = 1.0, 0.0, 0.0, 0.0
    count = 0
    num_layers = pairs.shape[0]
    for layer in range(num_layers):
        start = layer * num_qubits
        for q in range(num_lanes):
            c, s, t = re_c[start + q], re_s[start + q], im_s[start + q]
            ar, ai, br, bi = re_a[q], im_a[q], re_b[q], im_b[q]
            re_a[q] = c * ar - s * br - t * bi
            im_a[q] = c * ai - s * bi + t * br
            re_b[q] = c * br + s * ar - t * ai
            im_b[q] = c * bi + s * ai + t * ar
        p, k = pairs[layer, 0], pairs[layer, 1]
        if p == k or layer == num_layers - 1:
            continue
        entanglers[count, 0], entanglers[count, 1] = p, k
        for side in range(2):
            q = entanglers[count, side]
            gate = gates[2 * count + side]
            gate[0], gate[1], gate[2], gate[3] = re_a[q], im_a[q], re_b[q], im_b[q]
            re_a[q], im_a[q], re_b[q], im_b[q] = 1.0, 0.0, 0.0, 0.0
        count += 1
    for q in range(num_qubits):
        gate = gates[2 * count + q]
        gate[0], gate[1], gate[2], gate[3] = re_a[q], im_a[q], re_b[q], im_b[q]
    return count
