"""Statevector kernels for multiplexed gates: the target's 2×2 matrix is one of two, chosen by the control's bit.

Every layer of the generator circuits (generator/circuit.py) is a ring of such gates once rotations are merged with the
controlled gates after them: N passes over the state instead of 2N. The way back (adjoint differentiation, Jones and
Gacon 2020, arXiv:2009.02823) un-applies a gate to ψ and λ and takes their overlap in the same pass.

A state is laid out as in register.py: 16 real parts, then 16 imaginary parts; qubit q is bit q of the index, the four
lowest are lanes of a vector.

Gates (float32, K × 2 × 8): matrix for control 0, matrix for control 1, each as in maps.py. Places (int64, K × 3):
control, target, and how many qubits the register has at this gate, since qubits join in the order in which gates reach
them.
"""

import numpy as np

from qpu_service.backends.jit import entry_kernel, kernel
from qpu_service.backends.lanes import LANES, get, load, put, splat, store, swap
from qpu_service.backends.register import LANE_BITS

_STEP = 2 * LANES
_ONE, _ZERO = np.float32(1.0), np.float32(0.0)
_LANE_BIT = np.array([lane >> bit & 1 for bit in range(LANE_BITS) for lane in range(LANES)], np.float32)
"""16 numbers per lane position: the bit of every lane."""


@kernel(inline="always")
def _mixed(bit, zero, one):  # type: ignore[no-untyped-def]
    """``one`` in lanes whose bit is 1, else ``zero``; exact, since one of the two products is."""
    return (splat(_ONE) - bit) * splat(zero) + bit * splat(one)


@kernel()
def _control_bits(control, high):  # type: ignore[no-untyped-def]
    """The control's bit in every lane: from the lane where it is one of the lowest, else ``high`` everywhere."""
    if control < LANE_BITS:
        return load(_LANE_BIT, control * LANES)
    return splat(np.float32(high))


@kernel(inline="always")
def _entry(gates, gate, bits, index):  # type: ignore[no-untyped-def]
    return _mixed(bits, gates[gate, 0, index], gates[gate, 1, index])


@kernel(inline="always")
def _lane_matrix(gates, gate, bits, target, side):  # type: ignore[no-untyped-def]
    """What a lane is multiplied by, and its partner: row by the target's bit; ``side`` −1 gives the inverse.

    The inverse of a unitary is its conjugate transpose: same lane conjugated, partner lane from the other row.
    """
    t = load(_LANE_BIT, target * LANES)
    n = splat(_ONE) - t
    sign = splat(np.float32(side))
    same_re = n * _entry(gates, gate, bits, 0) + t * _entry(gates, gate, bits, 6)
    same_im = sign * (n * _entry(gates, gate, bits, 1) + t * _entry(gates, gate, bits, 7))
    low, high = (n, t) if side > 0 else (t, n)
    other_re = low * _entry(gates, gate, bits, 2) + high * _entry(gates, gate, bits, 4)
    other_im = sign * (low * _entry(gates, gate, bits, 3) + high * _entry(gates, gate, bits, 5))
    return same_re, same_im, other_re, other_im


@kernel(inline="always")
def _apply_lanes(half, state, start, stop, m):  # type: ignore[no-untyped-def]
    same_re, same_im, other_re, other_im = m
    for i in range(start, stop, _STEP):
        x, y = load(state, i), load(state, i + LANES)
        u, v = swap(half, x), swap(half, y)
        store(state, i, same_re * x - same_im * y + other_re * u - other_im * v)
        store(state, i + LANES, same_re * y + same_im * x + other_re * v + other_im * u)


@kernel()
def _apply_in_lanes(gates, gate, control, target, high, state, start, stop):  # type: ignore[no-untyped-def]
    m = _lane_matrix(gates, gate, _control_bits(control, high), target, 1)
    if target == 0:
        _apply_lanes(1, state, start, stop, m)
    elif target == 1:
        _apply_lanes(2, state, start, stop, m)
    elif target == 2:
        _apply_lanes(4, state, start, stop, m)
    else:
        _apply_lanes(8, state, start, stop, m)


@kernel()
def _apply_run(gates, gate, bits, state, start, stop, half):  # type: ignore[no-untyped-def]
    ar, ai = _entry(gates, gate, bits, 0), _entry(gates, gate, bits, 1)
    br, bi = _entry(gates, gate, bits, 2), _entry(gates, gate, bits, 3)
    cr, ci = _entry(gates, gate, bits, 4), _entry(gates, gate, bits, 5)
    dr, di = _entry(gates, gate, bits, 6), _entry(gates, gate, bits, 7)
    for i in range(start, stop, _STEP):
        x, y, u, v = load(state, i), load(state, i + LANES), load(state, i + half), load(state, i + half + LANES)
        store(state, i, ar * x - ai * y + br * u - bi * v)
        store(state, i + LANES, ar * y + ai * x + br * v + bi * u)
        store(state, i + half, cr * x - ci * y + dr * u - di * v)
        store(state, i + half + LANES, cr * y + ci * x + dr * v + di * u)


