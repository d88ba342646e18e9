"""Plan of one circuit: in which order its entanglers act, where each qubit sits, and when it is measured.

Gates and measurements of different qubits commute, so two things are free to choose, and both keep the register small:

* A qubit is measured as soon as its last CZ is done, and leaves. A qubit whose only CZ this is never enters.
* Of the entanglers that may act next, the one that leaves fewest qubits in the register goes first.

What is sampled is still exactly the circuit's distribution, yet random circuits of 10 qubits and 10 layers hold three
qubits at once in the mean, those of 20 qubits and 20 layers five. Must never touch a state.
"""

from numba import njit

from qpu_service.backends.register import LANE_BITS

START, JOIN, LEAF_START, LEAF, HANDOVER, GATES, MEASURE, PAIR = range(8)
"""Kinds of step; p is QUBIT_A and k is QUBIT_B, a "fresh" qubit is not in the register yet.

START       k enters
JOIN        p enters, CZ with k
LEAF_START  CZ of two fresh qubits, p's only one: p is measured, k enters
LEAF        CZ of k and fresh p, p's only one: p is measured
HANDOVER    CZ of k and fresh p, k's last one: k is measured, p takes its position
GATES       CZ of two qubits in the register
MEASURE     k is measured and leaves
PAIR        CZ of two fresh qubits, the only one of both: both are measured
"""

KIND, QUBIT_A, QUBIT_B, POSITION_A, POSITION_B, GATE_A, GATE_B, WIDTH, NUM_FIELDS = range(9)
"""Columns of a program. GATE_x is the row of merged rotations to apply before the CZ, -1 for none. WIDTH is the register's
before the step."""

_HEAD, LAST, _POSITION, _OWNER, _NEXT_A, _NEXT_B, _FILL, _READY = range(8)
"""Rows of the scratch; LAST is left with each qubit's last CZ, -1 for none."""
_NUM_PRIORITIES = 5
NUM_SCRATCH_ROWS = _READY + _NUM_PRIORITIES

_JIT = {"nogil": True, "cache": True, "error_model": "numpy"}


@njit(**_JIT)
def plan(entanglers, count, num_qubits, scratch, program, ends):  # type: ignore[no-untyped-def]
    """Write the program of one circuit.

    Args:
        entanglers: int64 (≥ count, 2), qubits of the CZs in time order.
        count: number of CZs.
        num_qubits: N.
        scratch: int64 (NUM_SCRATCH_ROWS, ≥ max(N, count) + LANE_BITS).
        program: int64 (≥ 3·count, NUM_FIELDS) out.
        ends: int64 (≥ count) out; the register is empty after step ``ends[i] - 1``, so parts are independent.

    Returns:
        Number of parts.
    """
    _link(entanglers, count, num_qubits, scratch)
    final = 2 * count
    width, step, part = LANE_BITS, 0, 0
    for _ in range(count):
        e = _take_ready(scratch)
        p, k, gate_p, gate_k = entanglers[e, 0], entanglers[e, 1], 2 * e, 2 * e + 1
        if _is_swapped(p, k, e, scratch):
            p, k, gate_p, gate_k = k, p, gate_k, gate_p
        p_ends, k_ends, k_is_fresh = scratch[LAST, p] == e, scratch[LAST, k] == e, scratch[_POSITION, k] < 0
        if scratch[_POSITION, p] >= 0:
            step = _emit(program, step, GATES, p, k, scratch, gate_p, gate_k, width)
            if p_ends:
                step = _emit(program, step, MEASURE, p, p, scratch, final + p, -1, width)
                width = _leave(p, width, scratch)
            if k_ends:
                step = _emit(program, step, MEASURE, k, k, scratch, final + k, -1, width)
                width = _leave(k, width, scratch)
        elif p_ends:
            if not k_is_fresh:
                step = _emit(program, step, LEAF, p, k, scratch, gate_p, gate_k, width)
                if k_ends:
                    step = _emit(program, step, MEASURE, k, k, scratch, final + k, -1, width)
                    width = _leave(k, width, scratch)
            elif k_ends:
                step = _emit(program, step, PAIR, p, k, scratch, gate_p, gate_k, width)
            else:
                entered = _enter(k, width, scratch)
                step = _emit(program, step, LEAF_START, p, k, scratch, gate_p, gate_k, width)
                width = entered
        elif k_ends:
            scratch[_OWNER, scratch[_POSITION, k]], scratch[_POSITION, p] = p, scratch[_POSITION, k]
            step = _emit(program, step, HANDOVER, p, k, scratch, gate_p, gate_k, width)
            scratch[_POSITION, k] = -1
        else:
            if k_is_fresh:
                entered = _enter(k, width, scratch)
                step = _emit(program, step, START, k, k, scratch, gate_k, -1, width)
                width, gate_k = entered, -1
            entered = _enter(p, width, scratch)
            step = _emit(program, step, JOIN, p, k, scratch, gate_p, gate_k, width)
            width = entered
        _advance(e, entanglers, scratch)
        if (
            width == LANE_BITS
            and scratch[_OWNER, 0] < 0
            and scratch[_OWNER, 1] < 0
            and scratch[_OWNER, 2] < 0
            and scratch[_OWNER, 3] < 0
        ):
            ends[part] = step
            part += 1
    return part


