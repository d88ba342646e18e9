"""Third part of the statevector simulator: runs a circuit's program for all of its shots.

Shots travel together until a measurement tells them apart; then each group follows its own copy of the register, one
after the other. Every number that is drawn depends on (circuit seed, shot, qubit) alone, never on the order of the work.
"""

import math

import numpy as np
from numba import njit

from qpu_service.backends import program as steps
from qpu_service.backends.lanes import LANES, splat, store
from qpu_service.backends.program import plan
from qpu_service.backends.register import LANE_BITS, apply, apply_cz, grow, shrink, weigh
from qpu_service.backends.rotations import gate_matrix, merge_rotations, rotation_columns

_JIT = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**_JIT)
def _uniform(seed, shot, qubit):  # type: ignore[no-untyped-def]
    """Uniform number in [0, 1) that depends on its arguments alone: SplitMix64, 53 bits."""
    z = (seed ^ np.uint64(0x6A09E667F3BCC909)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(31))) + (np.uint64(shot * 32 + qubit) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 1.1102230246251565e-16


@njit(**_JIT)
def _draw(seed, circuit, qubit, zero, one, order, low, high, bits):  # type: ignore[no-untyped-def]
    """Measure one qubit in shots order[low:high] with weights of 0 and 1; moves shots with 0 to the front.

    Returns:
        Where the shots with 1 begin.
    """
    weight_of_zero, weight = np.float64(zero), np.float64(zero) + np.float64(one)
    middle = low
    for i in range(low, high):
        shot = order[i]
        if _uniform(seed, shot, qubit) * weight >= weight_of_zero:
            bits[circuit, shot, qubit] = 1
        else:
            bits[circuit, shot, qubit] = 0
            order[i], order[middle] = order[middle], shot
            middle += 1
    return middle


@njit(**_JIT)
def _product(m, n):  # type: ignore[no-untyped-def]
    """Matrix product m·n."""
    return (
        m[0] * n[0] - m[1] * n[1] + m[2] * n[4] - m[3] * n[5],
        m[0] * n[1] + m[1] * n[0] + m[2] * n[5] + m[3] * n[4],
        m[0] * n[2] - m[1] * n[3] + m[2] * n[6] - m[3] * n[7],
        m[0] * n[3] + m[1] * n[2] + m[2] * n[7] + m[3] * n[6],
        m[4] * n[0] - m[5] * n[1] + m[6] * n[4] - m[7] * n[5],
        m[4] * n[1] + m[5] * n[0] + m[6] * n[5] + m[7] * n[4],
        m[4] * n[2] - m[5] * n[3] + m[6] * n[6] - m[7] * n[7],
        m[4] * n[3] + m[5] * n[2] + m[6] * n[7] + m[7] * n[6],
    )


@njit(**_JIT)
def _scaled_rows(ar, ai, cr, ci, m):  # type: ignore[no-untyped-def]
    """diag(a, c)·m."""
    return (
        ar * m[0] - ai * m[1],
        ar * m[1] + ai * m[0],
        ar * m[2] - ai * m[3],
        ar * m[3] + ai * m[2],
        cr * m[4] - ci * m[5],
        cr * m[5] + ci * m[4],
        cr * m[6] - ci * m[7],
        cr * m[7] + ci * m[6],
    )


@njit(**_JIT)
def _leaf_amplitudes(before, after):  # type: ignore[no-untyped-def]
    """What measuring a fresh qubit right after its only CZ multiplies the partner by.

    Returns:
        Matrix whose row m holds the factors of the partner's |0> and |1> when the outcome is m: U₀v₀ ± U₁v₁.
    """
    u, v = after, before
    zero = (u[0] * v[0] - u[1] * v[1], u[0] * v[1] + u[1] * v[0], u[4] * v[0] - u[5] * v[1], u[4] * v[1] + u[5] * v[0])
    one = (u[2] * v[4] - u[3] * v[5], u[2] * v[5] + u[3] * v[4], u[6] * v[4] - u[7] * v[5], u[6] * v[5] + u[7] * v[4])
    return (
        zero[0] + one[0],
        zero[1] + one[1],
        zero[0] - one[0],
        zero[1] - one[1],
        zero[2] + one[2],
        zero[3] + one[3],
        zero[2] - one[2],
        zero[3] - one[3],
    )


@njit(**_JIT)
def _square(re, im):  # type: ignore[no-untyped-def]
    return re * re + im * im


@njit(**_JIT)
def _enter(re, im, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """A qubit in state (m00, m10) takes a free position."""
    if position < LANE_BITS:
        apply(re, im, source, target, width, position, m)
    else:
        grow(re, im, source, target, width, m)


@njit(**_JIT)
def _run_part(seed, circuit, gates, final, program, first, last, re, im, shots, order, frames, bits):  # type: ignore[no-untyped-def]
    """Run steps first..last-1, which begin with an empty register, for every shot."""
    base, low, high, depth, pc = 0, 0, shots, 0, first
    store(re, 0, splat(np.float32(0.0)))
    store(im, 0, splat(np.float32(0.0)))
    re[0] = 1.0
    while True:
        if pc == last:
            if depth == 0:
                return
            depth -= 1
            pc, base, low, high = frames[depth, 0], frames[depth, 1], frames[depth, 2], frames[depth, 3]
            continue
        kind, p, k = program[pc, steps.KIND], program[pc, steps.QUBIT_A], program[pc, steps.QUBIT_B]
        position_p, position_k, width = (
            program[pc, steps.POSITION_A],
            program[pc, steps.POSITION_B],
            program[pc, steps.WIDTH],
        )
        gate_p, gate_k = (
            gate_matrix(gates, program[pc, steps.GATE_A]),
            gate_matrix(gates, max(program[pc, steps.GATE_B], 0)),
        )
        step = pc
        pc += 1
        if kind == steps.GATES:
            apply(re, im, base, base, width, position_p, gate_p)
            apply(re, im, base, base, width, position_k, gate_k)
            apply_cz(re, im, base, width, position_p, position_k)
            continue
        if kind == steps.START:
            _enter(re, im, base, base, width, position_p, gate_p)
            continue
        if kind == steps.JOIN:
            if program[step, steps.GATE_B] >= 0:
                apply(re, im, base, base, width, position_k, gate_k)
            _enter(re, im, base, base, width, position_p, gate_p)
            apply_cz(re, im, base, max(width, position_p + 1), position_p, position_k)
            continue
        # the others measure a qubit: weights of its outcomes, then its outcome in every shot, then one copy per outcome
        measured, mix, flipped = p, gate_p, gate_p
        if kind == steps.LEAF:
            zero, one = weigh(re, im, base, width, position_k, gate_k)
            mix = _leaf_amplitudes(gate_p, gate_matrix(gates, final + p))
            weight_0 = _square(mix[0], mix[1]) * zero + _square(mix[2], mix[3]) * one
            weight_1 = _square(mix[4], mix[5]) * zero + _square(mix[6], mix[7]) * one
        elif kind == steps.MEASURE:
            weight_0, weight_1 = weigh(re, im, base, width, position_p, gate_p)
        elif kind == steps.HANDOVER:
            measured = k
            after = gate_matrix(gates, final + k)
            mix = _product(after, gate_k)
            flipped = _product(
                (after[0], after[1], -after[2], -after[3], after[4], after[5], -after[6], -after[7]), gate_k
            )
            zero, one = weigh(re, im, base, width, position_k, mix)
            flipped_zero, flipped_one = weigh(re, im, base, width, position_k, flipped)
            square_0, square_1 = _square(gate_p[0], gate_p[1]), _square(gate_p[4], gate_p[5])
            weight_0 = square_0 * zero + square_1 * flipped_zero
            weight_1 = square_0 * one + square_1 * flipped_one
        else:  # LEAF_START, PAIR
            mix = _leaf_amplitudes(gate_p, gate_matrix(gates, final + p))
            square_0, square_1 = _square(gate_k[0], gate_k[1]), _square(gate_k[4], gate_k[5])
            weight_0 = _square(mix[0], mix[1]) * square_0 + _square(mix[2], mix[3]) * square_1
            weight_1 = _square(mix[4], mix[5]) * square_0 + _square(mix[6], mix[7]) * square_1
        middle = _draw(seed, circuit, measured, weight_0, weight_1, order, low, high, bits)
        if kind == steps.PAIR:
            for outcome in range(2):
                zero, one = _partner_weights(outcome, mix, gate_k, gate_matrix(gates, final + k))
                start, stop = (low, middle) if outcome == 0 else (middle, high)
                _draw(seed, circuit, k, zero, one, order, start, stop, bits)
            continue
        is_split = low < middle < high
        source = base
        if is_split:
            frames[depth, 0], frames[depth, 1], frames[depth, 2], frames[depth, 3] = pc, base, middle, high
            depth += 1
            high = middle
            base += 1 << (max(width, position_k + 1) if kind == steps.LEAF_START else width)
        if middle > low:
            scale = np.float32(1.0 / math.sqrt(weight_0))
            _collapse(kind, 0, scale, re, im, source, base, width, position_p, position_k, gate_p, gate_k, mix, flipped)
        if middle == low or is_split:
            scale = np.float32(1.0 / math.sqrt(weight_1))
            _collapse(
                kind, 1, scale, re, im, source, source, width, position_p, position_k, gate_p, gate_k, mix, flipped
            )


@njit(**_JIT)
def _partner_weights(outcome, mix, before, after):  # type: ignore[no-untyped-def]
    """Weights of a fresh qubit's outcomes behind its only CZ, when the other one's outcome is known."""
    s = _scaled_column(outcome, mix, before)
    u = after
    return (
        _square(
            u[0] * s[0] - u[1] * s[1] + u[2] * s[2] - u[3] * s[3], u[0] * s[1] + u[1] * s[0] + u[2] * s[3] + u[3] * s[2]
        ),
        _square(
            u[4] * s[0] - u[5] * s[1] + u[6] * s[2] - u[7] * s[3], u[4] * s[1] + u[5] * s[0] + u[6] * s[3] + u[7] * s[2]
        ),
    )


@njit(**_JIT)
def _row(outcome, m):  # type: ignore[no-untyped-def]
    """One row of a matrix."""
    return (m[4], m[5], m[6], m[7]) if outcome else (m[0], m[1], m[2], m[3])


@njit(**_JIT)
def _scaled_column(outcome, mix, before):  # type: ignore[no-untyped-def]
    """State of a fresh qubit behind its CZ with a measured leaf: row ``outcome`` of mix times the first column."""
    f = _row(outcome, mix)
    a, b, c, d = before[0], before[1], before[4], before[5]
    return f[0] * a - f[1] * b, f[0] * b + f[1] * a, f[2] * c - f[3] * d, f[2] * d + f[3] * c


@njit(**_JIT)
def _collapse(
    kind, outcome, scale, re, im, source, target, width, position_p, position_k, gate_p, gate_k, mix, flipped
):  # type: ignore[no-untyped-def]
    """Write the register that is left when a step's measurement gave ``outcome``, normalised by ``scale``."""
    zero = np.float32(0.0)
    if kind == steps.MEASURE:
        r = _row(outcome, gate_p)
        m = (scale * r[0], scale * r[1], scale * r[2], scale * r[3], zero, zero, zero, zero)
        if width == LANE_BITS:
            apply(re, im, source, target, width, position_p, m)
        else:
            shrink(re, im, source, target, width, position_p, m)
        return
    if kind == steps.LEAF:
        f = _row(outcome, mix)
        m = _scaled_rows(scale * f[0], scale * f[1], scale * f[2], scale * f[3], gate_k)
    elif kind == steps.HANDOVER:
        r, t = _row(outcome, mix), _row(outcome, flipped)
        m = _scaled_rows(
            scale * gate_p[0],
            scale * gate_p[1],
            scale * gate_p[4],
            scale * gate_p[5],
            (r[0], r[1], r[2], r[3], t[0], t[1], t[2], t[3]),
        )
    else:
        s = _scaled_column(outcome, mix, gate_k)
        m = (scale * s[0], scale * s[1], zero, zero, scale * s[2], scale * s[3], zero, zero)
        _enter(re, im, source, target, width, position_k, m)
        return
    apply(re, im, source, target, width, position_k, m)


@njit(**_JIT)
def sample_circuits(angles, pairs, seeds, scratch, start, stop, bits):  # type: ignore[no-untyped-def]
    """Measure circuits start..stop-1 of a batch; uint8 (B, S, N) out."""
    columns, running, gates, re, im, entanglers, planning, program, ends, frames, order = scratch
    num_qubits, shots = angles.shape[2], bits.shape[1]
    for c in range(start, stop):
        rotation_columns(angles, c, columns)
        count = merge_rotations(pairs, c, num_qubits, columns, running, gates, entanglers)
        num_parts = plan(entanglers, count, num_qubits, planning, program, ends)
        for shot in range(shots):
            order[shot] = shot
        first = 0
        for part in range(num_parts):
            _run_part(seeds[c], c, gates, 2 * count, program, first, ends[part], re, im, shots, order, frames, bits)
            first = ends[part]
        for q in range(num_qubits):
            if planning[steps.LAST, q] < 0:
                zero, one = np.float32(0.0), np.float32(0.0)
                zero = _square(gates[2 * count + q, 0], gates[2 * count + q, 1])
                one = _square(gates[2 * count + q, 2], gates[2 * count + q, 3])
                _draw(seeds[c], c, q, zero, one, order, 0, shots, bits)
