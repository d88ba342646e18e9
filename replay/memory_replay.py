"""The replay of one process: for lockstep runs, for machines without a server, and as the model that tests Redis."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Int64

from replay.codec import decode_segment, encode_segment
from replay.errors import ReplayConfigError, ReplayLostError, SequenceGapError
from replay.journal import SegmentJournal
from replay.mirror import Mirror
from replay.rate_limiter import RateLimiter
from replay.sampling import EVERYTHING, SampleRule
from replay.types import InsertReply, Origin, ReplayCounts, Segment, TransitionBatch, TransitionSpec


class MemoryReplay:
    """SegmentWriter and TransitionSource over a mirror; with a journal it survives the process. Not thread-safe."""

    def __init__(
        self,
        spec: TransitionSpec,
        limiter: RateLimiter,
        capacity: int,
        journal: Path | None = None,
        *,
        run_id: str = "memory",
        capacity_bytes: int = 0,
        is_prioritised: bool = False,
    ) -> None:
        """An empty replay of ``capacity`` transitions.

        Args:
            spec: sizes of a transition.
            limiter: decides what ``can_insert`` and ``can_sample`` answer.
            capacity: transitions held; the oldest segments fall out.
            journal: file that takes every segment; must not exist yet.
            run_id: goes into the journal's frames, which no other run can read.
            capacity_bytes: also at most this many bytes of frames; 0 for no such limit.
            is_prioritised: draw by temporal-difference error instead of uniformly.

        Raises:
            ReplayConfigError: if the journal belongs to an earlier start, or ``capacity`` is impossible.
        """
        self._spec = spec
        self._limiter = limiter
        self._run_id = run_id
        self._capacity = capacity
        self._mirror = Mirror(spec, capacity, capacity_bytes=capacity_bytes, is_prioritised=is_prioritised)
        self._last_sequences: dict[tuple[int, int], int] = {}
        self._incarnations: dict[int, int] = {}
        self._inserted = 0
        self._longest = 1
        self._sampled = 0
        self._policy_version = 0
        self._journal = SegmentJournal(journal) if journal is not None else None
        # Where in the journal the segments held are.
        self._offsets: deque[int] = deque()

    @classmethod
    def restore(
        cls,
        spec: TransitionSpec,
        limiter: RateLimiter,
        capacity: int,
        journal: Path,
        state: Mapping[str, Any],
        *,
        run_id: str = "memory",
        capacity_bytes: int = 0,
        is_prioritised: bool = False,
    ) -> Self:
        """The replay as it was when ``state()`` was called; later segments are cut off the journal.

        Where it is prioritised, ``restore_priorities`` must follow.

        Raises:
            ReplayLostError: if the journal does not hold what ``state`` counts.
            CorruptFrameError: if a frame within the journal's valid part is damaged.
        """
        replay = cls(spec, limiter, capacity, run_id=run_id, is_prioritised=is_prioritised)
        opened = SegmentJournal(journal, state["journal_offset"])
        for actor_id, incarnation, sequence in state["sequences"]:
            replay._count(actor_id, incarnation, sequence, 0)
        replay._inserted, replay._longest = state["first_index"], state["longest"]
        for offset, head in opened.heads(state["journal_first"]):
            replay._inserted += head.steps
            replay._offsets.append(offset)
        if replay._inserted != state["inserted"]:
            raise ReplayLostError(
                f"{journal} holds {replay._inserted} transitions up to byte {opened.offset}, the checkpoint counts "
                f"{state['inserted']}; is it the journal of another run?"
            )
        replay._mirror = Mirror(
            spec,
            capacity,
            capacity_bytes=capacity_bytes,
            is_prioritised=is_prioritised,
            first_index=state["first_index"],
        )
        for frame in opened.frames(state["journal_first"]):
            replay._mirror.append(decode_segment(frame, spec, run_id))
        replay._journal = opened
        replay._sampled = state["sampled"]
        replay._policy_version = state["policy_version"]
        return replay

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep to ``restore``; the journal is on the disk when this returns.

        Raises:
            ReplayConfigError: if this replay keeps no journal.
        """
        if self._journal is None:
            raise ReplayConfigError(
                "this replay keeps no journal, so it cannot be restored; pass journal= to MemoryReplay"
            )
        return {
            "journal_offset": self._journal.sync(),
            "journal_first": self._offsets[0] if self._offsets else self._journal.offset,
            "first_index": self._inserted - len(self),
            "sequences": [[*identity, sequence] for identity, sequence in self._last_sequences.items()],
            "longest": self._longest,
            "inserted": self._inserted,
            "sampled": self._sampled,
            "policy_version": self._policy_version,
        }

    def forget_before(self, journal_first: int) -> None:
        """No checkpoint whose state has a smaller ``journal_first`` will be restored: the journal may shed the rest."""
        if self._journal is not None:
            self._journal.drop_before(journal_first)

    def register_actor(self, actor_id: int) -> int:
        """Start of an actor: its incarnation, from 1."""
        self._incarnations[actor_id] = self._incarnations.get(actor_id, 0) + 1
        return self._incarnations[actor_id]

    def announce_policy_version(self, version: int) -> None:
        """The newest published version of the policy parameters, which every reply then reports."""
        self._policy_version = version

    def insert(self, segment: Segment) -> InsertReply:
        """Store a segment exactly once; an older or equal sequence of the same actor and incarnation changes nothing.

        Raises:
            InvalidSegmentError: if the segment does not fit the run, is not finite, or exceeds the capacity.
            SequenceGapError: if an earlier sequence is missing.
            OSError: if the journal cannot be written; nothing is stored then.
        """
        segment.check(self._spec)
        segment.check_length(self._capacity)
        last = self._last_sequences.get((segment.actor_id, segment.incarnation), -1)
        if segment.sequence > last + 1:
            raise SequenceGapError.of(
                actor_id=segment.actor_id,
                incarnation=segment.incarnation,
                sequence=segment.sequence,
                expected=last + 1,
            )
        is_new = segment.sequence == last + 1
        if is_new:
            if self._journal is not None:
                self._offsets.append(self._journal.offset)
                try:
                    self._journal.append(encode_segment(segment, self._spec, self._run_id))
                except BaseException:
                    self._offsets.pop()
                    raise
            self._mirror.append(segment)
            while len(self._offsets) > self._mirror.num_segments:
                self._offsets.popleft()
            self._count(segment.actor_id, segment.incarnation, segment.sequence, len(segment))
        return self._reply(is_new=is_new)

    def insert_many(self, segments: Sequence[Segment]) -> InsertReply:
        """Store several in their order; ``is_new`` is True where any of them was new; errors as of ``insert``."""
        replies = [self.insert(segment) for segment in segments] or [self.poll()]
        return replace(replies[-1], is_new=any(reply.is_new for reply in replies))

    def poll(self) -> InsertReply:
        """Counters, limiter and newest policy version."""
        return self._reply(is_new=False)

    def refresh(self) -> ReplayCounts:
        """Lifetime counters; segments are visible as soon as they are inserted."""
        return ReplayCounts(inserted=self._inserted, sampled=self._sampled)

    def can_sample(self, count: int) -> bool:
        """Whether the limiter allows ``count`` more transitions now."""
        return len(self) > 0 and self._limiter.can_sample(self.refresh(), count)

    def sample(self, batch_size: int, rng: np.random.Generator, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """See ``Mirror.sample``."""
        batch = self._mirror.sample(batch_size, rng, rule)
        self._sampled += batch_size
        return batch

    def take(self, first_index: int, count: int, rule: SampleRule = EVERYTHING) -> tuple[TransitionBatch, int]:
        """First in, first out; see ``Mirror.take``. An index means the same after ``restore``."""
        batch, next_index = self._mirror.take(first_index, count, rule)
        self._sampled += len(batch.indices)
        return batch, next_index

    def update_priorities(self, indices: Int64[np.ndarray, "B"], td_errors: Float32[np.ndarray, "B"]) -> None:
        """See ``Mirror.update_priorities``."""
        self._mirror.update_priorities(indices, td_errors)

    def priorities(self) -> dict[str, np.ndarray]:
        """What a checkpoint must keep beside ``state``; empty where this replay draws uniformly."""
        return self._mirror.priorities()

    def restore_priorities(self, state: Mapping[str, np.ndarray]) -> None:
        """Put back what ``priorities`` gave; errors as of ``Mirror.restore_priorities``."""
        self._mirror.restore_priorities(state)

    def origins(self, indices: Int64[np.ndarray, "B"]) -> list[Origin]:
        """Who made these transitions."""
        return self._mirror.origins(indices)

    def __len__(self) -> int:
        """Transitions held now."""
        return len(self._mirror)

    def close(self) -> None:
        """Close the journal; calling it twice is fine."""
        if self._journal is not None:
            self._journal.close()

    def _count(self, actor_id: int, incarnation: int, sequence: int, steps: int) -> None:
        self._last_sequences[actor_id, incarnation] = sequence
        self._incarnations[actor_id] = max(self._incarnations.get(actor_id, 0), incarnation)
        self._inserted += steps
        self._longest = max(self._longest, steps)

    def _reply(self, *, is_new: bool) -> InsertReply:
        counts = self.refresh()
        return InsertReply(
            is_new=is_new,
            counts=counts,
            can_insert=self._limiter.can_insert(counts, self._longest),
            policy_version=self._policy_version,
        )
