"""Sampling on the server: what several learners of one run use instead of a mirror each.

A learner knows which segments the server holds, draws places in them and reads each with one command; all of them and
the counters travel in one round trip, and it keeps nothing. A place behind the end of a segment, or in one that has
fallen out, comes back short and is drawn again, so what is left is uniform over the transitions held.

What a learner sampled is counted on the server under its name; the samples-per-insert law is that of all together, and
several learners may overshoot it by one batch each.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Int64

from replay.codec import HEAD_BYTES
from replay.errors import ReplayConfigError, ReplayError
from replay.rate_limiter import RateLimiter
from replay.records import are_finite, read_transitions, record_dtype, transition_dtype, version_offset
from replay.redis_dataset import RedisDataset, key_of
from replay.redis_session import RedisSession, Script
from replay.row_reader import RowReader, UnexpectedAnswerError
from replay.sampling import EVERYTHING, SampleRule
from replay.types import ReplayCounts, TransitionBatch, TransitionSpec

logger = logging.getLogger(__name__)

_MAX_ROUNDS = 64
_MAX_DRAWS = 20_000
_SPARE_DRAWS = 8
_NUM_NUMBERS = 10
"""What the script returns before its rows."""
_KEPT_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Where a learner may draw, as of the last answer."""

    rule: SampleRule
    first_index: int
    """First segment with a transition that the rule allows."""
    num_skipped: int
    """Steps of that segment that are too old."""
    next_index: int
    """One past the last segment."""
    longest: int
    """Steps of the longest segment there ever was."""
    mean_steps: float
    """Of the segments in the window; only the cost depends on it."""

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Int64[np.ndarray, "D"], Int64[np.ndarray, "D"]]:
        """Segments and steps, uniform over a rectangle that holds the window; enough for ``count`` that exist."""
        if self.first_index >= self.next_index:
            return np.arange(0), np.arange(0)
        share = self.mean_steps / self.longest
        # Three standard deviations more than needed on average, so that a second round trip is rare.
        deviation = math.sqrt(count * (1.0 - min(share, 1.0)))
        num_draws = min(math.ceil((count + 3.0 * deviation) / share) + _SPARE_DRAWS, _MAX_DRAWS)
        indices = rng.integers(self.first_index, self.next_index, num_draws)
        steps = rng.integers(0, self.longest, num_draws)
        is_allowed = (indices > self.first_index) | (steps >= self.num_skipped)
        return indices[is_allowed], steps[is_allowed]


