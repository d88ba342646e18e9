"""Plan of one circuit: in which order its entanglers act, where each qubit sits, and when it is measured.

Gates and measurements of different qubits commute, so two things are free to choose, and both keep the register small:

* A qubit is measured as soon as its last CZ is done, and leaves. A qubit whose only CZ this is never enters.
* Of the entanglers that may act next, the one that leaves fewest qubits in the register goes first.

What is sampled is still exactly the circuit's distribution, yet random circuits of 10 qubits and 10 layers hold three
qubits at most in the mean, those of 20 qubits and 20 layers five. Must never touch a state.
"""

from qpu_service.backends.jit import kernel
from qpu_service.backends.register import LANE_BITS

ENTANGLE, LEAF, HANDOVER, MEASURE = range(4)
"""Kinds of step; p is QUBIT_A, k is QUBIT_B.

ENTANGLE  CZ of p and k, each of which may enter now
LEAF      CZ of p and k, p's only one: p is measured without ever entering; k may enter now
HANDOVER  CZ of p and k, k's last one: k is measured and p, entering, takes its position
MEASURE   p is measured and leaves
"""

KIND, QUBIT_A, QUBIT_B, POSITION_A, POSITION_B, ENTERS_A, ENTERS_B, GATE_A, GATE_B, WIDTH, NUM_FIELDS = range(11)
"""Columns of a program. GATE_x is the row of merged rotations before the CZ, or before the measurement. WIDTH is the
register's before the step."""

_HEAD, LAST, _POSITION, _OWNER, _NEXT_A, _NEXT_B, _FILL, _READY = range(8)
"""Rows of the scratch; LAST is left with each qubit's last CZ, -1 for none."""
_NUM_PRIORITIES = 5
NUM_SCRATCH_ROWS = _READY + _NUM_PRIORITIES


@kernel()
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
    width, step, part, num_present = LANE_BITS, 0, 0, 0
    for _ in range(count):
        e = _take_ready(scratch)
        side = 1 if _is_swapped(e, entanglers, scratch) else 0
        p, k = entanglers[e, side], entanglers[e, 1 - side]
        kind = _choose_kind(e, p, k, scratch)
        p_enters, k_enters = kind == ENTANGLE and scratch[_POSITION, p] < 0, scratch[_POSITION, k] < 0
        width_before = width
        if k_enters:
            width = _enter(k, width, scratch)
        if p_enters:
            width = _enter(p, width, scratch)
        if kind == HANDOVER:
            scratch[_POSITION, p] = scratch[_POSITION, k]
            scratch[_OWNER, scratch[_POSITION, k]] = p
        program[step, KIND], program[step, WIDTH] = kind, width_before
        program[step, QUBIT_A], program[step, QUBIT_B] = p, k
        program[step, POSITION_A], program[step, POSITION_B] = scratch[_POSITION, p], scratch[_POSITION, k]
        program[step, ENTERS_A], program[step, ENTERS_B] = p_enters, k_enters
        program[step, GATE_A], program[step, GATE_B] = 2 * e + side, 2 * e + 1 - side
        step += 1
        num_present += p_enters + k_enters
        if kind == HANDOVER:
            scratch[_POSITION, k] = -1
        for q in (p, k):
            if scratch[LAST, q] == e and scratch[_POSITION, q] >= 0:
                _plan_measurement(q, 2 * count + q, width, scratch, program, step)
                step += 1
                num_present -= 1
                width = _leave(q, width, scratch)
        _advance(e, entanglers, scratch)
        if num_present == 0:
            ends[part] = step
            part += 1
    return part


@kernel()
def _choose_kind(e, p, k, scratch):  # type: ignore[no-untyped-def]
    if scratch[_POSITION, p] < 0:
        if scratch[LAST, p] == e:
            return LEAF
        if scratch[LAST, k] == e:
            return HANDOVER
    return ENTANGLE


