"""Second part of the statevector simulator: linear maps on the state of the few qubits that are entangled right now.

A state is float32 memory given by its address: vectors of 16 real parts, each followed by the vector of its imaginary
parts. A register of width w is the 2·2^w numbers from ``source`` on, and never narrower than one vector: positions 0 to
3 are bits of the lane, higher ones count vectors. A position that no qubit occupies holds |0>, so a qubit enters there
by an ordinary map. Maps are 2×2 (maps.py), and may write to another place (``target``) than they read. Nothing is
normalised: only ratios of weights are ever used.

Must never decide anything: what comes next is in the program (program.py), outcomes are drawn in sampling.py.
"""

import numpy as np

from qpu_service.backends.jit import kernel
from qpu_service.backends.lanes import LANES, choose, load, splat, store, swap, total

LANE_BITS = 4
"""Positions inside one vector."""
_STEP = 2 * LANES
"""From one vector's real parts to the next one's."""


def _sign_table() -> np.ndarray:
    """Row 4a + b: −1 in lanes whose bits a and b are both 1."""
    lane = np.arange(LANES)
    return np.array(
        [
            [-1.0 if one >> a & one >> b & 1 else 1.0 for one in lane]
            for a in range(LANE_BITS)
            for b in range(LANE_BITS)
        ],
        dtype=np.float32,
    ).ravel()


_SIGNS = _sign_table()
_FIRST = np.array([1.0] + [0.0] * (LANES - 1), dtype=np.float32)


@kernel()
def clear(state):  # type: ignore[no-untyped-def]
    """Empty register at the beginning of the memory: every position holds |0>."""
    store(state, 0, load(_FIRST, 0))
    store(state, LANES, splat(np.float32(0.0)))


@kernel(inline="always")
def _apply_in_lanes(half, state, source, target, size, m):  # type: ignore[no-untyped-def]
    same_re, same_im = choose(half, splat(m[0]), splat(m[6])), choose(half, splat(m[1]), splat(m[7]))
    other_re, other_im = choose(half, splat(m[2]), splat(m[4])), choose(half, splat(m[3]), splat(m[5]))
    shift = target - source
    for i in range(source, source + size, _STEP):
        x, y = load(state, i), load(state, i + LANES)
        u, v = swap(half, x), swap(half, y)
        store(state, i + shift, same_re * x - same_im * y + other_re * u - other_im * v)
        store(state, i + shift + LANES, same_re * y + same_im * x + other_re * v + other_im * u)


