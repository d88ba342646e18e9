"""Sampling on the server: what several learners of one run use instead of a mirror each.

A script picks the transitions and answers with their records, so a batch is one round trip and a learner holds nothing.
What a learner sampled is counted on the server under its name; the samples-per-insert law is that of all together, and
several learners may overshoot it by one batch each.
"""

import logging
from typing import Self

import numpy as np
from jaxtyping import Float32, Int64

from replay.codec import HEAD_BYTES
from replay.errors import ReplayConfigError, ReplayError
from replay.rate_limiter import RateLimiter
from replay.records import are_finite, read_transitions, record_dtype, transition_dtype, version_offset
from replay.redis_dataset import RedisDataset
from replay.redis_session import RedisSession, Script
from replay.sampling import EVERYTHING, SampleRule
from replay.types import ReplayCounts, TransitionBatch, TransitionSpec

logger = logging.getLogger(__name__)

_MAX_ROUNDS = 8


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
        self._learners_key = f"hdqnn:{{{dataset.run_id}}}:learners"
        self._size = 0
        self._counts = ReplayCounts()
        self.own_sampled = int(dataset.session.call(lambda client: client.hget(self._learners_key, learner_id)) or 0)
        """Transitions that this learner ever sampled."""
        self.num_missed = 0
        """Transitions that fell out of the server before ``take`` came to them."""
        self.num_rejected = 0
        """Transitions with numbers that are not finite; they are left out."""
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
        self._request(0, 0, EVERYTHING)
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
        for _ in range(_MAX_ROUNDS):
            parts.append(self._request(missing, int(rng.integers(2**31)), rule))
            missing -= len(parts[-1])
            if missing == 0:
                return read_transitions(np.concatenate(parts) if len(parts) > 1 else parts[0], self.dataset.spec)
            if not len(parts[-1]):
                break
        raise ReplayError(
            f"the server gave {batch_size - missing} of {batch_size} transitions; expected enough that are held and "
            "new enough for the sample rule; ask can_sample() first, or loosen min_policy_version"
        )

    def take(self, count: int, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """First in, first out: up to ``count`` transitions that no learner of the run took before, in order of arrival.

        A batch whose answer was lost is given again. What is older than ``rule`` allows is skipped. Errors as of
        ``sample``.
        """
        return read_transitions(self._request(count, "", rule), self.dataset.spec)

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

    def _request(self, count: int, seed: int | str, rule: SampleRule) -> np.ndarray:
        """Records of what the server picks, and its counters."""
        dataset, layout = self.dataset, record_dtype(self.dataset.spec)
        run = dataset.session.script(
            self._script,
            (dataset.meta_key, dataset.counters_key, dataset.lengths_key, self._learners_key),
            dataset.dataset_id,
            dataset.segment_prefix,
            self._learner_id,
            self.own_sampled + count,
            count,
            seed,
            rule.newest,
            rule.min_policy_version,
            HEAD_BYTES,
            layout.itemsize,
            4 * dataset.spec.observation_size,
            version_offset(dataset.spec),
        )
        status, inserted, sampled, _, held, missed, reply = dataset.session.call(run)
        dataset.check_status(status)
        self._size = held
        self._counts = ReplayCounts(inserted=inserted, sampled=sampled)
        self.num_missed += missed
        transitions = np.frombuffer(reply, transition_dtype(dataset.spec))
        self.own_sampled += len(transitions)
        is_good = are_finite(transitions)
        if is_good.all():
            return transitions
        # A frame that no writer of ours made; a mirror refuses it as a whole.
        self.num_rejected += int(np.count_nonzero(~is_good))
        logger.warning("left out transitions that are not finite (%d so far)", self.num_rejected)
        good: np.ndarray = transitions[is_good]
        return good
