"""Sends segments at once and reads the server's answer at the next call, so that environments step while it works.

No thread: what is under way is in the socket. Segments whose answer does not come are stored again by the ordinary
writer, which recognises those that had arrived. What is under way counts as inserted wherever that matters, so the
samples-per-insert law holds as it does for a writer that waits.
"""

from collections.abc import Sequence

from replay.rate_limiter import RateLimiter
from replay.redis_writer import RedisWriter, StartedInsert
from replay.types import InsertReply, ReplayCounts, Segment


class DeferredWriter:
    """SegmentWriter with at most one insert under way. Not thread-safe.

    Args:
        writer: stores.
        limiter: the same law as the writer's.
    """

    def __init__(self, writer: RedisWriter, limiter: RateLimiter) -> None:
        self._writer = writer
        self._limiter = limiter
        self._started: StartedInsert | None = None
        self._longest = 1
        self._newest = writer.poll()

    def insert(self, segment: Segment) -> InsertReply:
        """As ``insert_many``."""
        return self.insert_many((segment,))

    def insert_many(self, segments: Sequence[Segment]) -> InsertReply:
        """Send segments, after the answer to those before them; errors of both as of RedisWriter.

        Returns:
            The newest answer of the server; counts and ``can_insert`` include what is under way.
        """
        self.flush()
        if not segments:
            return self._newest
        self._longest = max(self._longest, *(len(segment) for segment in segments))
        self._started = self._writer.start_insert(segments)
        counts = self._newest.counts
        ahead = ReplayCounts(inserted=counts.inserted + sum(map(len, segments)), sampled=counts.sampled)
        return InsertReply(
            is_new=self._newest.is_new,
            counts=ahead,
            can_insert=self._limiter.can_insert(ahead, self._longest),
            policy_version=self._newest.policy_version,
        )

    def poll(self) -> InsertReply:
        """As of RedisWriter, once everything is stored."""
        self.flush()
        self._newest = self._writer.poll()
        return self._newest

    def flush(self) -> None:
        """Wait until everything that was sent is stored; errors as of RedisWriter."""
        if self._started is not None:
            # Until this returns, what is under way stays known: a caller that tries again loses nothing.
            self._newest = self._writer.finish_insert(self._started)
            self._started = None

    def close(self) -> None:
        """Close the connections; calling it twice is fine. Call ``flush`` first to know that nothing is lost."""
        self._started = None
        self._writer.close()
