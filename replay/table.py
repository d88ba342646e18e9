"""Transitions in arrays: each observation once, segments of one episode chained, the oldest segments falling out.

A segment of T transitions takes T+1 rows of the observation table and T slots of every other column. Slots form a ring
in order of arrival; rows come from a free list, because the extra row makes their number depend on the segments'
lengths. The arrays are allocated at full size but the operating system hands out their pages at the first write, so a
table that has never been filled costs only what it holds.

Every transition has an index, its number in order of arrival, and an age, its place among those held (0: the oldest).

Axis legend: B batch, S slots of one segment or of several.
"""

import math
from collections import OrderedDict, deque

import numpy as np
from jaxtyping import Float32, Int64, UInt32

from replay.codec import frame_bytes
from replay.errors import ReplayConfigError, ReplayError
from replay.sampling import EVERYTHING, SampleRule, n_step_returns
from replay.types import Origin, Segment, TransitionBatch, TransitionSpec

_MAX_CAPACITY = 2**31 - 1


class TransitionTable:
    """The newest ``capacity`` transitions in whole segments; not thread-safe."""

    def __init__(self, spec: TransitionSpec, capacity: int, *, capacity_bytes: int = 0, first_index: int = 0) -> None:
        """Reserve address space for ``capacity`` transitions of ``spec``, whose indices start at ``first_index``.

        With ``capacity_bytes`` the frames of the segments held have at most so many bytes, as on a server.

        Raises:
            ReplayConfigError: if ``capacity`` is not within 1..2³¹-1.
        """
        if not 1 <= capacity <= _MAX_CAPACITY:
            raise ReplayConfigError(f"capacity must be within 1..{_MAX_CAPACITY} transitions, got {capacity}")
        self._spec = spec
        self._capacity = capacity
        # One extra row per 16 transitions covers segments of 16 steps and longer; shorter ones make the table grow.
        num_rows = capacity + capacity // 16 + 64
        self._observations = np.empty((num_rows, spec.observation_size), np.float32)
        self._free_rows = np.arange(num_rows - 1, -1, -1, dtype=np.int32)
        self._num_free_rows = num_rows
        self._row = np.empty(capacity, np.int32)
        self._next_row = np.empty(capacity, np.int32)
        self._next_slot = np.empty(capacity, np.int32)
        self._policy_versions = np.empty(capacity, np.uint32)
        self._actor_ids = np.empty(capacity, np.uint32)
        self._backends = np.empty(capacity, np.uint16)
        self._backend_numbers: dict[str, int] = {}
        self._actions = np.empty((capacity, spec.action_size), np.float32)
        self._rewards = np.empty(capacity, np.float32)
        self._discounts = np.empty(capacity, np.float32)
        self._circuit_parameters = np.empty((capacity, spec.circuit_parameters_size), np.float32)
        self._packed_bits = np.empty((capacity, (spec.num_bits + 7) // 8), np.uint8)
        self._lengths: deque[int] = deque()
        # (actor, incarnation, sequence) of segments whose episode may go on, to the index of their last transition.
        self._open_ends: OrderedDict[tuple[int, int, int], int] = OrderedDict()
        self._capacity_bytes = capacity_bytes or math.inf
        self._frames_bytes = 0
        self.first_index = first_index
        """Index of the oldest transition held."""
        self._size = 0

    def __len__(self) -> int:
        """Transitions held now."""
        return self._size

    @property
    def num_segments(self) -> int:
        """Segments held now."""
        return len(self._lengths)

    @property
    def nbytes(self) -> int:
        """Bytes that the transitions held now take, without unused room."""
        row = self._spec.observation_size * 4
        slot = 30 + 4 * (self._spec.action_size + self._spec.circuit_parameters_size) + self._packed_bits.shape[1]
        return (self._size + len(self._lengths)) * row + self._size * slot

    def append(self, segment: Segment) -> tuple[Int64[np.ndarray, "S"], Int64[np.ndarray, "S"]]:
        """Take in a checked segment; the oldest segments make room for it.

        Returns:
            The slots that were freed, and the slots that the segment took; some may be in both.

        Raises:
            InvalidSegmentError: if the segment alone is longer than the capacity.
        """
        segment.check_length(self._capacity)
        steps = len(segment)
        freed = []
        added_bytes = frame_bytes(steps, self._spec)
        while self._size + steps > self._capacity or (
            self._lengths and self._frames_bytes + added_bytes > self._capacity_bytes
        ):
            freed.append(self.drop_oldest())
        self._frames_bytes += added_bytes
        rows = self._take_rows(steps + 1)
        self._observations[rows] = segment.observations
        start = (self.first_index + self._size) % self._capacity
        slots = np.arange(start, start + steps) % self._capacity
        next_slots = np.append(slots[1:], -1)
        self._chain(segment, start)
        packed = np.packbits(segment.bits, axis=1)
        head = min(steps, self._capacity - start)
        for column, values in (
            (self._row, rows[:-1]),
            (self._next_row, rows[1:]),
            (self._next_slot, next_slots),
            (self._actions, segment.actions),
            (self._rewards, segment.rewards),
            (self._discounts, segment.discounts),
            (self._circuit_parameters, segment.circuit_parameters),
            (self._policy_versions, segment.policy_versions),
            (self._packed_bits, packed),
        ):
            column[start : start + head] = values[:head]
            if head < steps:
                column[: steps - head] = values[head:]
        self._actor_ids[slots] = segment.actor_id
        self._backends[slots] = self._backend_numbers.setdefault(segment.backend_name, len(self._backend_numbers))
        self._lengths.append(steps)
        self._size += steps
        return np.concatenate([*freed, slots[:0]]), slots

    def gather(self, ages: Int64[np.ndarray, "B"], rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """The transitions of these ages; of ``rule`` only the return's length counts."""
        slots = self.slots(ages)
        last_slots = slots
        reward, discount = _take(self._rewards, slots), _take(self._discounts, slots)
        if rule.n_step > 1:
            reward, discount, last_slots = n_step_returns(
                slots,
                rule.n_step,
                rule.discount_factor or 1.0,
                rewards=self._rewards,
                discounts=self._discounts,
                next_slots=self._next_slot,
            )
        spec = self._spec
        observation, next_observation, action, circuit_parameters, bits = _columns(
            len(ages),
            spec.observation_size,
            spec.observation_size,
            spec.action_size,
            spec.circuit_parameters_size,
            spec.num_bits,
        )
        _take(self._observations, _take(self._row, slots), observation)
        _take(self._observations, _take(self._next_row, last_slots), next_observation)
        _take(self._actions, slots, action)
        _take(self._circuit_parameters, slots, circuit_parameters)
        bits[:] = np.unpackbits(_take(self._packed_bits, slots), axis=1, count=spec.num_bits)
        return TransitionBatch(
            observation=observation,
            action=action,
            reward=reward,
            discount=discount,
            next_observation=next_observation,
            circuit_parameters=circuit_parameters,
            bits=bits,
            policy_versions=_take(self._policy_versions, slots),
            indices=ages + self.first_index,
        )

    def policy_versions(self, ages: Int64[np.ndarray, "B"]) -> UInt32[np.ndarray, "B"]:
        """Versions of the policy that made the transitions of these ages."""
        versions: np.ndarray = self._policy_versions[self.slots(ages)]
        return versions

    def origins(self, indices: Int64[np.ndarray, "B"]) -> list[Origin]:
        """Who made these transitions.

        Raises:
            ReplayError: if one of them is not held.
        """
        ages = indices - self.first_index
        if ((ages < 0) | (ages >= self._size)).any():
            raise ReplayError(
                f"indices must be of transitions held, {self.first_index}..{self.first_index + self._size - 1}, got "
                f"{indices.min()}..{indices.max()}; ask before they fall out"
            )
        slots, names = self.slots(ages), list(self._backend_numbers)
        columns = (column[slots].tolist() for column in (self._actor_ids, self._backends, self._policy_versions))
        return [Origin(actor_id=a, backend_name=names[b], policy_version=v) for a, b, v in zip(*columns, strict=True)]

    def slots(self, ages: Int64[np.ndarray, "B"]) -> Int64[np.ndarray, "B"]:
        """Where the transitions of these ages are."""
        slots = ages + self.first_index % self._capacity
        slots[slots >= self._capacity] -= self._capacity
        return slots

    def drop_oldest(self) -> Int64[np.ndarray, "S"]:
        """Forget the oldest segment; returns the slots that it leaves."""
        steps = self._lengths.popleft()
        slots = self.slots(np.arange(steps))
        freed = self._num_free_rows
        self._free_rows[freed : freed + steps] = self._row[slots]
        self._free_rows[freed + steps] = self._next_row[slots[-1]]
        self._num_free_rows = freed + steps + 1
        self.first_index += steps
        self._size -= steps
        self._frames_bytes -= frame_bytes(steps, self._spec)
        while self._open_ends and next(iter(self._open_ends.values())) < self.first_index:
            self._open_ends.popitem(last=False)
        return slots

    def _chain(self, segment: Segment, start: int) -> None:
        """Let the step before this segment lead to its first slot, and remember where its own episode may go on."""
        identity = (segment.actor_id, segment.incarnation)
        if segment.previous_sequence is not None:
            last_index = self._open_ends.pop((*identity, segment.previous_sequence), None)
            if last_index is not None:
                self._next_slot[last_index % self._capacity] = start
        if segment.discounts[-1]:
            self._open_ends[(*identity, segment.sequence)] = self.first_index + self._size + len(segment) - 1

    def _take_rows(self, count: int) -> np.ndarray:
        """``count`` free rows of the observation table, which grows where it must."""
        if count > self._num_free_rows:
            old = len(self._observations)
            added = max(old // 8, count)
            observations = np.empty((old + added, self._spec.observation_size), np.float32)
            observations[:old] = self._observations
            self._observations = observations
            free = np.empty(old + added, np.int32)
            free[:added] = np.arange(old + added - 1, old - 1, -1)
            free[added : added + self._num_free_rows] = self._free_rows[: self._num_free_rows]
            self._free_rows = free
            self._num_free_rows += added
        self._num_free_rows -= count
        return self._free_rows[self._num_free_rows : self._num_free_rows + count][::-1].copy()


def _take(table: np.ndarray, index: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Rows of a table; ``mode="clip"`` because the default makes a second copy of the output to check the bounds."""
    if out is None:
        out = np.empty((len(index), *table.shape[1:]), table.dtype)
    np.take(table, index, axis=0, out=out, mode="clip")
    return out


def _columns(rows: int, *widths: int) -> list[Float32[np.ndarray, "B _"]]:
    """Empty columns in one allocation.

    Several allocations of their size are given back to the system after every batch, and getting the pages again costs
    more than all copying.
    """
    block, start, columns = np.empty(rows * sum(widths), np.float32), 0, []
    for width in widths:
        columns.append(block[start : start + rows * width].reshape(rows, width))
        start += rows * width
    return columns
