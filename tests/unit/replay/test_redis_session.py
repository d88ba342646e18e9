import socket
import threading

import pytest

from replay.errors import CredentialsRefusedError, ReplayConfigError, ReplayFullError, ReplayUnreachableError
from replay.redis_session import RedisSession, describe_url


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("redis://:canary@host:7000/0", "redis://host:7000/0"),
        ("rediss://user:canary@host/1", "rediss://host/1"),
        ("redis://host:7000/0?password=canary", "redis://host:7000/0"),
        ("unix://:canary@/tmp/socket", "unix:///tmp/socket"),
        ("redis://:can#ary@host:7000", "the server in REDIS_URL"),
        ("redis://:can/ary@host:7000", "the server in REDIS_URL"),
        ("redis://:12/ary@host:7000", "the server in REDIS_URL"),
        ("redis://:canary@[::1", "the server in REDIS_URL"),
    ],
)
def test_no_part_of_a_password_in_the_label(url, label):
    assert describe_url(url) == label


@pytest.mark.parametrize("url", ["redis://:can#ary@host:7000", "http://:canary@host", "redis://:canary@[::1"])
def test_unreadable_url_names_no_password(url):
    with pytest.raises(ReplayConfigError) as caught:
        RedisSession(url)
    assert "expected redis://" in str(caught.value)
    assert "ary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


class FakeTime:
    def __init__(self):
        self.now_s = 0.0
        self.pauses_s = []

    def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def session(time):
    return RedisSession("redis://host", deadline_s=10.0, clock=lambda: time.now_s, sleep=time.sleep)


class Scripted:
    """Raises the errors one after another, then answers."""

    def __init__(self, *errors: Exception):
        self.errors = list(errors)

    def __call__(self, client: object) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_call_waits_longer_and_longer(session, time):
    from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError, TimeoutError

    errors = [ConnectionError(), TimeoutError(), BusyLoadingError(), ReadOnlyError(), OutOfMemoryError(), OSError()]
    assert session.call(Scripted(*errors, ConnectionError())) == "answer"
    assert time.pauses_s == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0]


@pytest.mark.parametrize(
    ("name", "text", "expected", "part"),
    [
        ("ConnectionError", "refused", ReplayUnreachableError, "no answer from the replay server at redis://host"),
        ("OutOfMemoryError", "used", ReplayFullError, "raise its maxmemory"),
        ("ResponseError", "ERR Error running script: -OOM command not allowed", ReplayFullError, "raise its maxmemory"),
        ("ResponseError", "MISCONF Errors writing to the AOF file", ReplayFullError, "cannot write its data"),
    ],
)
def test_call_gives_up_at_the_deadline(session, time, name, text, expected, part):
    import redis.exceptions

    error = getattr(redis.exceptions, name)(text)
    with pytest.raises(expected) as caught:
        session.call(Scripted(*[error] * 100))
    assert 9.0 <= time.now_s <= 10.0
    for piece in [part, "gave up after"]:
        assert piece in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize("name", ["AuthenticationError", "NoPermissionError"])
def test_refused_credentials_are_not_tried_again(session, time, name):
    import redis.exceptions

    with pytest.raises(CredentialsRefusedError) as caught:
        session.call(Scripted(getattr(redis.exceptions, name)("no")))
    assert time.pauses_s == []
    assert not caught.value.retryable


def test_one_attempt_is_one_connection():
    """redis-py's own retries, which would send a command twice, are off."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up():
            while True:
                try:
                    connections.append(listener.accept())
                except OSError:
                    return
                connections[-1][0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        session = RedisSession(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(ReplayUnreachableError):
            session.attempt(lambda client: client.ping())
    assert len(connections) == 1
