"""Registers too large for a core's first cache: worked on block by block, by one thread or by a team.

Everything that a CZ and the rotations before it do to a block happens while the block is in the cache, instead of in
three passes over the state. Blocks are independent, and sums are kept per block and added in order: the numbers are the
same whoever computes them.

A high position counts blocks, a low one is inside a block. Groups are the 1, 2 or 4 blocks that high positions mix.

Half of what kernels take to compile is in here, and most circuits never need it. So where ``team`` is None, which
Numba sees as a type, the ``wide_`` functions are empty: kernels of small circuits are compiled without all this.
"""

import numpy as np

from qpu_service.backends import team as slots
from qpu_service.backends.jit import entry_kernel, kernel
from qpu_service.backends.lanes import LANES, get, put, total
from qpu_service.backends.maps import square
from qpu_service.backends.register import (
    apply,
    apply_cz,
    apply_to_halves,
    contract,
    grow_range,
    shrink_range,
    weigh,
    weigh_halves,
)
from qpu_service.backends.team import claim_groups, close_job, is_alone, join_job, leave_job, open_job, read, write

WIDE_BITS = 13
"""Registers of so many qubits are worked on in blocks."""
SHARED_BITS = 15
"""Smaller registers are done before a helper has noticed."""
BLOCK_BITS = 10
"""Four blocks, 32 KiB, fit into a first cache."""
_BLOCK_BITS = np.int64(BLOCK_BITS)
_BLOCK = np.int64(2 << BLOCK_BITS)
_CLAIMED_BLOCKS = 4

_ANY = np.int64(0)
"""Position in a job that has none. Constants have a type where Numba would compile another version for a literal."""

_MAP, _ENTANGLE, _GROW, _SHRINK, _WEIGH, _TABULATE, _SCALE = (np.int64(kind) for kind in range(7))
_KIND, _STATE, _SOURCE, _TARGET, _WIDTH, _FIRST, _SECOND, _SUMS, _MATRICES = range(
    slots.FIRST_FIELD, slots.FIRST_FIELD + 9
)
"""Fields of a job. _SUMS is the address of two float64 per group; two matrices of eight float32 follow _MATRICES."""


def sums_size(num_qubits: int) -> int:
    """Float64 that a register of this width needs for its sums."""
    return 2 << max(num_qubits - BLOCK_BITS, 0)


def sums_slot() -> int:
    """Slot of a team that holds the address of the sums."""
    return _SUMS


@entry_kernel
def help_team(team, member):  # type: ignore[no-untyped-def]
    """Work on whatever the leader of a team posts, until it stops."""
    ticket = join_job(team, np.int64(0))
    while ticket != 0:
        _work(team, member)
        leave_job(team)
        ticket = join_job(team, ticket)