@kernel()
def _plan_measurement(qubit, gate, width, scratch, program, step):  # type: ignore[no-untyped-def]
    program[step, KIND], program[step, WIDTH] = MEASURE, width
    program[step, QUBIT_A], program[step, POSITION_A] = qubit, scratch[_POSITION, qubit]
    program[step, GATE_A], program[step, ENTERS_B] = gate, False


@kernel()
def _link(entanglers, count, num_qubits, scratch):  # type: ignore[no-untyped-def]
    """Chain each qubit's entanglers in time order and file those that may act first."""
    for q in range(num_qubits):
        scratch[_HEAD, q], scratch[LAST, q], scratch[_POSITION, q] = -1, -1, -1
    for place in range(num_qubits + LANE_BITS):
        scratch[_OWNER, place] = -1
    for priority in range(_NUM_PRIORITIES):
        scratch[_FILL, priority] = 0
    for e in range(count - 1, -1, -1):
        p, k = entanglers[e, 0], entanglers[e, 1]
        scratch[_NEXT_A, e], scratch[_NEXT_B, e] = scratch[_HEAD, p], scratch[_HEAD, k]
        for q in (p, k):
            if scratch[LAST, q] < 0:
                scratch[LAST, q] = e
            scratch[_HEAD, q] = e
    for e in range(count - 1, -1, -1):
        if scratch[_HEAD, entanglers[e, 0]] == e and scratch[_HEAD, entanglers[e, 1]] == e:
            _file_ready(e, entanglers, scratch)


@kernel()
def _file_ready(e, entanglers, scratch):  # type: ignore[no-untyped-def]
    """File a CZ whose predecessors have acted under the number of qubits by which it widens the register, plus 2.

    The number can't change while the CZ waits: no other CZ may touch its two qubits next.
    """
    priority = 2
    for side in range(2):
        q = entanglers[e, side]
        is_fresh, ends = scratch[_POSITION, q] < 0, scratch[LAST, q] == e
        if is_fresh and not ends:
            priority += 1
        elif ends and not is_fresh:
            priority -= 1
    fill = scratch[_FILL, priority]
    scratch[_READY + priority, fill] = e
    scratch[_FILL, priority] = fill + 1


@kernel()
def _take_ready(scratch):  # type: ignore[no-untyped-def]
    """Newest CZ of the lowest priority: stays with the qubits that are already in the register."""
    priority = 0
    while scratch[_FILL, priority] == 0:
        priority += 1
    scratch[_FILL, priority] -= 1
    return scratch[_READY + priority, scratch[_FILL, priority]]


@kernel()
def _advance(e, entanglers, scratch):  # type: ignore[no-untyped-def]
    """Step past a CZ and file those that it held up."""
    p, k = entanglers[e, 0], entanglers[e, 1]
    next_p, next_k = scratch[_NEXT_A, e], scratch[_NEXT_B, e]
    scratch[_HEAD, p], scratch[_HEAD, k] = next_p, next_k
    for side in range(2):
        following = next_p if side == 0 else next_k
        if following < 0 or (side == 1 and next_p == next_k):
            continue
        first, second = entanglers[following, 0], entanglers[following, 1]
        if scratch[_HEAD, first] == following and scratch[_HEAD, second] == following:
            _file_ready(following, entanglers, scratch)


@kernel()
def _is_swapped(e, entanglers, scratch):  # type: ignore[no-untyped-def]
    """Whether the second qubit has to be p: the fresh one of the two, or the one that ends where both are fresh."""
    first, second = entanglers[e, 0], entanglers[e, 1]
    if scratch[_POSITION, second] >= 0:
        return False
    if scratch[_POSITION, first] >= 0:
        return True
    return scratch[LAST, first] != e and scratch[LAST, second] == e


@kernel()
def _enter(qubit, width, scratch):  # type: ignore[no-untyped-def]
    """Give a qubit the lowest free position; returns the width that the register then has."""
    place = 0
    while scratch[_OWNER, place] >= 0:
        place += 1
    scratch[_OWNER, place], scratch[_POSITION, qubit] = qubit, place
    return max(width, place + 1)


@kernel()
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
