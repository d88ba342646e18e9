"""For those who must not lose the last second to a power cut: an insert counts once the server's disk has it.

Costs a second round trip and the server's fsync per insert. The append-only file is written in order, so a small write
after the insert, waited for with WAITAOF, confirms the insert too, also one that had run before its reply was lost.
"""

from collections.abc import Sequence
from typing import Any

from replay.errors import CredentialsRefusedError, ReplayConfigError, ReplayError, ReplayUnreachableError
from replay.redis_writer import RedisWriter
from replay.types import InsertReply, Segment

_TIMEOUT_MS = 2_000
"""Of one WAITAOF; above the second that ``appendfsync everysec`` may take, below the socket's timeout."""


class ConfirmedWriter:
    """SegmentWriter whose replies mean: on the disk of the server. Not thread-safe.

    Args:
        writer: stores.

    Raises:
        ReplayConfigError: if the server cannot confirm.
        ReplayUnreachableError: if it stays away.
    """

    def __init__(self, writer: RedisWriter) -> None:
        self._writer = writer
        self._session = writer.dataset.session
        self._fence_key = f"{writer.dataset.meta_key}:fence"
        try:
            self._session.call(self._confirm)
        except ReplayError as error:
            if error.retryable:
                raise
            if isinstance(error, CredentialsRefusedError) and "WAITAOF" not in str(error).upper():
                raise
            raise ReplayConfigError(
                f"replay.durability is waitaof, but the server at {self._session.label} cannot confirm what is on its "
                f"disk ({error}); expected Valkey or Redis 7.2 or newer with 'appendonly yes' and a user that may "
                "call WAITAOF; or use replay.durability everysec, which may lose the last second when the server's "
                "machine dies"
            ) from error

    def insert(self, segment: Segment) -> InsertReply:
        """As ``insert_many``."""
        return self.insert_many((segment,))

    def insert_many(self, segments: Sequence[Segment]) -> InsertReply:
        """Store several segments and wait until they are on the disk; errors as of RedisWriter."""
        reply = self._writer.insert_many(segments)
        if segments:
            self._session.call(self._confirm)
        return reply

    def poll(self) -> InsertReply:
        """As of RedisWriter."""
        return self._writer.poll()

    def flush(self) -> None:
        """Nothing to do: whatever was inserted is stored."""

    def close(self) -> None:
        """Close the connections; calling it twice is fine."""
        self._writer.close()

    def _confirm(self, client: Any) -> None:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.set(self._fence_key, 1)
            pipeline.execute_command("WAITAOF", 1, 0, _TIMEOUT_MS)
            _, (num_local, _) = pipeline.execute()
        if num_local < 1:
            raise ReplayUnreachableError(
                f"the replay server at {self._session.label} has not written its append-only file for "
                f"{_TIMEOUT_MS / 1e3:.0f} s, expected less; is its disk busy or failing?"
            )
