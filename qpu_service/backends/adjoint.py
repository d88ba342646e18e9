"""Exact bit means of a circuit and their gradient in its angles: reverse-mode ("adjoint") differentiation.

With weights v, f = Σ_q v_q·P(bit_q = 1) = <ψ|D|ψ>. The state is evolved once; then ψ and λ = D·ψ go back gate by gate
together, and what a gate contributes is read off their overlap at its qubit (Jones and Gacon 2020, arXiv:2009.02823).
Two things make it cheap here. Qubits that no CZ connects are simulated apart. And the overlap gives the derivative in
a small turn about x, y and z right after a *merged* gate (rotations.py): a vector that the chain of rotations inside
the gate carries back as an ordinary rotation in space, so that a single rotation never touches a state.

The CZs' qubit indices have no derivative.
"""

import math

import numpy as np

from qpu_service.backends.jit import entry_kernel, kernel
from qpu_service.backends.lanes import get
from qpu_service.backends.maps import gate_matrix
from qpu_service.backends.overlap import add_applied, overlap
from qpu_service.backends.register import LANE_BITS, apply, apply_cz, clear, grow
from qpu_service.backends.rotations import merge_rotations, rotation_columns

_KET = np.int64(0)
"""Where ψ begins; a number with a type, so that Numba compiles no second version for a literal."""

_COMPONENT, _PLACE, _FIRST_GATE, NUM_MARKS = range(4)
"""Rows of the marks, one column per qubit: the lowest qubit that it is connected with, its position in the register
of these, and its first gate (−1 without a CZ)."""


@entry_kernel
def differentiate_means(angles, pairs, weights, scratch, marks, turns, start, stop, means, gradients):  # type: ignore[no-untyped-def]
    """Bit means of circuits start..stop-1 and the gradient of their weighted sum.

    Args:
        angles: float32 (B, M, N, 2), rad.
        pairs: int16 (B, M, 2).
        weights: float32 (B, N), v.
        scratch: as of ``statevector.make_scratch``.
        marks: int64 (NUM_MARKS, N), scratch.
        turns: float64 (2M + N, 3), scratch.
        start: first circuit.
        stop: one past the last circuit.
        means: float32 (B, N) out.
        gradients: float32 (B, M, N, 2) out, d Σ_q v_q·means_q / d angle, 1/rad.
    """
    columns, running, gates, entanglers = scratch[0], scratch[1], scratch[2], scratch[-1]
    num_qubits = angles.shape[2]
    for c in range(start, stop):
        rotation_columns(angles, c, columns)
        count = merge_rotations(pairs, c, num_qubits, columns, running, gates, entanglers)
        _connect(entanglers, count, num_qubits, marks)
        for root in range(num_qubits):
            if marks[_COMPONENT, root] == root:
                width = _evolve(root, count, num_qubits, scratch, marks)
                _weigh_ends(root, count, width, c, weights, scratch, marks, turns, means)
                _go_back(root, count, width, scratch, marks, turns)
        _unmerge(angles, pairs, c, count, columns, turns, gradients)


