"""Rows straight off a socket: every answer that a server may give, cut at every byte."""

import socket
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from replay.errors import ReplayUnreachableError
from replay.redis_sampler import RedisSampler
from replay.row_reader import RowReader, UnexpectedAnswerError
from tests.integration.redis_fixtures import CAPACITY, LIMITER, client, run_id, server, writer  # noqa: F401
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment

pytestmark = pytest.mark.redis

ROW = b"$-1\r\n*0\r\n+x"
READER = ("segment:", 5, 4, len(ROW))
NUMBERS = b"*3\r\n:12\r\n:-7\r\n*0\r\n"


def row(data):
    return b"$%d\r\n%b\r\n" % (len(data), data)


def received(answer, num_rows, piece=10**6):
    """What a reader makes of an answer that comes in pieces."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5.0)

    def send():
        for start in range(0, len(answer), piece):
            theirs.sendall(answer[start : start + piece])
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        rows, numbers = RowReader(*READER).receive(SimpleNamespace(_sock=ours), num_rows, 2)
        return bytes(rows), numbers
    finally:
        thread.join()
        ours.close()
        theirs.close()


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 50, 10**6])
@pytest.mark.parametrize(
    ("rows", "complete"),
    [([ROW, ROW], 2), ([ROW, b"", ROW[:-1], ROW], 2), ([b""], 0), ([b"", b""], 0), ([ROW[:3]] * 5, 0), ([b"", ROW], 1)],
)
def test_complete_rows_are_kept_and_others_left_out(rows, complete, piece):
    answer = b"".join(map(row, rows)) + NUMBERS
    assert received(answer, len(rows), piece) == (ROW * complete, [12, -7])


@pytest.mark.parametrize(
    "answer",
    [
        b"-WRONGTYPE Operation against a key\r\n" + NUMBERS,
        row(ROW) + b"-NOSCRIPT No matching script\r\n",
        row(ROW + b"x") + NUMBERS,
        b"$-1\r\n" + NUMBERS,
        b"$99999999999999999999\r\n" + NUMBERS,
        b"$x\r\n" + NUMBERS,
        row(ROW) + b"*3\r\n:12\r\n+OK\r\n*0\r\n",
        row(ROW) + b"*4\r\n:12\r\n:1\r\n:1\r\n*0\r\n",
        row(ROW) + b"-ERR " + b"x" * 5_000,
    ],
    ids=["error", "no script", "too long", "nothing", "huge", "no number", "no integer", "too many numbers", "endless"],
)
def test_anything_else_is_left_to_redis_py(answer):
    with pytest.raises(UnexpectedAnswerError):
        received(answer, 1)


def test_a_connection_that_ends_is_an_error_of_the_network():
    for length in range(len(row(ROW) + NUMBERS)):
        with pytest.raises(ConnectionResetError):
            received((row(ROW) + NUMBERS)[:length], 1)


def test_a_connection_without_a_socket_is_left_to_redis_py():
    with pytest.raises(UnexpectedAnswerError):
        RowReader(*READER).receive(SimpleNamespace(), 1, 2)


def test_requests_name_the_ranges():
    requests = RowReader("säg:", 5, 4, 12).requests(np.array([7, 123]), np.array([0, 30]))
    assert b"".join(requests) == (
        b"*4\r\n$8\r\nGETRANGE\r\n$6\r\ns\xc3\xa4g:7\r\n$1\r\n5\r\n$2\r\n16\r\n"
        b"*4\r\n$8\r\nGETRANGE\r\n$8\r\ns\xc3\xa4g:123\r\n$3\r\n125\r\n$3\r\n136\r\n"
    )


@pytest.fixture
def sampler(server, run_id, writer):
    writer.insert_many([make_segment(4, sequence=s, first=4 * s) for s in range(5)])
    opened = RedisSampler.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, learner_id="one", deadline_s=0.2)
    yield opened
    opened.close()


def test_redis_py_gives_the_same_batch(sampler, monkeypatch):
    fast = sampler.sample(300, np.random.default_rng(0))

    def refuse(*_):
        raise UnexpectedAnswerError

    monkeypatch.setattr(sampler._rows, "receive", refuse)
    assert_same_batch(fast, sampler.sample(300, np.random.default_rng(0)))
    assert sampler.own_sampled == 600


def test_a_server_that_forgot_its_scripts_is_taught_again(sampler, client):
    client.script_flush()
    sampler.sample(30, np.random.default_rng(0))
    assert sampler.own_sampled == sampler.refresh().sampled == 30


def test_an_answer_that_does_not_come_is_an_outage(sampler, client, monkeypatch):
    def silent(*_):
        raise TimeoutError("timed out")

    with monkeypatch.context() as patched:
        patched.setattr(sampler._rows, "receive", silent)
        with pytest.raises(ReplayUnreachableError):
            sampler.sample(30, np.random.default_rng(0))
    # The answers that nobody read went with their connection.
    assert len(sampler.sample(30, np.random.default_rng(0)).reward) == 30
