"""The transitions held in this process's memory, from which batches are drawn.

Each observation is held once: a segment of T transitions takes T+1 rows of the observation table and T slots of every
other column. Slots form a ring in order of arrival; rows come from a free list, because the extra row makes their
number depend on the segments' lengths. The tables are allocated at full size but the operating system hands out their
pages at the first write, so a replay that has never been filled costs only what it holds.
"""

from collections import deque

import numpy as np
from jaxtyping import Int64

from replay.errors import ReplayConfigError, ReplayError
from replay.types import Segment, TransitionBatch, TransitionSpec

_MAX_CAPACITY = 2**31 - 1


class Mirror:
    """The newest ``capacity`` transitions in whole segments; not thread-safe.

    What ``sample`` returns depends only on the segments appended so far and on the caller's generator, so a mirror
    rebuilt from the same segments continues bit-identically.
    """

    def __init__(self, spec: TransitionSpec, capacity: int) -> None:
        """Reserve address space for ``capacity`` transitions of ``spec``.

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
        self._actions = np.empty((capacity, spec.action_size), np.float32)
        self._rewards = np.empty(capacity, np.float32)
        self._discounts = np.empty(capacity, np.float32)
        self._circuit_parameters = np.empty((capacity, spec.circuit_parameters_size), np.float32)
        self._packed_bits = np.empty((capacity, (spec.num_bits + 7) // 8), np.uint8)
        self._lengths: deque[int] = deque()
        self._oldest = 0
        self._size = 0

    def __len__(self) -> int:
        """Transitions held now."""
        return self._size

    @property
    def nbytes(self) -> int:
        """Bytes that the transitions held now take, without unused room."""
        row = self._spec.observation_size * 4
        slot = 16 + 4 * (self._spec.action_size + self._spec.circuit_parameters_size) + self._packed_bits.shape[1]
        return (self._size + len(self._lengths)) * row + self._size * slot

    def append(self, segment: Segment) -> None:
        """Take in a checked segment; the oldest segments make room for it.

        Raises:
            InvalidSegmentError: if the segment alone is longer than the capacity.
        """
        segment.check_length(self._capacity)
        steps = len(segment)
        while self._size + steps > self._capacity:
            self._drop_oldest()
        rows = self._take_rows(steps + 1)
        self._observations[rows] = segment.observations
        start = (self._oldest + self._size) % self._capacity
        head = min(steps, self._capacity - start)
        packed = np.packbits(segment.bits, axis=1)
        for column, values in (
            (self._row, rows[:-1]),
            (self._next_row, rows[1:]),
            (self._actions, segment.actions),
            (self._rewards, segment.rewards),
            (self._discounts, segment.discounts),
            (self._circuit_parameters, segment.circuit_parameters),
            (self._packed_bits, packed),
        ):
            column[start : start + head] = values[:head]
            if head < steps:
                column[: steps - head] = values[head:]
        self._lengths.append(steps)
        self._size += steps

    def clear(self) -> None:
        """Forget everything; the memory is kept for what comes next."""
        while self._lengths:
            self._drop_oldest()

    def sample(self, batch_size: int, rng: np.random.Generator) -> TransitionBatch:
        """``batch_size`` transitions, uniform with replacement.

        Raises:
            ReplayError: if nothing is held yet.
        """
        if self._size == 0:
            raise ReplayError("the replay is empty; ask can_sample() before sample()")
        return self.gather(rng.integers(0, self._size, batch_size))

    def gather(self, ages: Int64[np.ndarray, "B"]) -> TransitionBatch:
        """The transitions with these positions in order of arrival, 0 being the oldest one held."""
        slots = ages + self._oldest
        slots[slots >= self._capacity] -= self._capacity
        bits = np.unpackbits(_take(self._packed_bits, slots), axis=1, count=self._spec.num_bits)
        return TransitionBatch(
            observation=_take(self._observations, _take(self._row, slots)),
            action=_take(self._actions, slots),
            reward=_take(self._rewards, slots),
            discount=_take(self._discounts, slots),
            next_observation=_take(self._observations, _take(self._next_row, slots)),
            circuit_parameters=_take(self._circuit_parameters, slots),
            bits=bits.astype(np.float32),
        )

    def _drop_oldest(self) -> None:
        """Free the slots and rows of the oldest segment."""
        steps = self._lengths.popleft()
        slots = (self._oldest + np.arange(steps)) % self._capacity
        freed = self._num_free_rows
        self._free_rows[freed : freed + steps] = self._row[slots]
        self._free_rows[freed + steps] = self._next_row[slots[-1]]
        self._num_free_rows = freed + steps + 1
        self._oldest = (self._oldest + steps) % self._capacity
        self._size -= steps

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


def _take(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows of a table; ``mode="clip"`` because the default makes a second copy of the output to check the bounds."""
    out = np.empty((len(index), *table.shape[1:]), table.dtype)
    np.take(table, index, axis=0, out=out, mode="clip")
    return out
