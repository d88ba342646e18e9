"""Threads that share the work on one large state: jobs are posted in memory, and whoever has time takes a part of it.

One leader runs a circuit; helpers wait for its jobs. A job is cut into groups of blocks (wide.py) that are claimed one
after the other, by each thread first from its own share, so that it finds them in its own cache, then from the others'.
A helper that the machine does not run at the moment therefore delays nothing: the leader does its share too.

Numba's own prange is not used: one of its threading layers kills the process when two threads of a program enter it
at once, another when the process has forked.

Must never know what a job does. A team is the address of int64 memory whose slots are listed below.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qpu_service.backends.jit import kernel

TICKET, ACTIVE, STOP, NUM_MEMBERS, NUM_GROUPS, CLAIM, ALONE, FIRST_FIELD = 0, 8, 16, 17, 18, 19, 20, 24
"""Slots; those that are written while others wait for them have cache lines of their own.

TICKET       odd while a job is open
ACTIVE       helpers that are inside the open job
STOP         1 when helpers may go home
NUM_MEMBERS  leader and helpers
NUM_GROUPS   groups of the job
CLAIM        groups that are claimed at a time
ALONE        work that the leader does without helpers, in blocks, because it had to wait for one that was not running
FIRST_FIELD  what the job is, for wide.py
"""
NUM_FIELDS = 24
FIRST_CLAIMED = FIRST_FIELD + NUM_FIELDS
"""Groups claimed of each member's share, one cache line each."""
_LINE = 8

_INT, _I32, _DOUBLE = ir.IntType(64), ir.IntType(32), ir.DoubleType()
_SPINS, _YIELDS = 2000, 200
"""Looks at a slot before a waiting thread offers its core to others, and offers before it sleeps."""
_NAP_US = 50
_ALONE_PER_YIELD = 10
"""Blocks, 0.3 µs each, that pay for an offer of about 0.3 µs: waiting costs a tenth of the time at most."""


def num_slots(num_members: int) -> int:
    """Slots of a team with so many members."""
    return FIRST_CLAIMED + _LINE * num_members


@intrinsic
def read(_context, memory, slot):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Slot of int64 memory at an address."""

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(_slot(builder, arguments, _INT))

    return types.int64(types.int64, types.int64), emit


@intrinsic
def write(_context, memory, slot, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Set a slot of int64 memory at an address."""

    def emit(context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _slot(builder, arguments, _INT))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def read_float(_context, memory, slot):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Slot of float64 memory at an address."""

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(_slot(builder, arguments, _DOUBLE))

    return types.float64(types.int64, types.int64), emit


@intrinsic
def write_float(_context, memory, slot, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Set a slot of float64 memory at an address."""

    def emit(context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _slot(builder, arguments, _DOUBLE))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float64), emit


@intrinsic
def _load(_context, memory, slot):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_slot(builder, arguments, _INT), "seq_cst", 8)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def _store(_context, memory, slot, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def emit(context, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        builder.store_atomic(arguments[2], _slot(builder, arguments, _INT), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def _add(_context, memory, slot, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Returns what was there before."""

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return builder.atomic_rmw("add", _slot(builder, arguments, _INT), arguments[2], "seq_cst")

    return types.int64(types.int64, types.int64, types.int64), emit


@intrinsic
def _offer_core(_context):  # type: ignore[no-untyped-def]
    def emit(context, builder, _signature, _arguments):  # type: ignore[no-untyped-def]
        builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, []), "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def _nap(_context):  # type: ignore[no-untyped-def]
    def emit(context, builder, _signature, _arguments):  # type: ignore[no-untyped-def]
        sleep = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, [_I32]), "usleep")
        builder.call(sleep, [_I32(_NAP_US)])
        return context.get_dummy_value()

    return types.void(), emit


@kernel()
def open_job(team, num_groups, claim, is_shared):  # type: ignore[no-untyped-def]
    """Lay out a job, and let helpers begin if it is shared; its fields have to be written before."""
    write(team, NUM_GROUPS, num_groups)
    write(team, CLAIM, claim)
    for member in range(read(team, NUM_MEMBERS)):
        write(team, FIRST_CLAIMED + _LINE * member, 0)
    if is_shared:
        _add(team, TICKET, 1)


@kernel()
def close_job(team):  # type: ignore[no-untyped-def]
    """Wait until no helper is inside the job any more; after this its fields may change."""
    _add(team, TICKET, 1)
    waits = 0
    while _load(team, ACTIVE) != 0:
        waits += 1
        if waits > _SPINS:
            _offer_core()
    if waits > _SPINS:
        write(team, ALONE, _ALONE_PER_YIELD * (waits - _SPINS))


@kernel()
def is_alone(team, num_blocks):  # type: ignore[no-untyped-def]
    """Whether the leader does the next ``num_blocks`` blocks itself."""
    left = read(team, ALONE)
    if left > 0:
        write(team, ALONE, left - num_blocks)
    return left > 0 or read(team, NUM_MEMBERS) == 1


@kernel()
def join_job(team, last_ticket):  # type: ignore[no-untyped-def]
    """Wait for another job than the last one and enter it; returns its ticket, or 0 when there will be none."""
    waits = 0
    while _load(team, STOP) == 0:
        ticket = _load(team, TICKET)
        if ticket & 1 != 0 and ticket != last_ticket:
            _add(team, ACTIVE, 1)
            if _load(team, TICKET) == ticket:  # else it was closed meanwhile, and nobody waits for this helper
                return ticket
            _add(team, ACTIVE, -1)
        waits += 1
        if waits > _SPINS + _YIELDS:
            _nap()
        elif waits > _SPINS:
            _offer_core()
    return np.int64(0)


@kernel()
def leave_job(team):  # type: ignore[no-untyped-def]
    """A helper has found nothing more to claim."""
    _add(team, ACTIVE, -1)


@kernel()
def claim_groups(team, share):  # type: ignore[no-untyped-def]
    """Next groups of a member's share that nobody has taken: first and end, equal when all are taken."""
    num_members, num_groups = read(team, NUM_MEMBERS), read(team, NUM_GROUPS)
    first, end = num_groups * share // num_members, num_groups * (share + 1) // num_members
    claim = read(team, CLAIM)
    first += _add(team, FIRST_CLAIMED + _LINE * share, claim)
    return min(first, end), min(first + claim, end)


def _slot(builder: Any, arguments: Any, kind: Any) -> Any:
    return builder.gep(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