@kernel()
def _apply_gate(gates, gate, control, target, width, state):  # type: ignore[no-untyped-def]
    size = 2 << width
    if target < LANE_BITS:
        middle = size // 2 if control >= LANE_BITS else size
        _apply_in_lanes(gates, gate, control, target, 0, state, 0, middle)
        if middle < size:
            # a high control of a low target is always the ring's last qubit, the highest bit
            _apply_in_lanes(gates, gate, control, target, 1, state, middle, size)
        return
    half = 2 << target
    for block in range(0, size, 2 * half):
        if control < LANE_BITS:
            _apply_run(gates, gate, _control_bits(control, 0), state, block, block + half, half)
        else:
            # a low control of a higher target is always the bit just below it
            middle = block + half // 2
            _apply_run(gates, gate, splat(_ZERO), state, block, middle, half)
            _apply_run(gates, gate, splat(_ONE), state, middle, block + half, half)


@kernel(inline="always")
def _add(overlaps, gate, control_bit, row, column, re, im):  # type: ignore[no-untyped-def]
    index = 8 * (2 * gate + control_bit) + 2 * (2 * row + column)
    put(overlaps, index, get(overlaps, index) + np.float64(re))
    put(overlaps, index + 1, get(overlaps, index + 1) + np.float64(im))


@kernel(inline="always")
def _back_lanes(half, psi, lam, start, stop, m, sums):  # type: ignore[no-untyped-def]
    same_re, same_im, other_re, other_im = m
    zero = splat(_ZERO)
    sr, si, tr, ti = zero, zero, zero, zero
    for i in range(start, stop, _STEP):
        x, y = load(psi, i), load(psi, i + LANES)
        u, v = swap(half, x), swap(half, y)
        p = same_re * x - same_im * y + other_re * u - other_im * v
        q = same_re * y + same_im * x + other_re * v + other_im * u
        store(psi, i, p)
        store(psi, i + LANES, q)
        x, y = load(lam, i), load(lam, i + LANES)
        sr, si = sr + x * p + y * q, si + x * q - y * p
        r, s = swap(half, p), swap(half, q)
        tr, ti = tr + x * r + y * s, ti + x * s - y * r
        u, v = swap(half, x), swap(half, y)
        store(lam, i, same_re * x - same_im * y + other_re * u - other_im * v)
        store(lam, i + LANES, same_re * y + same_im * x + other_re * v + other_im * u)
    store(sums, 0, sr)
    store(sums, LANES, si)
    store(sums, 2 * LANES, tr)
    store(sums, 3 * LANES, ti)


@kernel()
def _back_in_lanes(gates, gate, control, target, high, psi, lam, start, stop, sums, overlaps):  # type: ignore[no-untyped-def]
    m = _lane_matrix(gates, gate, _control_bits(control, high), target, -1)
    if target == 0:
        _back_lanes(1, psi, lam, start, stop, m, sums)
    elif target == 1:
        _back_lanes(2, psi, lam, start, stop, m, sums)
    elif target == 2:
        _back_lanes(4, psi, lam, start, stop, m, sums)
    else:
        _back_lanes(8, psi, lam, start, stop, m, sums)
    for lane in range(LANES):
        bit = lane >> control & 1 if control < LANE_BITS else high
        row = lane >> target & 1
        _add(overlaps, gate, bit, row, row, get(sums, lane), get(sums, LANES + lane))
        _add(overlaps, gate, bit, row, 1 - row, get(sums, 2 * LANES + lane), get(sums, 3 * LANES + lane))