@njit(**_JIT)
def _link(entanglers, count, num_qubits, scratch):  # type: ignore[no-untyped-def]
    """Chain each qubit's entanglers in time order and collect those that may act first."""
    for q in range(num_qubits):
        scratch[_HEAD, q], scratch[LAST, q], scratch[_POSITION, q] = -1, -1, -1
    for place in range(num_qubits + LANE_BITS):
        scratch[_OWNER, place] = -1
    for priority in range(_NUM_PRIORITIES):
        scratch[_FILL, priority] = 0
    for e in range(count - 1, -1, -1):
        p, k = entanglers[e, 0], entanglers[e, 1]
        scratch[_NEXT_A, e], scratch[_NEXT_B, e] = scratch[_HEAD, p], scratch[_HEAD, k]
        scratch[LAST, p] = e if scratch[LAST, p] < 0 else scratch[LAST, p]
        scratch[LAST, k] = e if scratch[LAST, k] < 0 else scratch[LAST, k]
        scratch[_HEAD, p], scratch[_HEAD, k] = e, e
    for e in range(count - 1, -1, -1):
        if scratch[_HEAD, entanglers[e, 0]] == e and scratch[_HEAD, entanglers[e, 1]] == e:
            _add_ready(e, entanglers, scratch)


@njit(**_JIT)
def _add_ready(e, entanglers, scratch):  # type: ignore[no-untyped-def]
    """File a CZ whose predecessors have acted under the number of qubits by which it widens the register, plus 2.

    The number can't change while the CZ waits: only this CZ may touch its two qubits next.
    """
    p, k = entanglers[e, 0], entanglers[e, 1]
    priority = 2
    for q in (p, k):
        if scratch[_POSITION, q] < 0:
            priority += scratch[LAST, q] != e
        else:
            priority -= scratch[LAST, q] == e
    fill = scratch[_FILL, priority]
    scratch[_READY + priority, fill] = e
    scratch[_FILL, priority] = fill + 1


@njit(**_JIT)
def _take_ready(scratch):  # type: ignore[no-untyped-def]
    """Newest CZ of the lowest priority: stays with the qubits that are already in the register."""
    priority = 0
    while scratch[_FILL, priority] == 0:
        priority += 1
    scratch[_FILL, priority] -= 1
    return scratch[_READY + priority, scratch[_FILL, priority]]


@njit(**_JIT)
def _advance(e, entanglers, scratch):  # type: ignore[no-untyped-def]
    """Step past a CZ and file those that it held up."""
    p, k = entanglers[e, 0], entanglers[e, 1]
    scratch[_HEAD, p], scratch[_HEAD, k] = scratch[_NEXT_A, e], scratch[_NEXT_B, e]
    for q in (p, k):
        following = scratch[_HEAD, q]
        if following >= 0:
            first, second = entanglers[following, 0], entanglers[following, 1]
            is_same_pair = scratch[_HEAD, p] == scratch[_HEAD, k]
            if (
                scratch[_HEAD, first] == following
                and scratch[_HEAD, second] == following
                and not (is_same_pair and q == k)
            ):
                _add_ready(following, entanglers, scratch)


@njit(**_JIT)
def _is_swapped(p, k, e, scratch):  # type: ignore[no-untyped-def]
    """Whether k has to take p's part: the fresh qubit of the two, or the one that ends where both are fresh."""
    if scratch[_POSITION, p] >= 0:
        return scratch[_POSITION, k] < 0
    return scratch[_POSITION, k] < 0 and scratch[LAST, p] != e and scratch[LAST, k] == e


@njit(**_JIT)
def _enter(qubit, width, scratch):  # type: ignore[no-untyped-def]
    """Give a qubit the lowest free position; returns the width that the register then has."""
    place = 0
    while scratch[_OWNER, place] >= 0:
        place += 1
    scratch[_OWNER, place], scratch[_POSITION, qubit] = qubit, place
    return max(width, place + 1)


@njit(**_JIT)
def _leave(qubit, width, scratch):  # type: ignore[no-untyped-def]
    """Free a qubit's position; in a register wider than one vector the highest qubit moves there."""
    place = scratch[_POSITION, qubit]
    scratch[_POSITION, qubit] = -1
    if width == LANE_BITS:
        scratch[_OWNER, place] = -1
        return width
    top = width - 1
    mover = scratch[_OWNER, top]
    scratch[_OWNER, top] = -1
    if place != top:
        scratch[_OWNER, place], scratch[_POSITION, mover] = mover, place
    return top


@njit(**_JIT)
def _emit(program, step, kind, qubit_a, qubit_b, scratch, gate_a, gate_b, width):  # type: ignore[no-untyped-def]
    program[step, KIND], program[step, WIDTH] = kind, width
    program[step, QUBIT_A], program[step, QUBIT_B] = qubit_a, qubit_b
    program[step, POSITION_A], program[step, POSITION_B] = scratch[_POSITION, qubit_a], scratch[_POSITION, qubit_b]
    program[step, GATE_A], program[step, GATE_B] = gate_a, gate_b
    return step + 1
