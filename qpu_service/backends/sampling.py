"""Third part of the statevector simulator: runs a circuit's program for all of its shots.

Shots travel together until a measurement tells them apart; then each group follows its own copy of the register, one
group after the other. Every number drawn depends on (circuit seed, shot, qubit) alone, never on the order of the work.
"""

import numpy as np

from qpu_service.backends import program as steps
from qpu_service.backends.jit import entry_kernel, kernel
from qpu_service.backends.maps import IDENTITY, gate_matrix, measured_map, measurement_matrices, square
from qpu_service.backends.register import LANE_BITS, apply, apply_cz, clear, grow, shrink, weigh
from qpu_service.backends.rotations import merge_rotations, rotation_columns
from qpu_service.backends.wide import (
    WIDE_BITS,
    wide_apply,
    wide_entangle,
    wide_grow,
    wide_shrink,
    wide_weigh,
)

# Numba compiles a function anew for every literal it is called with: these keep it at one version each.
_ZERO = np.int64(0)
_STAYS = np.bool_(False)


@entry_kernel
def sample_circuits(angles, pairs, seeds, scratch, start, stop, bits):  # type: ignore[no-untyped-def]
    """Measure circuits start..stop-1 of a batch; uint8 (B, S, N) out."""
    columns, running, gates, state, team, entanglers, planning, program, ends, frames, order = scratch
    num_qubits, shots = angles.shape[2], bits.shape[1]
    for c in range(start, stop):
        rotation_columns(angles, c, columns)
        count = merge_rotations(pairs, c, num_qubits, columns, running, gates, entanglers)
        num_parts = steps.plan(entanglers, count, num_qubits, planning, program, ends)
        for shot in range(shots):
            order[shot] = shot
        first = _ZERO
        for part in range(num_parts):
            last = ends[part]
            _run_part(seeds[c], c, gates, 2 * count, program, first, last, state, team, shots, order, frames, bits)
            first = last
        for q in range(num_qubits):
            if planning[steps.LAST, q] < 0:
                m = gate_matrix(gates, 2 * count + q)
                _draw(seeds[c], c, q, square(m[0], m[1]), square(m[4], m[5]), order, _ZERO, shots, bits)


@entry_kernel
def widest_register(pairs, circuit, num_qubits, scratch, planning):  # type: ignore[no-untyped-def]
    """Most positions that a circuit's register has when all of its shots travel together."""
    entanglers = scratch[5]
    lanes, program, ends, _, _ = planning
    count = _ZERO
    for layer in range(pairs.shape[1] - 1):
        p, k = np.int64(pairs[circuit, layer, 0]), np.int64(pairs[circuit, layer, 1])
        if p != k:
            entanglers[count, 0], entanglers[count, 1] = p, k
            count += 1
    num_parts = steps.plan(entanglers, count, num_qubits, lanes, program, ends)
    widest = np.int64(LANE_BITS)
    for step in range(ends[num_parts - 1] if num_parts > 0 else 0):
        widest = max(widest, program[step, steps.WIDTH])
    return widest


@kernel()
def _run_part(seed, circuit, gates, final, program, first, last, state, team, shots, order, frames, bits):  # type: ignore[no-untyped-def]
    """Run steps first..last-1, which begin with an empty register, for every shot.

    A group of shots is order[low:high] with its register at ``base``. Where a measurement splits it, the shots with
    outcome 1 wait in ``frames``, and the others go on with a copy of the register above.
    """
    base, low, high, depth, step = _ZERO, _ZERO, shots, _ZERO, first
    clear(state)
    while step < last or depth > 0:
        if step == last:
            depth -= 1
            step, base, low, high = frames[depth, 0], frames[depth, 1], frames[depth, 2], frames[depth, 3]
            continue
        kind, width = program[step, steps.KIND], program[step, steps.WIDTH]
        if kind == steps.ENTANGLE:
            _entangle(gates, program, step, state, team, base, width)
            step += 1
            continue
        is_measure = kind == steps.MEASURE
        measured = program[step, steps.QUBIT_B if kind == steps.HANDOVER else steps.QUBIT_A]
        position = program[step, steps.POSITION_A if is_measure else steps.POSITION_B]
        enters = program[step, steps.ENTERS_B] != 0
        gate_p = gate_matrix(gates, program[step, steps.GATE_A])
        gate_k, mix, flipped = gate_p, gate_p, gate_p
        if not is_measure:
            gate_k = gate_matrix(gates, program[step, steps.GATE_B])
            mix, flipped = measurement_matrices(kind, gate_p, gate_k, gate_matrix(gates, final + measured))
        zero, one = _weights(kind, enters, state, team, base, width, position, gate_p, gate_k, mix, flipped)
        middle = _draw(seed, circuit, measured, zero, one, order, low, high, bits)
        step += 1
        source = base
        is_split = low < middle < high
        if is_split:
            frames[depth, 0], frames[depth, 1], frames[depth, 2], frames[depth, 3] = step, base, middle, high
            depth += 1
            base += 2 << (max(width, position + 1) if enters else width)
        for outcome in range(0 if middle > low else 1, 2 if middle < high else 1):
            m = measured_map(kind, outcome, gate_p, gate_k, mix, flipped)
            target = base if outcome == 0 else source
            _write(is_measure, state, team, source, target, width, position, m)
        if is_split:
            high = middle


