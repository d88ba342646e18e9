"""The replay on Redis or Valkey as the learner sees it: the server holds the truth, a mirror in memory is sampled."""

import logging
from collections.abc import Sequence
from typing import Self

import numpy as np
from jaxtyping import Float32, Int64

from replay.errors import CredentialsRefusedError, ReplayFullError, ReplayUnreachableError
from replay.mirror import Mirror
from replay.rate_limiter import RateLimiter
from replay.redis_dataset import RedisDataset, RingState
from replay.redis_session import RedisSession
from replay.redis_tail import RedisTail
from replay.redis_writer import RedisWriter
from replay.sampling import EVERYTHING, SampleRule
from replay.types import InsertReply, Origin, ReplayCounts, Segment, TransitionBatch, TransitionSpec

logger = logging.getLogger(__name__)

_RETRY_PERIOD_S = 0.25


class RedisReplay:
    """SegmentWriter and TransitionSource. Actors that only write use ``RedisWriter``. Not thread-safe.

    While the server is away ``refresh`` returns the last counters and sampling goes on within the limiter's slack; only
    an outage longer than the deadline is an error. Writers wait it out.
    """

    def __init__(self, writer: RedisWriter, mirror: Mirror, limiter: RateLimiter) -> None:
        """Put together by ``connect``."""
        self._writer = writer
        self._dataset = writer.dataset
        self._session = writer.dataset.session
        self._mirror = mirror
        self._limiter = limiter
        self._away_since: float | None = None
        self._next_try_at = 0.0
        ring = self._session.call(self._dataset.read())
        self._tail = RedisTail(self._dataset, mirror, ring)
        self._inserted = ring.counts.inserted
        self._sampled = ring.counts.sampled
        self._pushed_sampled = ring.counts.sampled
        self._unannounced: int | None = None
        self._session.call(lambda _: self._tail.catch_up(ring))

    @classmethod
    def connect(
        cls,
        url: str,
        run_id: str,
        spec: TransitionSpec,
        limiter: RateLimiter,
        capacity: int,
        *,
        capacity_bytes: int = 0,
        is_prioritised: bool = False,
        dataset_id: str | None = None,
        deadline_s: float = 60.0,
        socket_timeout_s: float = 5.0,
    ) -> Self:
        """Open the run's data set and fill the mirror with what the server holds.

        Args:
            url: ``redis://[user:password@]host:port/db``.
            run_id: which run; several runs can share a server.
            spec: sizes of a transition.
            limiter: decides what ``can_insert`` and ``can_sample`` answer.
            capacity: transitions held; the oldest segments fall out.
            capacity_bytes: also at most this many bytes of frames; 0 for no such limit.
            is_prioritised: draw by temporal-difference error instead of uniformly. Priorities live in this process:
                after a restart everything held weighs alike until it is learned from again.
            dataset_id: the data set expected, from a checkpoint; None takes what is there or creates it.
            deadline_s: longest outage of the server that is waited out.
            socket_timeout_s: longest wait for one answer.

        Raises:
            ReplayConfigError: if the run exists with other settings, or the server may evict keys.
            ReplayLostError: if the server holds another data set than ``dataset_id``.
            ReplayUnreachableError: if the server stays away, or refuses the credentials.
        """
        session = RedisSession(url, deadline_s=deadline_s, socket_timeout_s=socket_timeout_s)
        dataset = RedisDataset(
            session, run_id, spec, capacity=capacity, capacity_bytes=capacity_bytes, dataset_id=dataset_id
        )
        mirror = Mirror(spec, capacity, capacity_bytes=capacity_bytes, is_prioritised=is_prioritised)
        return cls(RedisWriter(dataset, limiter, capacity), mirror, limiter)

    @property
    def dataset_id(self) -> str:
        """Identity of the data on the server, for a checkpoint to keep."""
        return self._dataset.dataset_id

    @property
    def num_rejected_frames(self) -> int:
        """Frames that failed their checks and were skipped."""
        return self._tail.num_rejected_frames

    @property
    def num_missed_segments(self) -> int:
        """Segments that fell out of the server before they were read."""
        return self._tail.num_missed_segments

    def row(self) -> dict[str, float]:
        """Values for a row of metrics."""
        return {
            "replay/rejected_frames": float(self.num_rejected_frames),
            "replay/missed_segments": float(self.num_missed_segments),
        }

    def register_actor(self, actor_id: int) -> int:
        """Start of an actor: its incarnation, from 1."""
        return self._writer.register_actor(actor_id)

    def insert(self, segment: Segment) -> InsertReply:
        """Store a segment exactly once; see ``RedisWriter.insert``."""
        return self._writer.insert(segment)

    def insert_many(self, segments: Sequence[Segment]) -> InsertReply:
        """Store several segments in one round trip; see ``RedisWriter.insert_many``."""
        return self._writer.insert_many(segments)

    def poll(self) -> InsertReply:
        """Counters, limiter and newest policy version without inserting."""
        return self._writer.poll()

    def announce_policy_version(self, version: int) -> None:
        """The newest published version, which every reply then reports; a server that is away hears of it later.

        Whoever publishes may be the one who starts the server again, so this never waits for it.
        """
        self._unannounced = version
        try:
            self._exchange()
        except CredentialsRefusedError:
            raise
        except (ReplayUnreachableError, ReplayFullError) as error:
            logger.warning("version %d is announced once the replay server is back: %s", version, error)

    def set_sampled(self, sampled: int) -> None:
        """Set the lifetime counter of samples, as after loading a checkpoint."""
        self._sampled = sampled
        self._session.call(self._dataset.read(sampled=sampled))
        self._pushed_sampled = sampled

    def refresh(self) -> ReplayCounts:
        """Take in new segments and tell the server how much was sampled.

        Raises:
            ReplayUnreachableError: if the server stays away for longer than the deadline, or refuses the password.
            ReplayLostError: if the server lost the run's data.
        """
        now = self._session.clock()
        if self._away_since is not None and now < self._next_try_at:
            return self.counts()
        try:
            ring = self._exchange()
            self._tail.catch_up(ring)
        except CredentialsRefusedError:
            raise
        except ReplayUnreachableError as error:
            if self._away_since is None:
                self._away_since = now
                logger.warning("sampling goes on from memory for up to %.0f s: %s", self._session.deadline_s, error)
            if self._session.clock() - self._away_since > self._session.deadline_s:
                raise
            self._next_try_at = self._session.clock() + _RETRY_PERIOD_S
            return self.counts()
        if self._away_since is not None:
            logger.info("the replay server is back after %.1f s", self._session.clock() - self._away_since)
            self._away_since = None
        self._inserted = ring.counts.inserted
        return self.counts()

    def counts(self) -> ReplayCounts:
        """Lifetime counters as of the last ``refresh`` and ``sample``."""
        return ReplayCounts(inserted=self._inserted, sampled=self._sampled)

    def can_sample(self, count: int) -> bool:
        """Whether the limiter allows ``count`` more transitions now."""
        return len(self) > 0 and self._limiter.can_sample(self.counts(), count)

    def sample(self, batch_size: int, rng: np.random.Generator, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """From the transitions held in memory; see ``Mirror.sample``."""
        batch = self._mirror.sample(batch_size, rng, rule)
        self._sampled += batch_size
        return batch

    def take(self, first_index: int, count: int, rule: SampleRule = EVERYTHING) -> tuple[TransitionBatch, int]:
        """First in, first out; see ``Mirror.take``. An index means nothing to another process."""
        batch, next_index = self._mirror.take(first_index, count, rule)
        self._sampled += len(batch.indices)
        return batch, next_index

    def update_priorities(self, indices: Int64[np.ndarray, "B"], td_errors: Float32[np.ndarray, "B"]) -> None:
        """See ``Mirror.update_priorities``."""
        self._mirror.update_priorities(indices, td_errors)

    def origins(self, indices: Int64[np.ndarray, "B"]) -> list[Origin]:
        """Who made these transitions."""
        return self._mirror.origins(indices)

    def __len__(self) -> int:
        """Transitions held in memory."""
        return len(self._mirror)

    def close(self) -> None:
        """Close the connections; calling it twice is fine."""
        self._writer.close()

    def _exchange(self) -> RingState:
        """Counters from the server, and our own and the version to the server where they changed."""
        sampled, version, marked_index = self._sampled, self._unannounced, self._tail.last_index
        if sampled != self._pushed_sampled or version is not None:
            read = self._dataset.read(sampled=sampled, policy_version=version, marked_index=marked_index)
            try:
                ring = self._session.attempt(read)
            except ReplayFullError:
                # A full server refuses even this write; reading still works, and writers are stopped anyway.
                pass
            else:
                self._pushed_sampled, self._unannounced = sampled, None
                return ring
        return self._session.attempt(self._dataset.read(marked_index=marked_index))
