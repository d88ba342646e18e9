"""Many short rows in one round trip: asks for them by GETRANGE and takes the answers straight off the socket.

redis-py spends longer on the answers to 256 of them than the server does. What is not the plain answer that is expected
here (an error, another protocol) is left to redis-py, which names it.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

_ROWS_PER_PIECE = 64
_MAX_ANSWER_BYTES = 1_024
"""Of the script's answer behind the rows."""


class UnexpectedAnswerError(Exception):
    """Something else came than rows and a list of numbers; the connection is in the middle of it."""


class RowReader:
    """Requests for rows of one data set, and their answers. Not thread-safe.

    Args:
        prefix: of the keys of the segments.
        head_bytes: where a frame's first record starts.
        record_bytes: from one record to the next.
        row_bytes: read from the start of each record on.
    """

    def __init__(self, prefix: str, head_bytes: int, record_bytes: int, row_bytes: int) -> None:
        self._prefix = prefix
        self._prefix_bytes = len(prefix.encode())
        self._head_bytes, self._record_bytes, self._row_bytes = head_bytes, record_bytes, row_bytes
        self._row_head = b"$%d\r\n" % row_bytes
        self._ranges: list[str] = []
        self._buffer = bytearray()

    def requests(self, indices: Int64[np.ndarray, "D"], steps: Int64[np.ndarray, "D"]) -> Iterator[bytes]:
        """D commands, in pieces to be sent one by one: the server answers the first while the rest is on its way.

        An answer is shorter than a row where the segment has no such step or is not held.
        """
        while len(self._ranges) <= steps.max(initial=-1):
            start = self._head_bytes + self._record_bytes * len(self._ranges)
            first, last = str(start), str(start + self._row_bytes - 1)
            self._ranges.append(f"${len(first)}\r\n{first}\r\n${len(last)}\r\n{last}\r\n")
        ranges, prefix, prefix_bytes = self._ranges, self._prefix, self._prefix_bytes
        for first_row in range(0, len(indices), _ROWS_PER_PIECE):
            part = slice(first_row, first_row + _ROWS_PER_PIECE)
            commands = [
                f"*4\r\n$8\r\nGETRANGE\r\n${prefix_bytes + len(index)}\r\n{prefix}{index}\r\n{ranges[step]}"
                for index, step in zip(map(str, indices[part].tolist()), steps[part].tolist(), strict=True)
            ]
            yield "".join(commands).encode()

    def receive(self, connection: Any, num_rows: int, num_numbers: int) -> tuple[memoryview, list[int]]:
        """Take the answers to ``requests``, and that to one script behind it, off a connection.

        Args:
            connection: of redis-py, with nothing read ahead.
            num_rows: D.
            num_numbers: length of the script's list, which ends with an empty list.

        Returns:
            The complete rows, one after the other, and the script's numbers.

        Raises:
            UnexpectedAnswerError: if anything else comes.
            OSError: if the connection ends or times out.
        """
        size = num_rows * (len(self._row_head) + self._row_bytes + 2) + _MAX_ANSWER_BYTES
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        with memoryview(self._buffer) as view:
            stream = _Stream(connection, self._buffer, view)
            rows = self._rows(stream, view, num_rows)
            # An error is one line, so no more may be waited for.
            if stream.line() != b"*%d" % (num_numbers + 1):
                raise UnexpectedAnswerError
            *numbers, end = [stream.line() for _ in range(num_numbers + 1)]
        if end != b"*0" or any(number[:1] != b":" for number in numbers):
            raise UnexpectedAnswerError
        return rows, [int(number[1:]) for number in numbers]

    def _rows(self, stream: "_Stream", view: memoryview, num_rows: int) -> memoryview:
        """The complete rows, each copied when it has come: the server works on those behind it meanwhile."""
        head, row_bytes = self._row_head, self._row_bytes
        rows = np.empty(num_rows * row_bytes, np.uint8).data
        used = 0
        for _ in range(num_rows):
            start = stream.position + len(head)
            # A shorter answer may be shorter than this, but never the last one: the script's comes behind it.
            while stream.received < start:
                stream.receive()
            if stream.buffer.startswith(head, stream.position):
                stream.position = start + row_bytes + 2
                while stream.received < stream.position:
                    stream.receive()
                rows[used : used + row_bytes] = view[start : start + row_bytes]
                used += row_bytes
                continue
            line = stream.line()
            if line[:1] != b"$" or not line[1:].isdigit() or int(line[1:]) >= row_bytes:
                raise UnexpectedAnswerError
            stream.position += int(line[1:]) + 2
        return rows[:used]


class _Stream:
    """What has come so far, and how far it was looked at."""

    def __init__(self, connection: Any, buffer: bytearray, view: memoryview) -> None:
        # redis-py's connections have no public way to read bytes.
        self._socket = getattr(connection, "_sock", None)
        self.buffer, self._view = buffer, view
        self.received = self.position = 0

    def receive(self) -> None:
        """Wait for more bytes."""
        if self._socket is None or self.received == len(self.buffer):
            raise UnexpectedAnswerError
        count = self._socket.recv_into(self._view[self.received :])
        if not count:
            raise ConnectionResetError("the server closed the connection")
        self.received += count

    def line(self) -> bytes:
        """The next line, without its end."""
        while (end := self.buffer.find(b"\r\n", self.position, self.received)) < 0:
            self.receive()
        line = bytes(self.buffer[self.position : end])
        self.position = end + 2
        return line
