"""How much may be sampled per transition inserted, and the reverse: the law that fixes the update-to-data ratio.

Pure arithmetic on lifetime counters. It never sleeps and holds no state: callers ask, and wait or go on as they like,
so one thread can drive both sides.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self

from replay.errors import ReplayConfigError
from replay.types import ReplayCounts


class RateLimiter(Protocol):
    """Decides from the counters alone."""

    def can_insert(self, counts: ReplayCounts, num_transitions: int) -> bool:
        """Whether a writer may insert ``num_transitions`` more."""
        ...

    def can_sample(self, counts: ReplayCounts, num_transitions: int) -> bool:
        """Whether the learner may sample ``num_transitions`` more."""
        ...


@dataclass(frozen=True, slots=True)
class SampleToInsertRatio:
    """Keeps samples within ``error_buffer`` of ``samples_per_insert`` times the transitions inserted.

    With error = inserted · samples_per_insert - sampled and centre = min_size_to_sample · samples_per_insert +
    centre_shift: sampling may not take the error below centre - error_buffer, inserting may not take it above centre +
    error_buffer. Before ``min_size_to_sample`` transitions are in, inserting is always allowed and sampling never. A
    machine of any speed then makes ``samples_per_insert`` · (inserted - min_size_to_sample) - ``centre_shift`` samples,
    give or take ``error_buffer``.

    The arithmetic is exact (rationals), so the proof in ``check_chunks`` holds after any number of steps.

    Raises:
        ReplayConfigError: where the settings would stop both sides for ever.

    Source: Reverb (arXiv:2102.04736), Section 3.2. Deviates: inserting is free until the minimum size is reached, where
    Reverb stops a chunk that would overshoot it, which can stop both sides when chunks are long.
    """

    samples_per_insert: float
    """Transitions sampled per transition inserted: updates per environment step times batch size."""
    min_size_to_sample: int
    """Transitions inserted before the first sample."""
    error_buffer: float
    """Slack to both sides, sampled transitions."""
    centre_shift: float = 0.0
    """Moves the window, sampled transitions; equal to ``error_buffer`` it keeps the learner from ever leading."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.samples_per_insert) and self.samples_per_insert > 0):
            raise ReplayConfigError(
                f"samples_per_insert must be finite and above 0, got {self.samples_per_insert}; with 0 nothing could "
                "ever be sampled"
            )
        if self.min_size_to_sample < 1:
            raise ReplayConfigError(
                f"min_size_to_sample must be at least 1, got {self.min_size_to_sample}; an empty replay has nothing to "
                "sample"
            )
        least = max(1.0, self.samples_per_insert)
        if not (math.isfinite(self.error_buffer) and self.error_buffer >= least):
            raise ReplayConfigError(
                f"error_buffer must be finite and at least max(1, samples_per_insert) = {least}, got "
                f"{self.error_buffer}; with less, one insert would stop the writers and the learner for ever"
            )

    @classmethod
    def from_update_ratio(
        cls, *, updates_per_step: float, batch_size: int, learning_starts: int, slack_steps: float
    ) -> Self:
        """The law in the terms of an RL run.

        Args:
            updates_per_step: learner updates per environment step (transition).
            batch_size: transitions per update.
            learning_starts: transitions before the first update.
            slack_steps: how many transitions writers may run ahead. The learner never does: it has made at most
                updates_per_step · (inserted - learning_starts) updates at any time.
        """
        samples_per_insert = updates_per_step * batch_size
        half_window = slack_steps * samples_per_insert / 2
        return cls(samples_per_insert, learning_starts, half_window, centre_shift=half_window)

    def can_insert(self, counts: ReplayCounts, num_transitions: int) -> bool:
        """Whether ``num_transitions`` more inserted transitions keep the error below its upper bound."""
        if counts.inserted < self.min_size_to_sample:
            return True
        excess = self._excess(counts.inserted + num_transitions, counts.sampled)
        return excess <= Fraction(self.centre_shift) + Fraction(self.error_buffer)

    def can_sample(self, counts: ReplayCounts, num_transitions: int) -> bool:
        """Whether ``num_transitions`` more sampled transitions keep the error above its lower bound."""
        if counts.inserted < self.min_size_to_sample:
            return False
        excess = self._excess(counts.inserted, counts.sampled + num_transitions)
        return excess >= Fraction(self.centre_shift) - Fraction(self.error_buffer)

    def check_chunks(self, *, largest_insert: int, largest_sample: int) -> None:
        """Refuse chunk sizes with which writers and learner could each wait for the other.

        Measured from the centre, both wait when excess + largest_insert · samples_per_insert > error_buffer and
        excess - largest_sample < -error_buffer. No excess satisfies both if and only if 2 · error_buffer ≥
        largest_insert · samples_per_insert + largest_sample.

        Args:
            largest_insert: transitions of the longest segment. ``InsertReply.can_insert`` answers for one more segment
                of that length; a writer that then sends several only overshoots, which the learner makes up for.
            largest_sample: transitions that the learner asks for at once, for instance the batch size.

        Raises:
            ReplayConfigError: with the smallest slack that works.
        """
        needed = (Fraction(self.samples_per_insert) * largest_insert + largest_sample) / 2
        if Fraction(self.error_buffer) < needed:
            raise ReplayConfigError(
                f"error_buffer is {self.error_buffer}, but inserting {largest_insert} and sampling {largest_sample} "
                f"transitions at once needs at least {float(needed)}: with less, writers and learner would wait for "
                f"each other for ever; allow a slack of {math.ceil(2 * needed / Fraction(self.samples_per_insert))} "
                "environment steps or more, or use shorter segments"
            )

    def _excess(self, inserted: int, sampled: int) -> Fraction:
        return (inserted - self.min_size_to_sample) * Fraction(self.samples_per_insert) - sampled
