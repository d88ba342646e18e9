"""The ledger reads inserts and their answers off the wire, however the bytes are cut."""

import pytest

from benchmarks.faults.replay_faults import compare
from benchmarks.faults.wire_ledger import SegmentId, WireLedger


def request(*words):
    words = [str(word).encode() if not isinstance(word, bytes) else word for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def insert(actor, incarnation, *sequences, steps=8, frame=b"\r\n*3\r\n"):
    staged = [f"hdqnn:{{run}}:staged:{number}" for number in range(len(sequences))]
    keys = [*(f"hdqnn:{{run}}:{name}" for name in ("meta", "counters", "sequences", "lengths")), *staged]
    arguments = [word for sequence in sequences for word in (f"{actor}:{incarnation}", sequence, steps, 7)]
    return (
        request("MULTI")
        + b"".join(request("SET", key, frame) for key in staged)
        + request("EVALSHA", "sha", len(keys), *keys, "id", "hdqnn:{run}:segment:", *arguments)
        + request("DEL", *staged)
        + request("EXEC")
    )


def answer(*statuses):
    replies = b"".join(
        b"*5\r\n" + b"".join(b":%d\r\n" % number for number in (status, 8, 0, 1, 0)) for status in statuses
    )
    queued = b"+OK\r\n" + b"+QUEUED\r\n" * (len(statuses) + 2)
    done = b"*%d\r\n" % (len(statuses) + 2) + b"+OK\r\n" * len(statuses)
    return queued + done + b"*%d\r\n" % len(statuses) + replies + b":0\r\n"


NO_ROOM = b"+OK\r\n-OOM command not allowed\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT Transaction discarded\r\n"
NO_SCRIPT = b"+OK\r\n" + 3 * b"+QUEUED\r\n" + b"*3\r\n+OK\r\n-NOSCRIPT No matching script\r\n:1\r\n"
CONVERSATION = [
    (request("AUTH", "secret") + request("PING"), b"+OK\r\n+PONG\r\n"),
    (insert(1, 2, 3) + insert(1, 2, 4), answer(1) + answer(0)),
    (request("MGET", "a", "b"), b"*2\r\n$-1\r\n$3\r\nabc\r\n"),
    (insert(1, 2, 6), answer(2)),
    (insert(1, 2, 5), NO_ROOM),
    (insert(1, 2, 5), NO_SCRIPT),
    (insert(1, 2, 5, 6, 8, frame=b"x" * 100_000), answer(1, 1, 2)),
]


@pytest.mark.parametrize("piece", [1, 7, 10**6])
def test_sent_and_acknowledged_are_told_apart(piece):
    ledger = WireLedger(clock=lambda: 5.0)
    for sent, got in CONVERSATION:
        for is_reply, data in ((False, sent), (True, got)):
            for start in range(0, len(data), piece if len(data) < 10_000 else 5_000):
                ledger(0, is_reply, data[start : start + (piece if len(data) < 10_000 else 5_000)])
    assert ledger.sent() == [SegmentId(1, 2, sequence) for sequence in (3, 4, 6, 5, 5, 5, 6, 8)]
    assert [entry.segment.sequence for entry in ledger.acknowledged()] == [3, 4, 5, 6]
    assert {(entry.at_s, entry.steps) for entry in ledger.acknowledged()} == {(5.0, 8)}


def test_connections_are_kept_apart_and_an_answer_that_never_came_acknowledges_nothing():
    ledger = WireLedger()
    ledger(0, False, insert(0, 1, 0))
    ledger(1, False, insert(1, 1, 0))
    ledger(1, True, answer(1))
    assert [entry.segment.actor_id for entry in ledger.acknowledged()] == [1]


def test_comparing_finds_every_kind_of_difference():
    a, b, c, d = (SegmentId(0, 1, sequence) for sequence in range(4))
    assert compare({a, b}, [a, c, c], {a, d}) == {"acknowledged": 2, "lost": 1, "duplicated": 1, "unknown": 1}