@kernel()
def _connect(entanglers, count, num_qubits, marks):  # type: ignore[no-untyped-def]
    for q in range(num_qubits):
        marks[_COMPONENT, q], marks[_FIRST_GATE, q] = q, -1
    for e in range(count):
        one, other = marks[_COMPONENT, entanglers[e, 0]], marks[_COMPONENT, entanglers[e, 1]]
        for q in range(num_qubits):
            if marks[_COMPONENT, q] == max(one, other):
                marks[_COMPONENT, q] = min(one, other)
    for gate in range(2 * count - 1, -1, -1):
        marks[_FIRST_GATE, entanglers[gate // 2, gate % 2]] = gate
    for root in range(num_qubits):
        place = 0
        for q in range(root, num_qubits):
            if marks[_COMPONENT, q] == root:
                marks[_PLACE, q] = place
                place += 1


@kernel()
def _evolve(root, count, num_qubits, scratch, marks):  # type: ignore[no-untyped-def]
    """State of one component before the rotations that precede its measurements; returns its register's width."""
    gates, state, entanglers = scratch[2], scratch[3], scratch[-1]
    clear(state)
    width = np.int64(LANE_BITS)
    for q in range(root, num_qubits):
        if marks[_COMPONENT, q] != root or marks[_FIRST_GATE, q] < 0:
            continue
        m = gate_matrix(gates, marks[_FIRST_GATE, q])
        if marks[_PLACE, q] < LANE_BITS:
            apply(state, _KET, _KET, width, marks[_PLACE, q], m)
        else:
            grow(state, _KET, _KET, width, m)
            width += 1
    for e in range(count):
        if marks[_COMPONENT, entanglers[e, 0]] != root:
            continue
        for side in range(2):
            q = entanglers[e, side]
            if marks[_FIRST_GATE, q] != 2 * e + side:
                apply(state, _KET, _KET, width, marks[_PLACE, q], gate_matrix(gates, 2 * e + side))
        apply_cz(state, _KET, width, marks[_PLACE, entanglers[e, 0]], marks[_PLACE, entanglers[e, 1]])
    return width


@kernel()
def _weigh_ends(root, count, width, circuit, weights, scratch, marks, turns, means):  # type: ignore[no-untyped-def]
    """Bit means of one component, turns of the rotations W before its measurements, and λ = Σ_q v_q·W†|1><1|W·ψ."""
    gates, state = scratch[2], scratch[3]
    bra = np.int64(2) << width
    is_first = True
    for q in range(root, weights.shape[1]):
        if marks[_COMPONENT, q] != root:
            continue
        t = overlap(state, _KET, _KET, width, marks[_PLACE, q])
        # <σ> = (x, y, z) of this qubit, and W = [[a, -b*], [b, a*]].
        norm = np.float64(t[0]) + np.float64(t[6])
        x, y, z = 2.0 * t[2] / norm, 2.0 * t[3] / norm, (np.float64(t[0]) - np.float64(t[6])) / norm
        a = complex(gates[2 * count + q, 0], gates[2 * count + q, 1])
        b = complex(gates[2 * count + q, 2], gates[2 * count + q, 3])
        row = 2.0 * a * b
        size_a, size_b = (a * a.conjugate()).real, (b * b.conjugate()).real
        means[circuit, q] = 0.5 * (1.0 - (size_a - size_b) * z) + 0.5 * (row.real * x + row.imag * y)
        # After W the vector is (X, Y, Z); a small turn about x or y changes P = (1 - Z)/2 by -Y/2 or X/2.
        after = a.conjugate() * b * (2.0 * z) + a.conjugate() * a.conjugate() * complex(x, y) - b * b * complex(x, -y)
        v = weights[circuit, q]
        turns[2 * count + q, 0], turns[2 * count + q, 1], turns[2 * count + q, 2] = (
            -0.5 * v * after.imag,
            0.5 * v * after.real,
            0.0,
        )
        m01 = (a * b).conjugate() * v
        m = (
            np.float32(v * size_b),
            np.float32(0.0),
            np.float32(m01.real),
            np.float32(m01.imag),
            np.float32(m01.real),
            np.float32(-m01.imag),
            np.float32(v * size_a),
            np.float32(0.0),
        )
        if is_first:
            apply(state, _KET, bra, width, marks[_PLACE, q], m)
        else:
            add_applied(state, _KET, bra, width, marks[_PLACE, q], m)
        is_first = False


@kernel()
def _go_back(root, count, width, scratch, marks, turns):  # type: ignore[no-untyped-def]
    """Undo one component's gates on ψ and λ, and write the turn of each: Im <λ|σ|ψ> right after it."""
    gates, state, entanglers = scratch[2], scratch[3], scratch[-1]
    bra = np.int64(2) << width
    for e in range(count - 1, -1, -1):
        one, other = entanglers[e, 0], entanglers[e, 1]
        if marks[_COMPONENT, one] != root:
            continue
        apply_cz(state, _KET, width, marks[_PLACE, one], marks[_PLACE, other])
        apply_cz(state, bra, width, marks[_PLACE, one], marks[_PLACE, other])
        for side in range(2):
            q, gate = entanglers[e, side], 2 * e + side
            t = overlap(state, bra, _KET, width, marks[_PLACE, q])
            turns[gate, 0], turns[gate, 1], turns[gate, 2] = t[3] + t[5], t[4] - t[2], t[1] - t[7]
            # Nothing before a qubit's first gate is asked for, and what acts on it alone changes no other overlap.
            if marks[_FIRST_GATE, q] != gate:
                m = gate_matrix(gates, gate)
                inverse = m[0], -m[1], m[4], -m[5], m[2], -m[3], m[6], -m[7]
                apply(state, _KET, _KET, width, marks[_PLACE, q], inverse)
                apply(state, bra, bra, width, marks[_PLACE, q], inverse)


@kernel()
def _unmerge(angles, pairs, circuit, count, columns, turns, gradients):  # type: ignore[no-untyped-def]
    """Carry the merged gates' turns g back through their rotations, by θ about n = (cos φ, sin φ, 0).

    df/dθ = n·g. A change of φ turns by z after the rotation and by −z before it, so df/dφ = g_z − g'_z, where g' is g
    rotated back by θ: g cos θ − n×g sin θ + n (n·g)(1 − cos θ).
    """
    num_layers, num_qubits, stride = angles.shape[1], angles.shape[2], columns.shape[1]
    running = turns[2 * count : 2 * count + num_qubits]
    e = count
    for layer in range(num_layers - 1, -1, -1):
        p, k = pairs[circuit, layer, 0], pairs[circuit, layer, 1]
        if p != k and layer < num_layers - 1:
            e -= 1
            for i in range(3):
                running[p, i], running[k, i] = turns[2 * e, i], turns[2 * e + 1, i]
        for q in range(num_qubits):
            phi = np.float64(angles[circuit, layer, q, 1])
            cos_phi, sin_phi = math.cos(phi), math.sin(phi)
            place = layer * num_qubits + q
            c = np.float64(get(columns, place))
            # sin(θ/2) with its sign, from the columns' s·sin φ and -s·cos φ
            s = get(columns, place + stride) * sin_phi - get(columns, place + 2 * stride) * cos_phi
            x, y, z = running[q, 0], running[q, 1], running[q, 2]
            along = cos_phi * x + sin_phi * y
            sine, cosine, bend = 2.0 * s * c, 1.0 - 2.0 * s * s, 2.0 * s * s * along
            back_z = z * cosine - (cos_phi * y - sin_phi * x) * sine
            gradients[circuit, layer, q, 0], gradients[circuit, layer, q, 1] = along, z - back_z
            running[q, 0] = x * cosine - sin_phi * z * sine + cos_phi * bend
            running[q, 1] = y * cosine + cos_phi * z * sine + sin_phi * bend
            running[q, 2] = back_z
