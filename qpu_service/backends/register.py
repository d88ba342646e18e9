"""Second half of the statevector simulator: one state that grows as qubits become entangled, and its measurement.

Real and imaginary parts are separate float32 arrays. Qubit ``q`` is bit ``position[q]`` of the state's index, or in no
register yet (-1): then its state is the first column of its merged rotations, and it is measured alone.
"""

import numpy as np
from numba import njit

_FAST = {"contract", "nsz", "reassoc"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def apply_gate(re, im, num_qubits, position, gate):  # type: ignore[no-untyped-def]
    """Multiply the qubit at ``position`` by ``[[a, -b*], [b, a*]]``."""
    ar, ai, br, bi = gate[0], gate[1], gate[2], gate[3]
    half = 1 << position
    for block in range(0, 1 << num_qubits, 2 * half):
        re0, im0 = re[block : block + half], im[block : block + half]
        re1, im1 = re[block + half : block + 2 * half], im[block + half : block + 2 * half]
        for i in range(half):
            x, y, z, w = re0[i], im0[i], re1[i], im1[i]
            re0[i] = ar * x - ai * y - br * z - bi * w
            im0[i] = ar * y + ai * x - br * w + bi * z
            re1[i] = br * x - bi * y + ar * z + ai * w
            im1[i] = br * y + bi * x + ar * w - ai * z


@njit(nogil=True, cache=True, fastmath=_FAST)
def join_qubit(re, im, num_qubits, gate):  # type: ignore[no-untyped-def]
    """Append a qubit in state (a, b) as the highest bit of the index."""
    ar, ai, br, bi = gate[0], gate[1], gate[2], gate[3]
    size = 1 << num_qubits
    re0, im0, re1, im1 = re[:size], im[:size], re[size : 2 * size], im[size : 2 * size]
    for i in range(size):
        x, y = re0[i], im0[i]
        re0[i] = ar * x - ai * y
        im0[i] = ar * y + ai * x
        re1[i] = br * x - bi * y
        im1[i] = br * y + bi * x


@njit(nogil=True, cache=True, fastmath=_FAST)
def apply_cz(re, im, num_qubits, first, second):  # type: ignore[no-untyped-def]
    """Flip the sign where both bits are 1."""
    low, high = min(first, second), max(first, second)
    for outer in range(1 << high, 1 << num_qubits, 2 << high):
        for inner in range(outer + (1 << low), outer + (1 << high), 2 << low):
            re1, im1 = re[inner : inner + (1 << low)], im[inner : inner + (1 << low)]
            for i in range(1 << low):
                re1[i] = -re1[i]
                im1[i] = -im1[i]


@njit(nogil=True, cache=True, fastmath=_FAST)
def evolve(gates, entanglers, num_entanglers, re, im, position):  # type: ignore[no-untyped-def]
    """Build the state of every entangled qubit, ready to be measured.

    Returns:
        Number of qubits in the register.
    """
    position[:] = -1
    re[0], im[0] = 1.0, 0.0
    width = 0
    for e in range(num_entanglers):
        for side in range(2):
            q = entanglers[e, side]
            if position[q] < 0:
                join_qubit(re, im, width, gates[2 * e + side])
                position[q] = width
                width += 1
            else:
                apply_gate(re, im, width, position[q], gates[2 * e + side])
        apply_cz(re, im, width, position[entanglers[e, 0]], position[entanglers[e, 1]])
    for q in range(position.size):
        if position[q] >= 0:
            apply_gate(re, im, width, position[q], gates[2 * num_entanglers + q])
    return width


@njit(nogil=True, cache=True, fastmath=_FAST)
def qubit_weights(re, im, num_qubits, position):  # type: ignore[no-untyped-def]
    """Squared norms of the halves where the bit at ``position`` is 0 and 1."""
    half = 1 << position
    zero, one = np.float32(0.0), np.float32(0.0)
    for block in range(0, 1 << num_qubits, 2 * half):
        for i in range(block, block + half):
            zero += re[i] * re[i] + im[i] * im[i]
            one += re[i + half] * re[i + half] + im[i + half] * im[i + half]
    return zero, one
