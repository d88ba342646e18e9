"""The 2×2 matrices of the statevector simulator, eight float32 each: what a step of a program does to one position.

Order: Re m00, Im m00, Re m01, Im m01, Re m10, Im m10, Re m11, Im m11.
"""

import numpy as np

from qpu_service.backends import program as steps
from qpu_service.backends.jit import kernel

IDENTITY = tuple(np.float32(value) for value in (1, 0, 0, 0, 0, 0, 1, 0))


@kernel()
def square(re, im):  # type: ignore[no-untyped-def]
    """|z|²."""
    return re * re + im * im


@kernel()
def gate_matrix(gates, index):  # type: ignore[no-untyped-def]
    """[[a, -b*], [b, a*]] of a row of merged rotations."""
    ar, ai, br, bi = gates[index, 0], gates[index, 1], gates[index, 2], gates[index, 3]
    return ar, ai, -br, bi, br, bi, ar, -ai


@kernel()
def multiply(m, n):  # type: ignore[no-untyped-def]
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


@kernel()
def leaf_matrix(before, after):  # type: ignore[no-untyped-def]
    """What measuring a fresh qubit behind its only CZ multiplies its partner by.

    Args:
        before: rotations u before the CZ; the qubit's state is their first column.
        after: rotations w between the CZ and the measurement.

    Returns:
        Matrix with factors of the partner's |0> and |1> in row m, for outcome m: w_m0·u_00 ± w_m1·u_10.
    """
    u, w = before, after
    return (
        (w[0] * u[0] - w[1] * u[1]) + (w[2] * u[4] - w[3] * u[5]),
        (w[0] * u[1] + w[1] * u[0]) + (w[2] * u[5] + w[3] * u[4]),
        (w[0] * u[0] - w[1] * u[1]) - (w[2] * u[4] - w[3] * u[5]),
        (w[0] * u[1] + w[1] * u[0]) - (w[2] * u[5] + w[3] * u[4]),
        (w[4] * u[0] - w[5] * u[1]) + (w[6] * u[4] - w[7] * u[5]),
        (w[4] * u[1] + w[5] * u[0]) + (w[6] * u[5] + w[7] * u[4]),
        (w[4] * u[0] - w[5] * u[1]) - (w[6] * u[4] - w[7] * u[5]),
        (w[4] * u[1] + w[5] * u[0]) - (w[6] * u[5] + w[7] * u[4]),
    )


@kernel(inline="always")
def measurement_matrices(kind, gate_p, gate_k, after):  # type: ignore[no-untyped-def]
    """What the outcome of a LEAF's or HANDOVER's measurement depends on.

    Args:
        kind: LEAF or HANDOVER.
        gate_p: rotations of p before the CZ.
        gate_k: rotations of k before the CZ.
        after: rotations between the CZ and the measurement.

    Returns:
        LEAF: ``leaf_matrix``, twice. HANDOVER: all rotations of k, without and with the CZ's flip between them.
    """
    if kind == steps.LEAF:
        mix = leaf_matrix(gate_p, after)
        return mix, mix
    flipped = after[0], after[1], -after[2], -after[3], after[4], after[5], -after[6], -after[7]
    return multiply(after, gate_k), multiply(flipped, gate_k)


@kernel()
def measured_map(kind, outcome, gate_p, gate_k, mix, flipped):  # type: ignore[no-untyped-def]
    """What a step does to its position when its measurement gave ``outcome``; not normalised.

    MEASURE keeps row ``outcome`` of p's rotations. LEAF multiplies k, after its rotations, by the leaf's factors.
    HANDOVER puts p's amplitudes in front of k's measured row: unflipped for p = 0, flipped by the CZ for p = 1.
    """
    zero = np.float32(0.0)
    first = mix if outcome == 0 else (mix[4], mix[5], mix[6], mix[7], zero, zero, zero, zero)
    a, b, c, d = first[0], first[1], first[2], first[3]
    if kind == steps.MEASURE:
        return a, b, c, d, zero, zero, zero, zero
    if kind == steps.LEAF:
        g = gate_k
        return (
            a * g[0] - b * g[1],
            a * g[1] + b * g[0],
            a * g[2] - b * g[3],
            a * g[3] + b * g[2],
            c * g[4] - d * g[5],
            c * g[5] + d * g[4],
            c * g[6] - d * g[7],
            c * g[7] + d * g[6],
        )
    second = flipped if outcome == 0 else (flipped[4], flipped[5], flipped[6], flipped[7], zero, zero, zero, zero)
    p, q, r, s = gate_p[0], gate_p[1], gate_p[4], gate_p[5]
    return (
        p * a - q * b,
        p * b + q * a,
        p * c - q * d,
        p * d + q * c,
        r * second[0] - s * second[1],
        r * second[1] + s * second[0],
        r * second[2] - s * second[3],
        r * second[3] + s * second[2],
    )
