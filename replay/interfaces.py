"""What writers, the learner and the run need from a replay. The Redis and the in-memory replay satisfy all three."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64

from replay.sampling import EVERYTHING, SampleRule
from replay.types import InsertReply, ReplayCounts, Segment, TransitionBatch


class SegmentWriter(Protocol):
    """The actors' side."""

    def insert(self, segment: Segment) -> InsertReply:
        """Store a segment exactly once, however often this is called with the same identity."""
        ...

    def insert_many(self, segments: Sequence[Segment]) -> InsertReply:
        """Store several, in their order and at the price of one; replies to the last."""
        ...

    def poll(self) -> InsertReply:
        """Counters, limiter and newest policy version without inserting (``is_new`` is False)."""
        ...


class TransitionSource(Protocol):
    """The learner's side."""

    def refresh(self) -> ReplayCounts:
        """Take in what writers inserted since the last call; returns the lifetime counters."""
        ...

    def can_sample(self, count: int) -> bool:
        """Whether the samples-per-insert law allows ``count`` more transitions now; never sleeps."""
        ...

    def sample(self, batch_size: int, rng: np.random.Generator, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """With replacement, uniform or by priority; counts towards the samples-per-insert law."""
        ...

    def update_priorities(self, indices: Int64[np.ndarray, "B"], td_errors: Float32[np.ndarray, "B"]) -> None:
        """Tell the temporal-difference errors of a batch; an error where the source draws uniformly."""
        ...

    def __len__(self) -> int:
        """Transitions held now."""
        ...
