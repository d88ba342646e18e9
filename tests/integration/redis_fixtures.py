"""Real server, writer and learner for the tests of the replay on Redis."""

import os
import signal
import time

import numpy as np
import pytest
import redis

from replay.embedded_server import EmbeddedServer
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from tests.unit.replay.segments import SPEC

LIMITER = SampleToInsertRatio(2.0, 8, 16.0)
CAPACITY = 40


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedServer.start(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def run_id(request):
    return request.node.name


@pytest.fixture
def client(server):
    with redis.Redis.from_url(server.url) as opened:
        yield opened


@pytest.fixture
def writer(server, run_id):
    opened = RedisWriter.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=10)
    yield opened
    opened.close()


@pytest.fixture
def learner(server, run_id):
    opened = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=10)
    yield opened
    opened.close()


def held_rewards(replay: RedisReplay) -> list[float]:
    return replay._mirror.gather(np.arange(len(replay))).reward.tolist()


def wait_for_the_end(server: EmbeddedServer) -> None:
    deadline_s = time.monotonic() + 10
    while server.is_running() and time.monotonic() < deadline_s:
        time.sleep(0.01)


def kill_and_restart(server: EmbeddedServer) -> None:
    os.kill(server.pid, signal.SIGKILL)
    server.restart()