@kernel()
def apply(state, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """Multiply the qubit at ``position`` by m."""
    size = 2 << width
    if position == 0:
        _apply_in_lanes(1, state, source, target, size, m)
    elif position == 1:
        _apply_in_lanes(2, state, source, target, size, m)
    elif position == 2:
        _apply_in_lanes(4, state, source, target, size, m)
    elif position == 3:
        _apply_in_lanes(8, state, source, target, size, m)
    else:
        half = 2 << position
        for block in range(source, source + size, 2 * half):
            apply_to_halves(state, block, block + target - source, half, half, m)


@kernel(inline="always")
def apply_to_halves(state, source, target, length, half, m):  # type: ignore[no-untyped-def]
    """Multiply a qubit whose two halves, each of ``length`` numbers, lie ``half`` numbers apart."""
    shift = target - source
    ar, ai, br, bi = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
    cr, ci, dr, di = splat(m[4]), splat(m[5]), splat(m[6]), splat(m[7])
    for i in range(source, source + length, _STEP):
        x, y, u, v = load(state, i), load(state, i + LANES), load(state, i + half), load(state, i + half + LANES)
        store(state, i + shift, ar * x - ai * y + br * u - bi * v)
        store(state, i + shift + LANES, ar * y + ai * x + br * v + bi * u)
        store(state, i + shift + half, cr * x - ci * y + dr * u - di * v)
        store(state, i + shift + half + LANES, cr * y + ci * x + dr * v + di * u)


@kernel(inline="always")
def _weigh_in_lanes(half, state, source, size, m):  # type: ignore[no-untyped-def]
    same_re, same_im = choose(half, splat(m[0]), splat(m[6])), choose(half, splat(m[1]), splat(m[7]))
    other_re, other_im = choose(half, splat(m[2]), splat(m[4])), choose(half, splat(m[3]), splat(m[5]))
    weight = splat(np.float32(0.0))
    for i in range(source, source + size, _STEP):
        x, y = load(state, i), load(state, i + LANES)
        u, v = swap(half, x), swap(half, y)
        a = same_re * x - same_im * y + other_re * u - other_im * v
        b = same_re * y + same_im * x + other_re * v + other_im * u
        weight = weight + a * a + b * b
    zero = splat(np.float32(0.0))
    return total(choose(half, weight, zero)), total(choose(half, zero, weight))


@kernel()
def weigh(state, source, width, position, m):  # type: ignore[no-untyped-def]
    """Squared norms of the halves with bit 0 and bit 1 that ``apply`` would give; changes nothing."""
    size = 2 << width
    if position == 0:
        return _weigh_in_lanes(1, state, source, size, m)
    if position == 1:
        return _weigh_in_lanes(2, state, source, size, m)
    if position == 2:
        return _weigh_in_lanes(4, state, source, size, m)
    if position == 3:
        return _weigh_in_lanes(8, state, source, size, m)
    half = 2 << position
    zero, one = splat(np.float32(0.0)), splat(np.float32(0.0))
    for block in range(source, source + size, 2 * half):
        more_zero, more_one = weigh_halves(state, block, half, half, m)
        zero, one = zero + more_zero, one + more_one
    return total(zero), total(one)


@kernel(inline="always")
def weigh_halves(state, source, length, half, m):  # type: ignore[no-untyped-def]
    """Squared norms, lane by lane, of the halves that ``apply_to_halves`` would give."""
    ar, ai, br, bi = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
    cr, ci, dr, di = splat(m[4]), splat(m[5]), splat(m[6]), splat(m[7])
    zero, one = splat(np.float32(0.0)), splat(np.float32(0.0))
    for i in range(source, source + length, _STEP):
        x, y, u, v = load(state, i), load(state, i + LANES), load(state, i + half), load(state, i + half + LANES)
        a, b = ar * x - ai * y + br * u - bi * v, ar * y + ai * x + br * v + bi * u
        c, d = cr * x - ci * y + dr * u - di * v, cr * y + ci * x + dr * v + di * u
        zero = zero + a * a + b * b
        one = one + c * c + d * d
    return zero, one


@kernel()
def apply_cz(state, source, width, first, second):  # type: ignore[no-untyped-def]
    """Flip the sign where both bits are 1."""
    low, high = min(first, second), max(first, second)
    if high < LANE_BITS:
        signs = load(_SIGNS, (LANE_BITS * low + high) * LANES)
        step, first_block, inner = _STEP, source, _STEP
    else:
        signs = load(_SIGNS, (LANE_BITS + 1) * LANES * low) if low < LANE_BITS else splat(np.float32(-1.0))
        step, first_block, inner = 4 << high, source + (2 << high), 2 << high
    for block in range(first_block, source + (2 << width), step):
        if low < LANE_BITS:
            for i in range(block, block + inner, _STEP):
                store(state, i, load(state, i) * signs)
                store(state, i + LANES, load(state, i + LANES) * signs)
        else:
            for inside in range(block + (2 << low), block + inner, 4 << low):
                for i in range(inside, inside + (2 << low), _STEP):
                    store(state, i, load(state, i) * signs)
                    store(state, i + LANES, load(state, i + LANES) * signs)


@kernel()
def grow(state, source, target, width, m):  # type: ignore[no-untyped-def]
    """Add a qubit in state (m00, m10) as the highest bit of a register that has no free position."""
    grow_range(state, source, target, 2 << width, 2 << width, m)


@kernel(inline="always")
def grow_range(state, source, target, length, size, m):  # type: ignore[no-untyped-def]
    """Of a register of ``size`` numbers, let the ``length`` numbers from ``source`` on grow."""
    shift = target - source
    ar, ai, cr, ci = splat(m[0]), splat(m[1]), splat(m[4]), splat(m[5])
    for i in range(source, source + length, _STEP):
        x, y = load(state, i), load(state, i + LANES)
        store(state, i + shift + size, cr * x - ci * y)
        store(state, i + shift + size + LANES, cr * y + ci * x)
        store(state, i + shift, ar * x - ai * y)
        store(state, i + shift + LANES, ar * y + ai * x)


@kernel(inline="always")
def _shrink_in_lanes(half, state, source, target, length, size, m):  # type: ignore[no-untyped-def]
    same_re, same_im = choose(half, splat(m[0]), splat(m[2])), choose(half, splat(m[1]), splat(m[3]))
    other_re, other_im = choose(half, splat(m[2]), splat(m[0])), choose(half, splat(m[3]), splat(m[1]))
    shift = target - source
    for i in range(source, source + length, _STEP):
        # lanes with the measured bit 0 keep the lower half's qubits, lanes with 1 take the upper half's
        x, u = load(state, i), load(state, i + size)
        y, v = load(state, i + LANES), load(state, i + size + LANES)
        a, b = choose(half, x, u), choose(half, y, v)
        c, d = choose(half, swap(half, x), swap(half, u)), choose(half, swap(half, y), swap(half, v))
        store(state, i + shift, same_re * a - same_im * b + other_re * c - other_im * d)
        store(state, i + shift + LANES, same_re * b + same_im * a + other_re * d + other_im * c)


@kernel()
def shrink(state, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """Contract the qubit at ``position`` with the row (m00, m01); the highest qubit takes its position."""
    shrink_range(state, source, target, 1 << width, 1 << width, position, m)


@kernel()
def shrink_range(state, source, target, length, size, position, m):  # type: ignore[no-untyped-def]
    """Of a register of 2·``size`` numbers, shrink ``length`` numbers from ``source`` on and those ``size`` above."""
    if position == 0:
        _shrink_in_lanes(1, state, source, target, length, size, m)
    elif position == 1:
        _shrink_in_lanes(2, state, source, target, length, size, m)
    elif position == 2:
        _shrink_in_lanes(4, state, source, target, length, size, m)
    elif position == 3:
        _shrink_in_lanes(8, state, source, target, length, size, m)
    else:
        half, shift = 2 << position, target - source
        for part in range(1 if half == size else 2):  # lower half of the highest qubit, then upper
            for block in range(source, source + length, 2 * half):
                contract(state, block + part * size, block + shift + part * half, half, half, m)


@kernel(inline="always")
def contract(state, source, target, length, half, m):  # type: ignore[no-untyped-def]
    """Contract a qubit whose two halves lie ``half`` numbers apart."""
    ar, ai, br, bi = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
    for i in range(source, source + length, _STEP):
        x, y, u, v = load(state, i), load(state, i + LANES), load(state, i + half), load(state, i + half + LANES)
        store(state, i + target - source, ar * x - ai * y + br * u - bi * v)
        store(state, i + target - source + LANES, ar * y + ai * x + br * v + bi * u)