@kernel()
def wide_apply(team, state, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """As register.apply."""
    if team is not None:
        _run(team, _MAP, state, source, target, width, position, position, m, m)


@kernel()
def wide_grow(team, state, source, target, width, m):  # type: ignore[no-untyped-def]
    """As register.grow."""
    if team is not None:
        _run(team, _GROW, state, source, target, width, _ANY, _ANY, m, m)


@kernel()
def wide_shrink(team, state, source, target, width, position, m):  # type: ignore[no-untyped-def]
    """As register.shrink."""
    if team is not None:
        _run(team, _SHRINK, state, source, target, width, position, position, m, m)


@kernel()
def wide_entangle(team, state, source, width, first, second, m, n):  # type: ignore[no-untyped-def]
    """Apply m at ``first`` and n at ``second``, then the CZ of both, in one pass."""
    is_ordered = first < second
    low, high = (first, second) if is_ordered else (second, first)
    of_low, of_high = (m, n) if is_ordered else (n, m)
    if team is not None:
        _run(team, _ENTANGLE, state, source, source, width, low, high, of_low, of_high)


@kernel()
def wide_weigh(team, state, source, width, position, m):  # type: ignore[no-untyped-def]
    """As register.weigh."""
    zero, one = 0.0, 0.0
    if team is not None:
        num_groups = _run(team, _WEIGH, state, source, source, width, position, position, m, m)
        sums = read(team, _SUMS)
        for group in range(num_groups):
            zero += slots.read_float(sums, 2 * group)
            one += slots.read_float(sums, 2 * group + 1)
    return np.float32(zero), np.float32(one)


@kernel()
def wide_tabulate(team, state, source, width, table):  # type: ignore[no-untyped-def]
    """Write probabilities, normalised, to the float32 memory at the address ``table``."""
    if team is not None:
        none = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        m = none + none
        num_groups = _run(team, _TABULATE, state, source, table, width, _ANY, _ANY, m, m)
        sums = read(team, _SUMS)
        norm = 0.0
        for group in range(num_groups):
            norm += slots.read_float(sums, 2 * group)
        _run(team, _SCALE, state, source, table, width, _ANY, _ANY, (np.float32(1.0 / norm), *m[1:]), m)


@kernel()
def _run(team, kind, state, source, target, width, first, second, m, n):  # type: ignore[no-untyped-def]
    """Post a job, work on it, and wait until all is done.

    Args:
        team: address.
        kind: of job.
        state: address of the registers.
        source: where the register begins.
        target: where it goes to.
        width: qubits of the register; of both halves together where it shrinks.
        first: a position.
        second: another one, not below the first.
        m: matrix of ``first``.
        n: matrix of ``second``.

    Returns:
        Number of groups.
    """
    write(team, _KIND, kind)
    write(team, _STATE, state)
    write(team, _SOURCE, source)
    write(team, _TARGET, target)
    write(team, _WIDTH, width)
    write(team, _FIRST, first)
    write(team, _SECOND, second)
    matrices = team + 8 * _MATRICES
    for i, value in enumerate(m):
        put(matrices, i, value)
    for i, value in enumerate(n):
        put(matrices, i + 8, value)
    group_bits = 0
    if kind in (_MAP, _WEIGH, _ENTANGLE):
        group_bits += first >= BLOCK_BITS
    if kind == _ENTANGLE:
        group_bits += second >= BLOCK_BITS
    elif kind == _SHRINK:  # a block, its partner in the upper half, and another two where a high qubit is measured
        group_bits = 1 + (BLOCK_BITS <= first < width - 1)
    num_groups = 1 << (width - BLOCK_BITS - group_bits)
    is_shared = width >= SHARED_BITS and not is_alone(team, num_groups << group_bits)
    open_job(team, num_groups, _CLAIMED_BLOCKS >> group_bits, is_shared)
    _work(team, 0)
    if is_shared:
        close_job(team)
    return num_groups


@kernel()
def _work(team, member):  # type: ignore[no-untyped-def]
    """Claim groups until there are none, one's own share first."""
    num_members = read(team, slots.NUM_MEMBERS)
    for turn in range(num_members):
        share = (member + turn) % num_members
        first, end = claim_groups(team, share)
        while first < end:
            for group in range(first, end):
                _do(team, group)
            first, end = claim_groups(team, share)


@kernel()
def _do(team, group):  # type: ignore[no-untyped-def]
    kind, state = read(team, _KIND), read(team, _STATE)
    source, target, width = read(team, _SOURCE), read(team, _TARGET), read(team, _WIDTH)
    first, second = read(team, _FIRST), read(team, _SECOND)
    memory = team + 8 * _MATRICES
    m, n = _matrix(memory), _matrix(memory + 32)
    size = 2 << width
    if kind == _ENTANGLE:
        _entangle(state, source, group, first, second, m, n)
    elif kind == _MAP:
        block = _BLOCK * _spread(group, first)
        if first < BLOCK_BITS:
            apply(state, source + block, target + block, _BLOCK_BITS, first, m)
        else:
            apply_to_halves(state, source + block, target + block, _BLOCK, 2 << first, m)
    elif kind == _WEIGH:
        _weigh(read(team, _SUMS), state, source, group, first, m)
    elif kind == _GROW:
        grow_range(state, source + _BLOCK * group, target + _BLOCK * group, _BLOCK, size, m)
    elif kind == _SHRINK:
        _shrink(state, source, target, width, group, first, m)
    elif kind == _TABULATE:
        _tabulate(read(team, _SUMS), state, source, target, group)
    else:
        for i in range(group << BLOCK_BITS, (group + 1) << BLOCK_BITS):
            put(target, i, get(target, i) * m[0])


@kernel()
def _entangle(state, source, group, low, high, m, n):  # type: ignore[no-untyped-def]
    """The CZ turns the sign of the second row of one qubit's matrix where the other qubit is 1."""
    flipped = n[0], n[1], n[2], n[3], -n[4], -n[5], -n[6], -n[7]
    block = source + _BLOCK * _spread(_spread(group, low), high)
    if high < BLOCK_BITS:
        apply(state, block, block, _BLOCK_BITS, low, m)
        apply(state, block, block, _BLOCK_BITS, high, n)
        apply_cz(state, block, _BLOCK_BITS, low, high)
    elif low < BLOCK_BITS:
        other = block + (2 << high)
        apply_to_halves(state, block, block, _BLOCK, 2 << high, n)
        apply(state, block, block, _BLOCK_BITS, low, m)
        apply(state, other, other, _BLOCK_BITS, low, (m[0], m[1], m[2], m[3], -m[4], -m[5], -m[6], -m[7]))
    else:
        other = block + (2 << low)
        apply_to_halves(state, block, block, _BLOCK, 2 << low, m)
        apply_to_halves(state, block + (2 << high), block + (2 << high), _BLOCK, 2 << low, m)
        apply_to_halves(state, block, block, _BLOCK, 2 << high, n)
        apply_to_halves(state, other, other, _BLOCK, 2 << high, flipped)


@kernel()
def _weigh(sums, state, source, group, position, m):  # type: ignore[no-untyped-def]
    block = source + _BLOCK * _spread(group, position)
    if position < BLOCK_BITS:
        zero, one = weigh(state, block, _BLOCK_BITS, position, m)
    else:
        zeros, ones = weigh_halves(state, block, _BLOCK, 2 << position, m)
        zero, one = total(zeros), total(ones)
    slots.write_float(sums, 2 * group, np.float64(zero))
    slots.write_float(sums, 2 * group + 1, np.float64(one))


@kernel()
def _shrink(state, source, target, width, group, position, m):  # type: ignore[no-untyped-def]
    size = 1 << width  # from the lower half to the upper one
    if position < BLOCK_BITS:
        block = _BLOCK * group
        shrink_range(state, source + block, target + block, _BLOCK, size, position, m)
        return
    half = 2 << position
    block = _BLOCK * _spread(group, position)
    contract(state, source + block, target + block, _BLOCK, half, m)
    if half != size:
        contract(state, source + block + size, target + block + half, _BLOCK, half, m)


@kernel()
def _tabulate(sums, state, source, table, group):  # type: ignore[no-untyped-def]
    norm = 0.0
    for i in range(group << BLOCK_BITS, (group + 1) << BLOCK_BITS):
        place = source + i + i // LANES * LANES
        weight = square(get(state, place), get(state, place + LANES))
        put(table, i, weight)
        norm += np.float64(weight)
    slots.write_float(sums, 2 * group, norm)


@kernel()
def _spread(group, position):  # type: ignore[no-untyped-def]
    """Make room for a high position's bit in a number of blocks: the block where it is 0."""
    if position < BLOCK_BITS:
        return group
    bit = position - BLOCK_BITS
    return group >> bit << (bit + 1) | group & ((1 << bit) - 1)


@kernel()
def _matrix(memory):  # type: ignore[no-untyped-def]
    return (
        get(memory, 0),
        get(memory, 1),
        get(memory, 2),
        get(memory, 3),
        get(memory, 4),
        get(memory, 5),
        get(memory, 6),
        get(memory, 7),
    )