class RedisSampler:
    """TransitionSource without a mirror; one per learner process. Not thread-safe.

    Draws with replacement, uniform over what a rule allows, one step ahead; priorities and returns over several steps
    need a mirror (``RedisReplay``).
    """

    def __init__(self, dataset: RedisDataset, limiter: RateLimiter, learner_id: str) -> None:
        """Put together by ``connect``."""
        if not learner_id or ":" in learner_id:
            raise ReplayConfigError(f"learner_id must be a name without colons, got {learner_id!r}")
        self.dataset = dataset
        self._limiter = limiter
        self._learner_id = learner_id
        self._script = Script("sample")
        record_bytes, self._row_bytes = record_dtype(dataset.spec).itemsize, transition_dtype(dataset.spec).itemsize
        self._rows = RowReader(dataset.segment_prefix, HEAD_BYTES, record_bytes, self._row_bytes)
        self._learners_key = key_of(dataset.run_id, "learners")
        self._window: Window | None = None
        self._size = 0
        self._counts = ReplayCounts()
        self.own_sampled = int(dataset.session.call(lambda client: client.hget(self._learners_key, learner_id)) or 0)
        """Transitions that this learner ever sampled."""
        self.num_missed = 0
        """Transitions that fell out of the server before ``take`` came to them."""
        self.num_rejected = 0
        """Transitions with numbers that are not finite; they are left out."""
        # glibc keeps freed memory up to the largest block ever freed; without this every batch of a megabyte goes back
        # to the system, and getting its pages again takes as long as everything else.
        bytearray(_KEPT_BYTES)
        self.refresh()

    @classmethod
    def connect(
        cls,
        url: str,
        run_id: str,
        spec: TransitionSpec,
        limiter: RateLimiter,
        capacity: int,
        *,
        learner_id: str,
        capacity_bytes: int = 0,
        dataset_id: str | None = None,
        deadline_s: float = 60.0,
        socket_timeout_s: float = 5.0,
    ) -> Self:
        """Open the run's data set for sampling; ``learner_id`` names this learner, the rest as of ``RedisReplay``."""
        session = RedisSession(url, deadline_s=deadline_s, socket_timeout_s=socket_timeout_s)
        dataset = RedisDataset(
            session, run_id, spec, capacity=capacity, capacity_bytes=capacity_bytes, dataset_id=dataset_id
        )
        return cls(dataset, limiter, learner_id)

    def refresh(self) -> ReplayCounts:
        """Ask for the lifetime counters of the run.

        Raises:
            ReplayLostError: if the server lost the run's data.
            ReplayUnreachableError: if the server stays away.
        """
        self._window = self._call(EVERYTHING)[0]
        return self._counts

    def can_sample(self, count: int) -> bool:
        """Whether the limiter allows ``count`` more transitions, by the counters of the last answer."""
        return self._size > 0 and self._limiter.can_sample(self._counts, count)

    def sample(self, batch_size: int, rng: np.random.Generator, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """``batch_size`` transitions, uniform with replacement over what ``rule`` allows.

        Raises:
            ReplayError: if nothing is held yet, or nothing that the rule allows.
            ReplayConfigError: if the rule needs a mirror.
            ReplayLostError: if the server lost the run's data.
            ReplayUnreachableError: if the server stays away.
        """
        if rule.n_step > 1:
            raise ReplayConfigError(
                f"the server hands out single steps, the rule wants returns of {rule.n_step}; sample from a mirror"
            )
        parts: list[np.ndarray] = []
        missing = batch_size
        window = self._window
        # An age is exact only by counters of now; a policy version is checked row by row.
        if window is None or window.rule != rule or rule.newest:
            window, _ = self._call(rule)
        for number in range(_MAX_ROUNDS):
            if number and not len(self):
                break
            window, rows = self._call(rule, window.draw(missing, rng), sampled=self.own_sampled + batch_size)
            if rule.min_policy_version:
                rows = rows[rows["record"]["policy_version"] >= rule.min_policy_version]
            rows = rows[:missing]
            parts.append(rows)
            missing -= len(rows)
            if missing == 0:
                self._window = window
                self.own_sampled += batch_size
                return read_transitions(np.concatenate(parts) if number else rows, self.dataset.spec)
        self._call(rule, sampled=self.own_sampled)
        raise ReplayError(
            f"the server gave {batch_size - missing} of {batch_size} transitions; expected enough that are held and "
            "new enough for the sample rule; ask can_sample() first, or loosen min_policy_version"
        )

    def take(self, count: int, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """First in, first out: up to ``count`` transitions that no learner of the run took before, in order of arrival.

        A batch whose answer was lost is given again. What is older than ``rule`` allows is skipped. Errors as of
        ``sample``.
        """
        _, rows = self._call(rule, sampled=self.own_sampled, take=count)
        self.own_sampled += len(rows)
        return read_transitions(rows, self.dataset.spec)

    def update_priorities(self, indices: Int64[np.ndarray, "B"], td_errors: Float32[np.ndarray, "B"]) -> None:
        """Refused: the server keeps no priorities.

        Raises:
            ReplayConfigError: always.
        """
        del indices, td_errors
        raise ReplayConfigError("the server draws uniformly and keeps no priorities; use a mirror that is_prioritised")

    def __len__(self) -> int:
        """Transitions held by the server, as of the last answer."""
        return self._size

    def close(self) -> None:
        """Close the connections; calling it twice is fine."""
        self.dataset.session.close()

    def _call(
        self,
        rule: SampleRule,
        places: tuple[np.ndarray, np.ndarray] = (np.arange(0), np.arange(0)),
        *,
        sampled: int | None = None,
        take: int | None = None,
    ) -> tuple[Window, np.ndarray]:
        """Set this learner's count where given; returns the window of now, and rows at ``places`` or of the queue."""
        dataset, spec = self.dataset, self.dataset.spec
        keys = (dataset.meta_key, dataset.counters_key, dataset.lengths_key, self._learners_key)
        arguments = (
            dataset.dataset_id,
            dataset.segment_prefix,
            self._learner_id,
            "" if sampled is None else sampled,
            "" if take is None else take,
            rule.newest,
            rule.min_policy_version,
            HEAD_BYTES,
            record_dtype(spec).itemsize,
            4 * spec.observation_size,
            version_offset(spec),
        )
        rows, answer, taken = dataset.session.call(
            partial(self._exchange, keys=keys, arguments=arguments, places=places, is_fast=True)
        )
        status, inserted, all_sampled, held, missed, oldest, first, num_skipped, next_index, longest = answer
        dataset.check_status(status)
        self._size = held
        self._counts = ReplayCounts(inserted=inserted, sampled=all_sampled)
        self.num_missed += missed
        window = Window(
            rule=rule,
            first_index=first,
            num_skipped=num_skipped,
            next_index=next_index,
            longest=max(longest, 1),
            mean_steps=max(held / max(next_index - oldest, 1), 1.0),
        )
        return window, self._checked(b"".join(taken) if taken else rows)

    def _exchange(
        self,
        client: Any,
        *,
        keys: Sequence[str],
        arguments: Sequence[object],
        places: tuple[np.ndarray, np.ndarray],
        is_fast: bool,
    ) -> tuple[bytes | memoryview, list[int], list[bytes]]:
        """Read the rows, then run the script, in one round trip; what came and what the script took.

        ``is_fast`` is what redis-py cannot do; it is done without where anything but rows comes.
        """
        connection = client.connection_pool.get_connection()
        num_rows, again = len(places[0]), partial(self._exchange, client, keys=keys, arguments=arguments, places=places)
        try:
            script = connection.pack_command("EVALSHA", self._script.sha, len(keys), *keys, *arguments)
            connection.send_packed_command(chain(self._rows.requests(*places), [b"".join(script)]))
            if is_fast and num_rows:
                return *self._rows.receive(connection, num_rows, _NUM_NUMBERS), []
            rows = [connection.read_response() for _ in range(num_rows)]
            *answer, taken = connection.read_response()
            return b"".join(row for row in rows if len(row) == self._row_bytes), answer, taken
        except UnexpectedAnswerError:
            connection.disconnect()
            return again(is_fast=False)
        except self.dataset.session.script_missing:
            # A restarted server has forgotten its scripts.
            connection.disconnect()
            client.script_load(self._script.text)
            return again(is_fast=is_fast)
        except BaseException:
            # Replies that nobody read must not meet the next command.
            connection.disconnect()
            raise
        finally:
            client.connection_pool.release(connection)

    def _checked(self, rows: bytes | memoryview) -> np.ndarray:
        transitions = np.frombuffer(rows, transition_dtype(self.dataset.spec))
        is_good = are_finite(transitions)
        if is_good.all():
            return transitions
        # Of a frame that no writer of ours made; a mirror refuses it as a whole.
        self.num_rejected += int(np.count_nonzero(~is_good))
        logger.warning("left out transitions that are not finite (%d so far)", self.num_rejected)
        good: np.ndarray = transitions[is_good]
        return good