@kernel(inline="always")
def _weights(kind, enters, state, team, base, width, position, gate_p, gate_k, mix, flipped):  # type: ignore[no-untyped-def]
    """Weights of the outcomes 0 and 1 of a step's measurement."""
    is_handover, is_leaf = kind == steps.HANDOVER, kind == steps.LEAF
    first_zero, first_one = square(gate_k[0], gate_k[1]), square(gate_k[4], gate_k[5])
    zero, one = first_zero, first_one
    for repeat in range(0 if enters else 2 if is_handover else 1):
        first_zero, first_one = zero, one
        m = gate_k if is_leaf else mix if repeat == 0 else flipped
        zero, one = _weigh(state, team, base, width, position, m)
    if is_leaf:  # over k's bit, with k's weights
        return (
            square(mix[0], mix[1]) * zero + square(mix[2], mix[3]) * one,
            square(mix[4], mix[5]) * zero + square(mix[6], mix[7]) * one,
        )
    if is_handover:  # over p's bit, with k's unflipped and flipped weights
        p_zero, p_one = square(gate_p[0], gate_p[1]), square(gate_p[4], gate_p[5])
        return p_zero * first_zero + p_one * zero, p_zero * first_one + p_one * one
    return zero, one


@kernel(inline="always")
def _entangle(gates, program, step, state, team, base, width):  # type: ignore[no-untyped-def]
    """Apply or enter both qubits' rotations, then the CZ."""
    p, k = program[step, steps.POSITION_A], program[step, steps.POSITION_B]
    gate_p = gate_matrix(gates, program[step, steps.GATE_A])
    gate_k = gate_matrix(gates, program[step, steps.GATE_B])
    if max(width, p + 1, k + 1) < WIDE_BITS:
        _write(_STAYS, state, team, base, base, width, k, gate_k)
        width = max(width, k + 1)
        _write(_STAYS, state, team, base, base, width, p, gate_p)
        apply_cz(state, base, max(width, p + 1), p, k)
        return
    if k >= width:
        _write(_STAYS, state, team, base, base, width, k, gate_k)
        width, gate_k = k + 1, IDENTITY
    if p >= width:
        _write(_STAYS, state, team, base, base, width, p, gate_p)
        width, gate_p = p + 1, IDENTITY
    wide_entangle(team, state, base, width, p, k, gate_p, gate_k)


@kernel()
def _write(is_leaving, state, team, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """Map a register; a position beyond its width enters, a leaving one gives its place to the highest."""
    if width >= WIDE_BITS:
        _write_wide(is_leaving, state, team, source, target, width, position, m)
    elif position >= width:
        grow(state, source, target, width, m)
    elif is_leaving and width > LANE_BITS:
        shrink(state, source, target, width, position, m)
    else:
        apply(state, source, target, width, position, m)


@kernel()
def _write_wide(is_leaving, state, team, source, target, width, position, m):  # type: ignore[no-untyped-def]
    if position >= width:
        wide_grow(team, state, source, target, width, m)
    elif is_leaving:
        wide_shrink(team, state, source, target, width, position, m)
    else:
        wide_apply(team, state, source, target, width, position, m)


@kernel()
def _weigh(state, team, source, width, position, m):  # type: ignore[no-untyped-def]
    """Weights of both outcomes of a position, after its map."""
    if width >= WIDE_BITS:
        return wide_weigh(team, state, source, width, position, m)
    return weigh(state, source, width, position, m)


@kernel()
def _draw(seed, circuit, qubit, zero, one, order, low, high, bits):  # type: ignore[no-untyped-def]
    """Measure one qubit in shots order[low:high] with weights of 0 and 1; moves shots with 0 to the front.

    Returns:
        Where the shots with 1 begin.
    """
    weight_of_zero, weight = np.float64(zero), np.float64(zero) + np.float64(one)
    middle = low
    for i in range(low, high):
        shot = order[i]
        is_one = _uniform(seed, shot, qubit) * weight >= weight_of_zero
        other = order[middle]  # no branch: nothing could predict it
        order[i] = shot if is_one else other
        order[middle] = other if is_one else shot
        bits[circuit, shot, qubit] = is_one
        middle += 1 - is_one
    return middle


@kernel()
def _uniform(seed, shot, qubit):  # type: ignore[no-untyped-def]
    """Uniform number in [0, 1) that depends on its arguments alone: SplitMix64, 53 bits."""
    z = (seed ^ np.uint64(0x6A09E667F3BCC909)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(31))) + (np.uint64(shot * 32 + qubit) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 1.1102230246251565e-16
