"""A dead server is started again at once, a crash loop is given time and then ends the run with the cause."""

import pytest

from cluster.errors import RunFailedError
from cluster.server_watch import ServerWatch


class Server:
    def __init__(self):
        self.lives, self.restarts = True, []

    def is_running(self):
        return self.lives

    def restart(self):
        self.restarts.append(self.now_s)
        self.lives = True

    def log_end(self):
        return "Out Of Memory allocating 123 bytes"


@pytest.fixture
def world():
    server = Server()
    server.now_s = 100.0
    return server, ServerWatch(server, lambda: server.now_s)


def test_a_server_that_lives_is_left_alone(world):
    server, watch = world
    watch.poll()
    assert server.restarts == []


def test_somebody_elses_server_is_not_watched():
    ServerWatch(None).poll()


def test_a_crash_loop_is_given_time_and_then_ends_the_run_with_the_servers_last_words(world):
    server, watch = world
    for _ in range(4):
        server.lives = False
        while not server.lives:
            watch.poll()
            if not server.lives:
                server.now_s += 0.25
    assert server.restarts == [100.0, 100.5, 101.5, 103.5]
    server.lives = False
    with pytest.raises(RunFailedError, match=r"died 5 times in a row.*Out Of Memory.*hdqnn resume"):
        watch.poll()


def test_deaths_far_apart_are_no_loop(world):
    server, watch = world
    for _ in range(10):
        server.now_s += 61.0
        server.lives = False
        watch.poll()
    assert len(server.restarts) == 10
