"""The transitions held in this process's memory, from which batches are drawn."""

from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Int64

from replay.errors import ReplayConfigError, ReplayError
from replay.priorities import LossAdjustedPriorities
from replay.sampling import EVERYTHING, SampleRule, draw_allowed, draw_from
from replay.table import TransitionTable
from replay.types import Origin, Segment, TransitionBatch, TransitionSpec

_TAKE_AT_ONCE = 4096


class Mirror:
    """The newest ``capacity`` transitions in whole segments; not thread-safe.

    What ``sample`` returns depends only on the segments appended so far and on the caller's generator, so a mirror
    rebuilt from the same segments continues bit-identically.
    """

    def __init__(
        self,
        spec: TransitionSpec,
        capacity: int,
        *,
        capacity_bytes: int = 0,
        is_prioritised: bool = False,
        first_index: int = 0,
    ) -> None:
        """Reserve address space for ``capacity`` transitions of ``spec``.

        Args:
            spec: sizes of a transition.
            capacity: transitions held.
            capacity_bytes: also at most this many bytes of frames (``replay/codec.py``); 0 for no such limit.
            is_prioritised: draw by temporal-difference error (LAP) where not told otherwise.
            first_index: index of the first transition that will come; what was held before a restart keeps its indices.

        Raises:
            ReplayConfigError: if ``capacity`` is not within 1..2³¹-1.
        """
        self._table = TransitionTable(spec, capacity, capacity_bytes=capacity_bytes, first_index=first_index)
        self._capacity = capacity
        self._priorities = LossAdjustedPriorities(capacity) if is_prioritised else None

    def __len__(self) -> int:
        """Transitions held now."""
        return len(self._table)

    @property
    def num_segments(self) -> int:
        """Segments held now."""
        return self._table.num_segments

    @property
    def nbytes(self) -> int:
        """Bytes that the transitions held now take, without unused room."""
        return self._table.nbytes + (0 if self._priorities is None else self._priorities.tree.nbytes)

    def append(self, segment: Segment) -> None:
        """Take in a checked segment; the oldest segments make room for it.

        Raises:
            InvalidSegmentError: if the segment alone is longer than the capacity.
        """
        freed, taken = self._table.append(segment)
        if self._priorities is not None:
            self._priorities.remove(freed)
            self._priorities.add(taken)

    def clear(self) -> None:
        """Forget everything; the memory is kept for what comes next."""
        while len(self._table):
            freed = self._table.drop_oldest()
            if self._priorities is not None:
                self._priorities.remove(freed)

    def sample(self, batch_size: int, rng: np.random.Generator, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """``batch_size`` transitions with replacement: uniform, or in proportion to their priorities.

        Raises:
            ReplayError: if nothing is held yet, or nothing that the rule allows.
        """
        if len(self) == 0:
            raise ReplayError("the replay is empty; ask can_sample() before sample()")
        return self.gather(self._draw(batch_size, rng, rule), rule)

    def take(self, first_index: int, count: int, rule: SampleRule = EVERYTHING) -> tuple[TransitionBatch, int]:
        """First in, first out: up to ``count`` transitions from ``first_index`` on in order of arrival.

        What has fallen out is skipped, and so is what is older than ``rule`` allows.

        Args:
            first_index: where the last call ended; 0 for the oldest.
            count: most transitions of the batch, which is empty where nothing new has come.
            rule: bounds on age and policy version, and the return's length.

        Returns:
            The batch, and the ``first_index`` of the next call.
        """
        oldest = len(self) - rule.newest if rule.newest else 0
        age = max(first_index - self._table.first_index, oldest, 0)
        taken: list[np.ndarray] = []
        missing = count
        while missing > 0 and age < len(self):
            ages = np.arange(age, min(age + max(missing, _TAKE_AT_ONCE), len(self)))
            taken.append(ages[self._is_allowed(rule, ages)][:missing])
            missing -= len(taken[-1])
            age = int(taken[-1][-1] if missing == 0 else ages[-1]) + 1
        return self.gather(np.concatenate([*taken, np.arange(0)]), rule), self._table.first_index + age

    def gather(self, ages: Int64[np.ndarray, "B"], rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """The transitions of these ages (0: the oldest held); of ``rule`` only the return's length counts."""
        return self._table.gather(ages, rule)

    def update_priorities(self, indices: Int64[np.ndarray, "B"], td_errors: Float32[np.ndarray, "B"]) -> None:
        """Tell the temporal-difference errors of sampled transitions; those that have fallen out since are skipped.

        Raises:
            ReplayConfigError: if this mirror draws uniformly.
            ReplayError: if an error is not finite.
        """
        held = indices >= self._table.first_index
        self._prioritised().update(self._table.slots(indices[held] - self._table.first_index), td_errors[held])

    def priorities(self) -> dict[str, np.ndarray]:
        """The priorities of everything held, for a checkpoint; empty where this mirror draws uniformly."""
        return {} if self._priorities is None else self._priorities.state(self._table.slots(np.arange(len(self))))

    def restore_priorities(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what ``priorities`` gave into a mirror that holds the same transitions.

        Raises:
            ReplayConfigError: if this mirror draws uniformly.
            ReplayError: if it holds another number of transitions.
        """
        self._prioritised().restore(self._table.slots(np.arange(len(self))), state)

    def origins(self, indices: Int64[np.ndarray, "B"]) -> list[Origin]:
        """Who made these transitions; errors as of ``TransitionTable.origins``."""
        return self._table.origins(indices)

    def _draw(self, count: int, rng: np.random.Generator, rule: SampleRule) -> Int64[np.ndarray, "B"]:
        """Ages."""
        oldest = max(0, len(self) - rule.newest) if rule.newest else 0
        is_free = rule.min_policy_version == 0 and (oldest == 0 or self._priorities is None)
        if is_free:
            return self._propose(rng, oldest, count)
        return draw_allowed(
            count,
            partial(self._propose, rng, oldest),
            partial(self._is_allowed, rule),
            partial(self._draw_exactly, count, rng, rule, oldest),
        )

    def _propose(self, rng: np.random.Generator, oldest: int, count: int) -> Int64[np.ndarray, "B"]:
        if self._priorities is None:
            return rng.integers(oldest, len(self), count)
        ages: np.ndarray = (self._priorities.tree.draw(count, rng) - self._table.first_index) % self._capacity
        return ages

    def _draw_exactly(
        self, count: int, rng: np.random.Generator, rule: SampleRule, oldest: int
    ) -> Int64[np.ndarray, "B"]:
        ages = np.arange(oldest, len(self))
        allowed = ages[self._is_allowed(rule, ages)]
        if self._priorities is None:
            return draw_from(allowed, count, rng)
        return draw_from(allowed, count, rng, self._priorities.tree.get(self._table.slots(allowed)))

    def _is_allowed(self, rule: SampleRule, ages: Int64[np.ndarray, "D"]) -> Bool[np.ndarray, "D"]:
        is_new = ages >= len(self) - rule.newest if rule.newest else np.ones(len(ages), bool)
        return is_new & (self._table.policy_versions(ages) >= rule.min_policy_version)

    def _prioritised(self) -> LossAdjustedPriorities:
        if self._priorities is None:
            raise ReplayConfigError("this replay draws uniformly and keeps no priorities; make it with is_prioritised")
        return self._priorities
