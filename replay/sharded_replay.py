"""One run's replay over several servers: an actor's segments stay on one of them, one learner reads them all.

Identity and order of an actor's segments are a matter of one server, so storing exactly once is what ``RedisWriter``
does there. The learner tails every server into one mirror. ``replay/shard_law.py`` keeps the samples-per-insert law.
"""

import logging
from collections.abc import Sequence
from itertools import zip_longest
from typing import Self

import numpy as np
from jaxtyping import Float32, Int64

from replay.errors import ReplayConfigError
from replay.mirror import Mirror
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_dataset import RedisDataset
from replay.redis_session import RedisSession
from replay.sampling import EVERYTHING, SampleRule
from replay.server_urls import capacity_parts, check_number
from replay.shard import Shard
from replay.shard_law import Allowances
from replay.types import InsertReply, Origin, ReplayCounts, TransitionBatch, TransitionSpec

logger = logging.getLogger(__name__)

_SEGMENTS_AT_ONCE = 256
"""Of each server: what is on its way into the mirror is held twice."""


class ShardedReplay:
    """TransitionSource over several servers; not thread-safe.

    While a server is away the others go on, and what it holds stays in memory; only an outage longer than the deadline
    is an error.
    """

    def __init__(self, datasets: Sequence[RedisDataset], mirror: Mirror, limiter: SampleToInsertRatio) -> None:
        """Put together by ``connect``."""
        self._mirror = mirror
        self._limiter = limiter
        self._sampled = 0
        self._shards = [Shard(dataset) for dataset in datasets]
        self._allowances = Allowances(limiter, [shard.ring.counts for shard in self._shards])
        self._read(self._shards)

    @classmethod
    def connect(
        cls,
        urls: Sequence[str],
        run_id: str,
        spec: TransitionSpec,
        limiter: SampleToInsertRatio,
        capacity: int,
        *,
        capacity_bytes: int = 0,
        is_prioritised: bool = False,
        dataset_id: str | None = None,
        deadline_s: float = 60.0,
        socket_timeout_s: float = 5.0,
    ) -> Self:
        """Open the run's data sets and fill the mirror with what the servers hold.

        Args:
            urls: of the servers, always in the same order.
            run_id: which run.
            spec: sizes of a transition.
            limiter: the law over all servers; ``check_chunks`` must allow each of them its part of the slack.
            capacity: transitions held by all servers together, each an even part.
            capacity_bytes: the same in bytes of frames; 0 for no such limit.
            is_prioritised: draw by temporal-difference error instead of uniformly, as of ``RedisReplay.connect``.
            dataset_id: what ``dataset_id`` said, from a checkpoint; None takes what is there or creates it.
            deadline_s: longest outage of a server that is waited out.
            socket_timeout_s: longest wait for one answer.

        Raises:
            ReplayConfigError: as of ``RedisReplay.connect``, or if a server is named twice or their number changed.
            ReplayLostError: if one of the servers holds another data set than ``dataset_id`` says.
            ReplayUnreachableError: if one of them stays away.
        """
        check_number(dataset_id, len(urls))
        expected = [None] * len(urls) if dataset_id is None else dataset_id.split(",")
        parts = capacity_parts(len(urls), capacity, capacity_bytes)
        datasets = []
        for url, expected_id in zip(urls, expected, strict=True):
            session = RedisSession(url, deadline_s=deadline_s, socket_timeout_s=socket_timeout_s)
            datasets.append(
                RedisDataset(session, run_id, spec, capacity=parts[0], capacity_bytes=parts[1], dataset_id=expected_id)
            )
        labels = [dataset.session.label for dataset in datasets]
        if len({dataset.dataset_id for dataset in datasets}) < len(datasets):
            raise ReplayConfigError(
                f"REDIS_URL must name different servers or databases, got {', '.join(labels)}: some are the same"
            )
        mirror = Mirror(spec, capacity, capacity_bytes=capacity_bytes, is_prioritised=is_prioritised)
        return cls(datasets, mirror, limiter)

    @property
    def dataset_id(self) -> str:
        """Identities of the data on the servers, in their order, for a checkpoint to keep."""
        return ",".join(shard.dataset.dataset_id for shard in self._shards)

    def row(self) -> dict[str, float]:
        """Values for a row of metrics."""
        return {
            "replay/rejected_frames": float(sum(shard.num_rejected_frames for shard in self._shards)),
            "replay/missed_segments": float(sum(shard.num_missed_segments for shard in self._shards)),
        }

    def poll(self) -> InsertReply:
        """Counters, limiter and newest policy version over all servers, as of the last exchange."""
        counts = self.counts()
        return InsertReply(
            is_new=False,
            counts=counts,
            can_insert=self._limiter.can_insert(counts, 1),
            policy_version=max(shard.ring.policy_version for shard in self._shards),
        )

    def announce_policy_version(self, version: int) -> None:
        """The newest published version, which every server then reports; one that is away hears of it later."""
        for shard in self._shards:
            shard.announce(version)
        self._exchange()

    def set_sampled(self, sampled: int) -> None:
        """Set the lifetime counter of samples, as after loading a checkpoint; it is 0 before."""
        self._sampled = sampled

    def refresh(self) -> ReplayCounts:
        """Take in new segments of all servers, and deal out what may be inserted.

        Raises:
            ReplayUnreachableError: if a server stays away for longer than the deadline, or refuses the password.
            ReplayLostError: if one lost the run's data.
        """
        self._read(self._exchange())
        return self.counts()

    def counts(self) -> ReplayCounts:
        """Lifetime counters of what was read and sampled."""
        return ReplayCounts(inserted=sum(shard.num_read for shard in self._shards), sampled=self._sampled)

    def can_sample(self, count: int) -> bool:
        """Whether the limiter allows ``count`` more transitions now."""
        return len(self) > 0 and self._limiter.can_sample(self.counts(), count)

    def sample(self, batch_size: int, rng: np.random.Generator, rule: SampleRule = EVERYTHING) -> TransitionBatch:
        """From the transitions held in memory; see ``Mirror.sample``."""
        batch = self._mirror.sample(batch_size, rng, rule)
        self._sampled += batch_size
        return batch

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
        for shard in self._shards:
            shard.dataset.session.close()

    def _exchange(self) -> list[Shard]:
        """Allowances to the servers, counters from them; returns those that answered."""
        answered = []
        # One after another: what one of them may get depends on what the one before has confirmed.
        for number, shard in enumerate(self._shards):
            if shard.exchange(self._allowances.offer(number, self._sampled)):
                self._allowances.heard(number, shard.ring.counts)
                answered.append(shard)
        return answered

    def _read(self, shards: Sequence[Shard]) -> None:
        """Everything that the exchange told of, a segment of each server in turn."""
        lossy = [shard.dataset.session.label for shard in shards if shard.has_lost_writes]
        if lossy:
            # The mirror cannot forget one server's part alone.
            logger.warning("%s came back without its last writes; reading everything again", ", ".join(lossy))
            self._mirror.clear()
            for shard in self._shards:
                shard.start_over()
        unread = {shard: shard.num_unread for shard in shards}
        num_rounds = max(1, -(-max(unread.values(), default=0) // _SEGMENTS_AT_ONCE))
        reading = list(shards)
        for number in range(num_rounds):
            # An even part of what each has: then segments of like age come together, also from an uneven start.
            reading = [shard for shard in reading if shard.read(_part(unread[shard], number, num_rounds))]
            # Also what came before an error.
            for segments in zip_longest(*(shard.take_segments() for shard in shards)):
                for segment in segments:
                    if segment is not None:
                        self._mirror.append(segment)
        for shard in reading:
            shard.settle()


def _part(count: int, number: int, num_parts: int) -> int:
    """Size of one of ``num_parts`` even parts of ``count``."""
    return count * (number + 1) // num_parts - count * number // num_parts
