"""The actors' side of the replay on Redis: every segment is stored exactly once, whatever the network does.

A command whose reply was lost may or may not have run, so it is sent again; the server recognises the segment by its
actor, incarnation and sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from replay.errors import SequenceGapError
from replay.insert_transaction import InsertTransactions
from replay.rate_limiter import RateLimiter
from replay.redis_dataset import RedisDataset
from replay.redis_session import RedisSession
from replay.types import InsertReply, ReplayCounts, Segment, TransitionSpec

_STATUS_NEW = 1
_STATUS_GAP = 2


@dataclass(slots=True)
class StartedInsert:
    """Segments on their way to the server."""

    segments: Sequence[Segment]
    connection: Any
    """Where the answer will come; None where sending failed or the answer was taken."""


class RedisWriter:
    """SegmentWriter that holds no transitions; one per actor process. Not thread-safe."""

    def __init__(self, dataset: RedisDataset, limiter: RateLimiter, capacity: int) -> None:
        self.dataset = dataset
        self._limiter = limiter
        self._capacity = capacity
        self._transactions = InsertTransactions(dataset)
        self._longest = 1

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
        deadline_s: float = 60.0,
        socket_timeout_s: float = 5.0,
    ) -> Self:
        """Open the run's data set for writing; arguments and errors as of ``RedisReplay.connect``."""
        session = RedisSession(url, deadline_s=deadline_s, socket_timeout_s=socket_timeout_s)
        dataset = RedisDataset(session, run_id, spec, capacity=capacity, capacity_bytes=capacity_bytes)
        return cls(dataset, limiter, capacity)

    def register_actor(self, actor_id: int) -> int:
        """Start of an actor: its incarnation, from 1."""
        return self.dataset.register_actor(actor_id)

    def insert(self, segment: Segment) -> InsertReply:
        """Store a segment exactly once; waits out a server that is away or full, up to the deadline.

        Raises:
            InvalidSegmentError: if the segment does not fit the run, is not finite, or exceeds the capacity.
            SequenceGapError: if an earlier sequence is missing.
            ReplayLostError: if the server lost the run's data.
            ReplayUnreachableError: if the server stays away.
            ReplayFullError: if the server stays full.
        """
        return self.insert_many((segment,))

    def insert_many(self, segments: Sequence[Segment]) -> InsertReply:
        """Store several segments in one round trip, in their order; errors as of ``insert``.

        Returns:
            The reply to the last one; ``is_new`` is True where any of them was new.
        """
        if not segments:
            return self.poll()
        self._check_lengths(segments)
        return self._checked(segments, self.dataset.session.call(lambda client: self._send(client, segments)))

    def start_insert(self, segments: Sequence[Segment]) -> StartedInsert:
        """Send several segments without waiting for the answer; ``finish_insert`` must follow before any other insert.

        Raises:
            InvalidSegmentError: as of ``insert``; nothing is sent then.
        """
        session = self.dataset.session
        self._check_lengths(segments)
        # In one piece: every send wakes the server up.
        packed = bytearray()
        for piece in self._transactions.requests(segments):
            packed += piece
        connection = None
        try:
            connection = session.client.connection_pool.get_connection()
            connection.send_packed_command([packed])
        except session.failures:
            if connection is not None:
                self._give_back(connection, is_clean=False)
            return StartedInsert(tuple(segments), None)
        return StartedInsert(tuple(segments), connection)

    def finish_insert(self, started: StartedInsert) -> InsertReply:
        """Take the answer to ``start_insert``; segments that got none are stored again. Errors as of ``insert``.

        After an error, calling it again tries again.
        """
        connection, started.connection = started.connection, None
        if connection is None:
            return self.insert_many(started.segments)
        is_clean = False
        try:
            replies: Any = self._transactions.read(connection, started.segments)
            is_clean = True
        except self.dataset.session.failures:
            replies = None
        finally:
            self._give_back(connection, is_clean=is_clean)
        return self.insert_many(started.segments) if replies is None else self._checked(started.segments, replies)

    def poll(self) -> InsertReply:
        """Counters, limiter and newest policy version without inserting."""
        ring = self.dataset.session.call(self.dataset.read())
        return self._reply(is_new=False, counts=ring.counts, policy_version=ring.policy_version)

    def close(self) -> None:
        """Close the connections; calling it twice is fine."""
        self.dataset.session.close()

    def _checked(self, segments: Sequence[Segment], replies: Sequence[list[int]]) -> InsertReply:
        """What the replies to all segments mean."""
        self._longest = max(self._longest, *(len(segment) for segment in segments))
        for segment, (status, *_, expected) in zip(segments, replies, strict=True):
            self.dataset.check_status(status)
            if status == _STATUS_GAP:
                raise SequenceGapError.of(
                    actor_id=segment.actor_id,
                    incarnation=segment.incarnation,
                    sequence=segment.sequence,
                    expected=expected,
                )
        _, inserted, sampled, policy_version, _ = replies[-1]
        return self._reply(
            is_new=any(status == _STATUS_NEW for status, *_ in replies),
            counts=ReplayCounts(inserted=inserted, sampled=sampled),
            policy_version=policy_version,
        )

    def _check_lengths(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            segment.check_length(self._capacity)

    def _send(self, client: Any, segments: Sequence[Segment]) -> list[list[int]]:
        try:
            return self._pipelined(client, segments)
        except self.dataset.session.script_missing:
            # A restarted server has forgotten its scripts.
            client.script_load(self._transactions.script.text)
            return self._pipelined(client, segments)

    def _pipelined(self, client: Any, segments: Sequence[Segment]) -> list[list[int]]:
        """Store each segment, with the answers of all transactions read at the end."""
        connection = client.connection_pool.get_connection()
        try:
            # Not redis-py's pipeline: it encodes everything before it sends anything, and the server would sit idle.
            for number, piece in enumerate(self._transactions.requests(segments)):
                # A PING in the middle would be taken into the transaction.
                connection.send_packed_command([piece], check_health=number == 0)
            return self._transactions.read(connection, segments)
        except BaseException:
            # Replies that nobody read must not meet the next command.
            connection.disconnect()
            raise
        finally:
            client.connection_pool.release(connection)

    def _give_back(self, connection: Any, *, is_clean: bool) -> None:
        """Return a connection to the pool; replies that nobody read must not meet the next command."""
        if not is_clean:
            connection.disconnect()
        self.dataset.session.client.connection_pool.release(connection)

    def _reply(self, *, is_new: bool, counts: ReplayCounts, policy_version: int) -> InsertReply:
        return InsertReply(
            is_new=is_new,
            counts=counts,
            can_insert=self._limiter.can_insert(counts, self._longest),
            policy_version=policy_version,
        )
