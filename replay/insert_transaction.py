"""Inserts as they travel: frames as plain strings to staging keys, then one script that moves them into place.

    MULTI · SET staged:0 frame · SET staged:1 frame · … · EVALSHA insert · DEL staged:0 staged:1 … · EXEC

Nothing of it happens before EXEC, and then all of it at once: a connection that dies half-way, a refused SET (out of
memory) and a refused script change nothing and leave nothing under a staging key. So all writers share the same few
staging keys. The server keeps a string that arrives by SET where it was received, while an argument of a script is
copied and hashed on the way in and copied again on the way out. This module decides nothing about retries.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from replay.codec import encode_into, frame_bytes
from replay.redis_dataset import RedisDataset
from replay.redis_session import Script
from replay.types import Segment

_TRANSACTION_BYTES = 2**19
"""Frames of one transaction, unless one alone is larger; a server holds this much for a writer that is half-way."""
_SEND_BYTES = 2**16
"""From this size on, what is ready is sent while the next frame is encoded; every send wakes the server up."""


class InsertTransactions:
    """Requests and answers of the inserts into one data set. Not thread-safe."""

    def __init__(self, dataset: RedisDataset) -> None:
        self.script = Script("insert")
        self._dataset = dataset
        self._buffer = bytearray()
        keys = (dataset.meta_key, dataset.counters_key, dataset.sequences_key, dataset.lengths_key)
        self._keys = tuple(key.encode() for key in keys)
        self._constants = (dataset.dataset_id.encode(), dataset.segment_prefix.encode())

    def requests(self, segments: Sequence[Segment]) -> Iterator[memoryview]:
        """What to send, in pieces; each is valid until the next one is asked for.

        Raises:
            InvalidSegmentError: if a segment does not fit the run; what was sent so far is half a transaction.
        """
        dataset, used = self._dataset, 0
        for part in self._parts(segments):
            used = self._write(used, _command(b"MULTI"))
            for number, segment in enumerate(part):
                if used > _SEND_BYTES:
                    with memoryview(self._buffer)[:used] as piece:
                        yield piece
                    used = 0
                size = frame_bytes(len(segment), dataset.spec)
                key = self._staging_key(number)
                used = self._write(used, b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(key), key, size))
                self._reserve(used + size)
                encode_into(self._buffer, used, segment, dataset.spec, dataset.run_id)
                used = self._write(used + size, b"\r\n")
            used = self._write(used, self._end(part))
        with memoryview(self._buffer)[:used] as piece:
            yield piece

    def read(self, connection: Any, segments: Sequence[Segment]) -> list[list[int]]:
        """What the script returned for each segment; the first error counts, because what follows it is only a gap."""
        return [reply for part in self._parts(segments) for reply in _read_transaction(connection, len(part))]

    def _parts(self, segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
        """The segments of each transaction."""
        first, total = 0, 0
        for index, segment in enumerate(segments):
            size = frame_bytes(len(segment), self._dataset.spec)
            if index > first and total + size > _TRANSACTION_BYTES:
                yield segments[first:index]
                first, total = index, 0
            total += size
        yield segments[first:]

    def _end(self, part: Sequence[Segment]) -> bytes:
        """All of a transaction behind its frames."""
        staged = [self._staging_key(number) for number in range(len(part))]
        words = [b"EVALSHA", self.script.sha.encode(), b"%d" % (len(self._keys) + len(staged))]
        words += [*self._keys, *staged, *self._constants]
        for segment in part:
            words.append(b"%d:%d" % (segment.actor_id, segment.incarnation))
            words += [b"%d" % number for number in (segment.sequence, len(segment), segment.policy_versions[-1])]
        # What was not stored is still staged.
        return _command(*words) + _command(b"DEL", *staged) + _command(b"EXEC")

    def _staging_key(self, number: int) -> bytes:
        return f"{self._dataset.staging_prefix}{number}".encode()

    def _write(self, start: int, data: bytes) -> int:
        end = start + len(data)
        self._reserve(end)
        self._buffer[start:end] = data
        return end

    def _reserve(self, size: int) -> None:
        if size > len(self._buffer):
            self._buffer.extend(bytes(size - len(self._buffer)))


def _read_transaction(connection: Any, num_segments: int) -> list[list[int]]:
    """Take the answers to one transaction off a connection."""
    from redis.exceptions import ResponseError

    first_error: Exception | None = None
    answer: list[Any] = []
    # MULTI, the SETs, the script, DEL, EXEC.
    for _ in range(num_segments + 4):
        try:
            answer = connection.read_response()
        except ResponseError as error:
            # Of a command that was not even queued; EXEC will only say that there was one.
            first_error = first_error or error
    if first_error is None:
        first_error = next((item for item in answer if isinstance(item, Exception)), None)
    if first_error is not None:
        raise first_error
    *_, replies, _ = answer
    return list(replies)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
