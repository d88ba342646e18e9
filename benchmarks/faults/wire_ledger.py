"""The ledger of (run, actor, incarnation, sequence), written by watching the wire: what was sent, what was answered.

It is independent of the code that it checks: a segment counts as acknowledged when the server's answer to its insert
was passed on to the actor, whatever the actor then made of it.
"""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple


class SegmentId(NamedTuple):
    """Names one segment of one run for ever."""

    actor_id: int
    incarnation: int
    sequence: int


class Acknowledged(NamedTuple):
    """One answered insert."""

    at_s: float
    segment: SegmentId
    steps: int


_STORED = (0, 1)
"""Statuses of the insert script that acknowledge: already stored, stored now."""
_NUM_RUN_KEYS, _NUM_RUN_ARGUMENTS = 4, 2
"""Of the insert script, before those of its segments."""


class WireLedger:
    """A tap for ``FaultProxy``. Thread-safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._requests: dict[int, _Reader] = defaultdict(_Reader)
        self._replies: dict[int, _Reader] = defaultdict(_Reader)
        self._queued: dict[int, list[tuple[SegmentId, int]]] = defaultdict(list)
        self._waiting: dict[int, deque[list[tuple[SegmentId, int]]]] = defaultdict(deque)
        self._sent: list[SegmentId] = []
        self._acknowledged: list[Acknowledged] = []

    def __call__(self, connection: int, is_reply: bool, data: bytes) -> None:
        """See ``proxy.Tap``."""
        with self._lock:
            if not is_reply:
                for request in self._requests[connection].feed(data):
                    self._waiting[connection].append(self._asked(connection, request))
                return
            for reply in self._replies[connection].feed(data):
                asked = self._waiting[connection].popleft()
                # EXEC answers with the answers to all that was queued; the script's is the only list.
                answers = reply if isinstance(reply, list) else []
                statuses = next((answer for answer in answers if isinstance(answer, list)), [])
                for found, (status, *_) in zip(asked, statuses, strict=False):
                    if status in _STORED:
                        self._acknowledged.append(Acknowledged(self._clock(), *found))

    def _asked(self, connection: int, request: object) -> list[tuple[SegmentId, int]]:
        """The segments that the answer to this request is about: of EXEC those of its transaction, else none."""
        found = _as_insert(request)
        self._sent += [segment for segment, _ in found]
        if request == [b"EXEC"]:
            return self._queued.pop(connection, [])
        self._queued[connection] += found
        return []

    def sent(self) -> list[SegmentId]:
        """Every insert that reached the server's side, in order; a segment that was sent twice is there twice."""
        with self._lock:
            return list(self._sent)

    def acknowledged(self) -> list[Acknowledged]:
        """Every answered insert, in order."""
        with self._lock:
            return list(self._acknowledged)


def _as_insert(request: object) -> list[tuple[SegmentId, int]]:
    """The segments and steps of an EVALSHA of the insert script, else none."""
    if not (isinstance(request, list) and len(request) > 9 and request[0] in (b"EVALSHA", b"EVAL")):
        return []
    num_keys = int(request[2])
    if num_keys <= _NUM_RUN_KEYS or not request[5].endswith(b":sequences"):
        return []
    arguments = request[3 + num_keys + _NUM_RUN_ARGUMENTS :]
    found = []
    for start in range(0, len(arguments), 4):
        who, sequence, steps, _ = arguments[start : start + 4]
        actor_id, incarnation = who.split(b":")
        found.append((SegmentId(int(actor_id), int(incarnation), int(sequence)), int(steps)))
    return found


class _Reader:
    """Cuts a stream into RESP2 values."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[object]:
        """Values that are complete now."""
        self._buffer += data
        values: list[object] = []
        end = 0
        while True:
            try:
                value, end = self._value(end)
            except IndexError:
                del self._buffer[:end]
                return values
            values.append(value)

    def _value(self, start: int) -> tuple[object, int]:
        """The value at a position and where it ends; IndexError where it is not complete."""
        stop = self._buffer.find(b"\r\n", start)
        if stop < 0:
            raise IndexError
        kind, line, position = chr(self._buffer[start]), bytes(self._buffer[start + 1 : stop]), stop + 2
        if kind in "+-":
            return line, position
        number = int(line)
        if kind == ":" or number < 0:
            return number, position
        if kind == "$":
            end = position + number + 2
            if end > len(self._buffer):
                raise IndexError
            return bytes(self._buffer[position : end - 2]), end
        values: list[object] = []
        for _ in range(number):
            value, position = self._value(position)
            values.append(value)
        return values, position
