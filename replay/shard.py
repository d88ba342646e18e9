"""One of several servers, as the learner sees it: counters, allowance, and the segments that it has not read yet."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from replay.errors import CredentialsRefusedError, ReplayFullError, ReplayUnreachableError
from replay.redis_dataset import RedisDataset
from replay.redis_tail import RedisTail
from replay.types import Segment

logger = logging.getLogger(__name__)

_RETRY_PERIOD_S = 0.25


class Inbox:
    """Segments read from one server on their way into the mirror; what a RedisTail fills."""

    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()

    def append(self, segment: Segment) -> None:
        """Take in a segment."""
        self.segments.append(segment)

    def clear(self) -> None:
        """Forget what has not been taken out."""
        self.segments.clear()


class Shard:
    """Follows one server; an outage shorter than the session's deadline is no error. Not thread-safe.

    Args:
        dataset: the run's data on that server.

    Raises:
        ReplayUnreachableError: if the server stays away.
        ReplayLostError: if it lost the run's data.
    """

    def __init__(self, dataset: RedisDataset) -> None:
        self.dataset = dataset
        self._inbox = Inbox()
        self.ring = dataset.session.call(dataset.read())
        self.num_read = 0
        """Transitions inserted up to the last segment read: what the learner may count on."""
        self._tail = RedisTail(dataset, self._inbox, self.ring)
        self._old_tails: list[RedisTail] = []
        self._must_start_over = False
        self._unannounced: int | None = None
        self._away_since: float | None = None
        self._next_try_at = 0.0

    @property
    def num_rejected_frames(self) -> int:
        """Frames that failed their checks and were skipped."""
        return sum(tail.num_rejected_frames for tail in (*self._old_tails, self._tail))

    @property
    def num_missed_segments(self) -> int:
        """Segments that fell out of the server before they were read."""
        return sum(tail.num_missed_segments for tail in (*self._old_tails, self._tail))

    @property
    def num_unread(self) -> int:
        """Segments on the server, as of the last exchange, that were not read."""
        return self.ring.next_index - self._next_index

    @property
    def has_lost_writes(self) -> bool:
        """Whether the server came back without writes that were read before."""
        return not self._must_start_over and self._tail.is_ahead_of(self.ring)

    def announce(self, version: int) -> None:
        """The newest policy version, which the next exchange tells the server."""
        self._unannounced = version

    def exchange(self, allowance: int) -> bool:
        """Set the allowance and hear the counters; returns whether the server answered.

        Raises:
            ReplayUnreachableError: if the server is away for longer than the deadline, or refuses the password.
            ReplayLostError: if it lost the run's data.
        """
        return self._waits_out(lambda: self._exchange(allowance))

    def start_over(self) -> None:
        """Read everything that the server holds again."""
        self._must_start_over = True

    def read(self, count: int) -> bool:
        """Take up to ``count`` more segments into the inbox; errors as of ``exchange``."""
        if self._must_start_over:
            self._old_tails.append(self._tail)
            self._tail = RedisTail(self.dataset, self._inbox, self.ring)
            self._must_start_over = False
        end = min(self.ring.next_index, self._next_index + count)
        # The mark is that of the segment read last before the exchange.
        part = replace(self.ring, next_index=end, mark=b"")
        return self._waits_out(lambda: self._tail.catch_up(part))

    def take_segments(self) -> list[Segment]:
        """What was read, in its order, out of the inbox."""
        segments = list(self._inbox.segments)
        self._inbox.clear()
        return segments

    def settle(self) -> None:
        """Everything that the last exchange told of is read."""
        self.num_read = self.ring.counts.inserted
        if self._away_since is not None:
            session = self.dataset.session
            logger.info("%s is back after %.1f s", session.label, session.clock() - self._away_since)
            self._away_since = None

    @property
    def _next_index(self) -> int:
        """Of the segment to read next."""
        oldest = self.ring.oldest_index
        return oldest if self._must_start_over else max(self._tail.position, oldest)

    def _exchange(self, allowance: int) -> None:
        session, dataset, marked_index = self.dataset.session, self.dataset, self._tail.last_index
        version = self._unannounced
        if allowance != self.ring.counts.sampled or version is not None:
            read = dataset.read(sampled=allowance, policy_version=version, marked_index=marked_index)
            try:
                self.ring = session.attempt(read)
            except ReplayFullError:
                # A full server refuses even this write; reading still works, and writers are stopped anyway.
                pass
            else:
                self._unannounced = None
                return
        self.ring = session.attempt(dataset.read(marked_index=marked_index))

    def _waits_out(self, action: Callable[[], None]) -> bool:
        """Whether the action was done; it is not while the server is away, which may not last past the deadline."""
        session = self.dataset.session
        if self._away_since is not None and session.clock() < self._next_try_at:
            return False
        try:
            action()
        except CredentialsRefusedError:
            raise
        except ReplayUnreachableError as error:
            if self._away_since is None:
                self._away_since = session.clock()
                logger.warning("sampling goes on without it for up to %.0f s: %s", session.deadline_s, error)
            if session.clock() - self._away_since > session.deadline_s:
                raise
            self._next_try_at = session.clock() + _RETRY_PERIOD_S
            return False
        return True
