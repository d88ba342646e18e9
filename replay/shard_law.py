"""The samples-per-insert law over several servers, each of which knows only its own inserts.

The law allows ``total`` = min_size + (sampled + centre_shift + error_buffer) / samples_per_insert inserts over all
servers. The learner deals them out as allowances: server k may hold up to allowance[k] inserts ever, and a writer asks
nothing but its own server. An allowance travels in the field ``sampled`` of the server's counters, which every answer
brings, so that scripts and frames are those of one server.

With n servers, window W = 2 · error_buffer / samples_per_insert, L the longest insert and B the largest sample:

- *Exact*: an allowance is at most ``total`` less, for each other server, the larger of its inserts and of the highest
  allowance that it may have been given. So inserts stay within ``total`` whichever servers hear of what and when (but
  for inserts that several writers of a server had asked for at once, as on one server), and the learner counts only
  what it has read, so that it never leads.
- *Nobody is blocked by another*: what an allowance exceeds its server's inserts by is at most an even part of what is
  left and at most W / n. A server with slow or dead actors therefore holds back at most W / n, and hands even that on:
  with each refresh what is left is dealt out anew, and setting an allowance brings the inserts in the same atomic
  answer. A server that does not answer keeps its W / n until it does (or until the deadline for outages ends the run).
- *No deadlock*: where the learner can do nothing, more than W - B / samples_per_insert inserts are left of ``total``.
  If W / n ≥ L + B / samples_per_insert then every server that answers gets at least W - B / samples_per_insert -
  (n - 1) · W / n ≥ L, also with all others away. That is ``check_chunks`` with n · L and n · B: each server's part of
  the slack must do for one server alone.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from replay.errors import ReplayConfigError
from replay.rate_limiter import SampleToInsertRatio
from replay.types import ReplayCounts


class WithinAllowance:
    """The writers' RateLimiter: the server's counter ``sampled`` is how much it may hold ever."""

    def can_insert(self, counts: ReplayCounts, num_transitions: int) -> bool:
        """Whether ``num_transitions`` more stay within the server's allowance."""
        return counts.inserted + num_transitions <= counts.sampled

    def can_sample(self, counts: ReplayCounts, num_transitions: int) -> bool:  # noqa: ARG002 - as of RateLimiter
        """Never: only the learner knows the other servers."""
        return False


class Allowances:
    """What each server may take, by what the learner knows; pure arithmetic.

    Args:
        limiter: the law over all servers together.
        counts: of each server, as it answered first; ``sampled`` is the allowance that it has.

    Raises:
        ReplayConfigError: if the law lets the learner lead, which leaves writers less than the whole window.
    """

    def __init__(self, limiter: SampleToInsertRatio, counts: Sequence[ReplayCounts]) -> None:
        if limiter.centre_shift < limiter.error_buffer:
            raise ReplayConfigError(
                f"several servers need a learner that never leads, got centre_shift {limiter.centre_shift} below "
                f"error_buffer {limiter.error_buffer}; make the limiter with SampleToInsertRatio.from_update_ratio"
            )
        self._limiter = limiter
        self._inserted = [each.inserted for each in counts]
        self._granted = [each.sampled for each in counts]
        window = 2 * Fraction(limiter.error_buffer) / Fraction(limiter.samples_per_insert)
        self._most_at_once = math.floor(window / len(counts))

    def offer(self, shard: int, sampled: int) -> int:
        """The allowance to send to a server now; until ``heard`` it may or may not have arrived.

        Args:
            shard: number of the server.
            sampled: transitions ever sampled by the learner.
        """
        total = self.total(sampled)
        part = min((total - sum(self._inserted)) // len(self._inserted), self._most_at_once)
        held = [max(pair) for pair in zip(self._inserted, self._granted, strict=True)]
        held_elsewhere = sum(held) - held[shard]
        allowance = max(0, min(self._inserted[shard] + part, total - held_elsewhere))
        self._granted[shard] = max(self._granted[shard], allowance)
        return allowance

    def heard(self, shard: int, counts: ReplayCounts) -> None:
        """A server's answer: its inserts, and the allowance that it has (``sampled``)."""
        self._inserted[shard], self._granted[shard] = counts.inserted, counts.sampled

    def total(self, sampled: int) -> int:
        """Inserts that the law allows over all servers."""
        law = self._limiter
        window_end = sampled + Fraction(law.centre_shift) + Fraction(law.error_buffer)
        return law.min_size_to_sample + math.floor(window_end / Fraction(law.samples_per_insert))