@kernel()
def _back_run(gates, gate, bits, psi, lam, start, stop, half, sums):  # type: ignore[no-untyped-def]
    """Adds the four overlaps, lane by lane, to ``sums``."""
    ar, ai = _entry(gates, gate, bits, 0), _entry(gates, gate, bits, 1)
    br, bi = _entry(gates, gate, bits, 2), _entry(gates, gate, bits, 3)
    cr, ci = _entry(gates, gate, bits, 4), _entry(gates, gate, bits, 5)
    dr, di = _entry(gates, gate, bits, 6), _entry(gates, gate, bits, 7)
    r00, i00, r01, i01 = load(sums, 0), load(sums, 16), load(sums, 32), load(sums, 48)
    r10, i10, r11, i11 = load(sums, 64), load(sums, 80), load(sums, 96), load(sums, 112)
    for i in range(start, stop, _STEP):
        x, y, u, v = load(psi, i), load(psi, i + LANES), load(psi, i + half), load(psi, i + half + LANES)
        p, q = ar * x + ai * y + cr * u + ci * v, ar * y - ai * x + cr * v - ci * u
        r, s = br * x + bi * y + dr * u + di * v, br * y - bi * x + dr * v - di * u
        store(psi, i, p)
        store(psi, i + LANES, q)
        store(psi, i + half, r)
        store(psi, i + half + LANES, s)
        x, y, u, v = load(lam, i), load(lam, i + LANES), load(lam, i + half), load(lam, i + half + LANES)
        r00, i00 = r00 + x * p + y * q, i00 + x * q - y * p
        r01, i01 = r01 + x * r + y * s, i01 + x * s - y * r
        r10, i10 = r10 + u * p + v * q, i10 + u * q - v * p
        r11, i11 = r11 + u * r + v * s, i11 + u * s - v * r
        store(lam, i, ar * x + ai * y + cr * u + ci * v)
        store(lam, i + LANES, ar * y - ai * x + cr * v - ci * u)
        store(lam, i + half, br * x + bi * y + dr * u + di * v)
        store(lam, i + half + LANES, br * y - bi * x + dr * v - di * u)
    store(sums, 0, r00)
    store(sums, 16, i00)
    store(sums, 32, r01)
    store(sums, 48, i01)
    store(sums, 64, r10)
    store(sums, 80, i10)
    store(sums, 96, r11)
    store(sums, 112, i11)


@kernel()
def _back_gate(gates, gate, control, target, width, psi, lam, sums, overlaps):  # type: ignore[no-untyped-def]
    size = 2 << width
    if target < LANE_BITS:
        middle = size // 2 if control >= LANE_BITS else size
        _back_in_lanes(gates, gate, control, target, 0, psi, lam, 0, middle, sums, overlaps)
        if middle < size:
            _back_in_lanes(gates, gate, control, target, 1, psi, lam, middle, size, sums, overlaps)
        return
    half = 2 << target
    for i in range(256):
        put(sums, i, _ZERO)
    for block in range(0, size, 2 * half):
        if control < LANE_BITS:
            _back_run(gates, gate, _control_bits(control, 0), psi, lam, block, block + half, half, sums[:128])
        else:
            middle = block + half // 2
            _back_run(gates, gate, splat(_ZERO), psi, lam, block, middle, half, sums[:128])
            _back_run(gates, gate, splat(_ONE), psi, lam, middle, block + half, half, sums[128:])
    for lane in range(LANES):
        low = lane >> control & 1 if control < LANE_BITS else 0
        for entry in range(4):
            at = 2 * LANES * entry + lane
            _add(overlaps, gate, low, entry // 2, entry % 2, get(sums, at), get(sums, at + LANES))
            if control >= LANE_BITS:
                _add(overlaps, gate, 1, entry // 2, entry % 2, get(sums, at + 128), get(sums, at + 144))


@entry_kernel
def evolve(gates, places, state):  # type: ignore[no-untyped-def]
    """Apply all gates to |0…0⟩. ``state``: float32, 2·2^max(N, 4) numbers, any content."""
    for i in range(len(state)):
        state[i] = _ZERO
    state[0] = _ONE
    for gate in range(len(gates)):
        _apply_gate(gates, gate, places[gate, 0], places[gate, 1], places[gate, 2], state)


@entry_kernel
def tabulate(state, table):  # type: ignore[no-untyped-def]
    """Probabilities of all outcomes, normalised. ``table``: float32 (2^N) out."""
    norm = 0.0
    for i in range(len(table)):
        place = i + (i // LANES) * LANES
        weight = get(state, place) * get(state, place) + get(state, place + LANES) * get(state, place + LANES)
        put(table, i, weight)
        norm += np.float64(weight)
    scale = np.float32(1.0 / norm)
    for i in range(len(table)):
        put(table, i, get(table, i) * scale)


@entry_kernel
def overlap_back(gates, places, weights, psi, lam, sums, overlaps):  # type: ignore[no-untyped-def]
    """Overlaps S of λ after, ψ before every gate; d Σ w·p = 2·Re Σ dm_ab·S_ab.

    Args:
        gates: float32 (K, 2, 8).
        places: int64 (K, 3).
        weights: float32 (2^N,), w.
        psi: the final state; destroyed.
        lam: scratch of the same size.
        sums: float32 (256,), scratch.
        overlaps: float64 (K·16,) out: per gate and control bit S00, S01, S10, S11, each real and imaginary part.
    """
    for i in range(len(lam)):
        lam[i] = _ZERO
    for i in range(len(weights)):
        place = i + (i // LANES) * LANES
        put(lam, place, get(psi, place) * weights[i])
        put(lam, place + LANES, get(psi, place + LANES) * weights[i])
    for i in range(len(overlaps)):
        overlaps[i] = 0.0
    for gate in range(len(gates) - 1, -1, -1):
        _back_gate(gates, gate, places[gate, 0], places[gate, 1], places[gate, 2], psi, lam, sums, overlaps)
