"""What reverse-mode differentiation needs of two registers side by side: their overlap at one qubit, and a sum.

Memory as in register.py; both registers have the same width and lie in the same buffer.
Must never know what is being differentiated.
"""

import numpy as np

from qpu_service.backends.jit import kernel
from qpu_service.backends.lanes import LANES, choose, load, splat, store, swap, total

_STEP = 2 * LANES


@kernel(inline="always")
def _overlap_in_lanes(half, state, bra, ket, size):  # type: ignore[no-untyped-def]
    zero = splat(np.float32(0.0))
    same_re, same_im, other_re, other_im = zero, zero, zero, zero
    for i in range(0, size, _STEP):
        a, b = load(state, bra + i), load(state, bra + i + LANES)
        x, y = load(state, ket + i), load(state, ket + i + LANES)
        u, v = swap(half, x), swap(half, y)
        same_re = same_re + a * x + b * y
        same_im = same_im + a * y - b * x
        other_re = other_re + a * u + b * v
        other_im = other_im + a * v - b * u
    return (
        total(choose(half, same_re, zero)),
        total(choose(half, same_im, zero)),
        total(choose(half, other_re, zero)),
        total(choose(half, other_im, zero)),
        total(choose(half, zero, other_re)),
        total(choose(half, zero, other_im)),
        total(choose(half, zero, same_re)),
        total(choose(half, zero, same_im)),
    )


@kernel()
def overlap(state, bra, ket, width, position):  # type: ignore[no-untyped-def]
    """Matrix T of <bra|(|i><j|)|ket> at one position, in the order of maps.py: T_ij = Σ conj(bra_i)·ket_j."""
    size = 2 << width
    if position == 0:
        return _overlap_in_lanes(1, state, bra, ket, size)
    if position == 1:
        return _overlap_in_lanes(2, state, bra, ket, size)
    if position == 2:
        return _overlap_in_lanes(4, state, bra, ket, size)
    if position == 3:
        return _overlap_in_lanes(8, state, bra, ket, size)
    half = 2 << position
    zero = splat(np.float32(0.0))
    re_00, im_00, re_01, im_01 = zero, zero, zero, zero
    re_10, im_10, re_11, im_11 = zero, zero, zero, zero
    for block in range(0, size, 2 * half):
        for i in range(block, block + half, _STEP):
            a, b = load(state, bra + i), load(state, bra + i + LANES)
            c, d = load(state, bra + i + half), load(state, bra + i + half + LANES)
            x, y = load(state, ket + i), load(state, ket + i + LANES)
            u, v = load(state, ket + i + half), load(state, ket + i + half + LANES)
            re_00, im_00 = re_00 + a * x + b * y, im_00 + a * y - b * x
            re_01, im_01 = re_01 + a * u + b * v, im_01 + a * v - b * u
            re_10, im_10 = re_10 + c * x + d * y, im_10 + c * y - d * x
            re_11, im_11 = re_11 + c * u + d * v, im_11 + c * v - d * u
    return (
        total(re_00),
        total(im_00),
        total(re_01),
        total(im_01),
        total(re_10),
        total(im_10),
        total(re_11),
        total(im_11),
    )


@kernel(inline="always")
def _add_in_lanes(half, state, source, target, size, m):  # type: ignore[no-untyped-def]
    same_re, same_im = choose(half, splat(m[0]), splat(m[6])), choose(half, splat(m[1]), splat(m[7]))
    other_re, other_im = choose(half, splat(m[2]), splat(m[4])), choose(half, splat(m[3]), splat(m[5]))
    shift = target - source
    for i in range(source, source + size, _STEP):
        x, y = load(state, i), load(state, i + LANES)
        u, v = swap(half, x), swap(half, y)
        re, im = load(state, i + shift), load(state, i + shift + LANES)
        store(state, i + shift, re + same_re * x - same_im * y + other_re * u - other_im * v)
        store(state, i + shift + LANES, im + same_re * y + same_im * x + other_re * v + other_im * u)


@kernel()
def add_applied(state, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """Add to the register at ``target`` what ``register.apply`` would make of the one at ``source``."""
    size = 2 << width
    if position == 0:
        _add_in_lanes(1, state, source, target, size, m)
    elif position == 1:
        _add_in_lanes(2, state, source, target, size, m)
    elif position == 2:
        _add_in_lanes(4, state, source, target, size, m)
    elif position == 3:
        _add_in_lanes(8, state, source, target, size, m)
    else:
        half, shift = 2 << position, target - source
        ar, ai, br, bi = splat(m[0]), splat(m[1]), splat(m[2]), splat(m[3])
        cr, ci, dr, di = splat(m[4]), splat(m[5]), splat(m[6]), splat(m[7])
        for block in range(source, source + size, 2 * half):
            for i in range(block, block + half, _STEP):
                x, y = load(state, i), load(state, i + LANES)
                u, v = load(state, i + half), load(state, i + half + LANES)
                j = i + shift
                store(state, j, load(state, j) + ar * x - ai * y + br * u - bi * v)
                store(state, j + LANES, load(state, j + LANES) + ar * y + ai * x + br * v + bi * u)
                j += half
                store(state, j, load(state, j) + cr * x - ci * y + dr * u - di * v)
                store(state, j + LANES, load(state, j + LANES) + cr * y + ci * x + dr * v + di * u)
