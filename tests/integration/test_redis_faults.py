"""Servers that die, fill up, lose data or change their password: nothing acknowledged is lost or doubled."""

import logging
import os
import shutil
import signal
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis

from benchmarks.faults.proxy import FaultProxy
from replay.embedded_server import EmbeddedServer
from replay.errors import (
    CredentialsRefusedError,
    ReplayConfigError,
    ReplayFullError,
    ReplayLostError,
    ReplayUnreachableError,
    SequenceGapError,
)
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.types import ReplayCounts
from tests.integration.redis_fixtures import (  # noqa: F401 - fixtures are used by name
    CAPACITY,
    LIMITER,
    held_rewards,
    kill_and_restart,
    run_id,
    server,
    wait_for_the_end,
)
from tests.unit.replay.segments import SPEC, make_segment

pytestmark = pytest.mark.redis


def test_an_emptied_server_is_a_lost_replay(tmp_path):
    with EmbeddedServer.start(tmp_path) as server:
        writer = RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
        learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
        writer.insert(make_segment())
        learner.refresh()
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
        for action in (lambda: writer.insert(make_segment(sequence=1)), writer.poll, learner.refresh):
            with pytest.raises(ReplayLostError, match="it was emptied, or restarted without"):
                action()
        # A new actor makes a new data set; the learner still notices.
        RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY).insert(make_segment())
        with pytest.raises(ReplayLostError):
            learner.refresh()


def test_acknowledged_segments_survive_kill_9(server, run_id):
    """Writers go on while the server is killed twice; in the end each acknowledged segment is there exactly once."""
    acknowledged: list[tuple[int, int]] = []
    stop = threading.Event()

    def write(actor_id: int) -> None:
        writer = RedisWriter.connect(server.url, run_id, SPEC, LIMITER, 10**6, deadline_s=20)
        incarnation = writer.register_actor(actor_id)
        sequence = 0
        while not stop.is_set():
            first = 100_000 * actor_id + 2 * sequence
            writer.insert(make_segment(2, actor_id=actor_id, incarnation=incarnation, sequence=sequence, first=first))
            acknowledged.append((actor_id, sequence))
            sequence += 1
        writer.close()

    threads = [threading.Thread(target=write, args=(actor_id,)) for actor_id in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for round_number in (1, 2, 3):
        deadline = time.monotonic() + 20
        while len(acknowledged) < 100 * round_number and time.monotonic() < deadline:
            time.sleep(0.005)
        if round_number < 3:
            kill_and_restart(server)
    stop.set()
    for thread in threads:
        thread.join(20)
    learner = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, 10**6)
    rewards = held_rewards(learner)
    assert len(acknowledged) >= 300
    assert len(rewards) == len(set(rewards))
    assert set(rewards) == {100_000 * actor + 2 * sequence + t for actor, sequence in acknowledged for t in (0, 1)}
    learner.close()


def test_lost_replies_store_once(server, run_id):
    target = urlsplit(server.url)
    proxy = FaultProxy(target.hostname, target.port)
    url = f"redis://:{target.password}@127.0.0.1:{proxy.port}/0"
    writer = RedisWriter.connect(url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=10, socket_timeout_s=0.5)
    learner = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY)
    writer.insert(make_segment(sequence=0, first=0))
    proxy.lose_replies = 1
    reply = writer.insert(make_segment(sequence=1, first=4))
    assert proxy.num_lost == 1
    assert not reply.is_new  # the attempt whose reply was lost had stored it
    proxy.lose_replies = 2
    writer.insert_many([make_segment(sequence=s, first=4 * s) for s in (2, 3, 4)])
    assert proxy.num_lost == 3
    assert learner.refresh().inserted == 20
    assert held_rewards(learner) == list(range(20))
    for end in (writer, learner, proxy):
        end.close()


def test_the_learner_outlives_an_outage(tmp_path, caplog):
    with EmbeddedServer.start(tmp_path) as server:
        learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=30)
        for sequence in range(3):
            learner.insert(make_segment(sequence=sequence))
        learner.refresh()
        os.kill(server.pid, signal.SIGKILL)
        wait_for_the_end(server)
        with caplog.at_level(logging.WARNING):
            assert learner.refresh() == ReplayCounts(inserted=12, sampled=0)
        assert "sampling goes on from memory for up to 30 s" in caplog.text
        assert learner.can_sample(8)
        learner.sample(8, np.random.default_rng(0))
        # Whoever publishes may be the one who has to start the server again.
        started = time.monotonic()
        learner.announce_policy_version(5)
        assert time.monotonic() - started < 5
        server.restart()
        deadline = time.monotonic() + 5
        while learner.refresh() and learner._away_since is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert learner.poll().counts == ReplayCounts(inserted=12, sampled=8)
        assert learner.poll().policy_version == 5


@pytest.mark.parametrize("num_new", [1, 6], ids=["fewer than before", "more than before"])
def test_a_server_that_lost_its_last_writes_is_read_again(tmp_path, caplog, num_new):
    """As after a power cut: the append-only file is an old one, and other segments take the lost ones' indices."""
    with EmbeddedServer.start(tmp_path) as server:
        learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=30)
        learner.insert_many([make_segment(sequence=s, first=4 * s) for s in range(3)])
        time.sleep(0.01)
        shutil.copytree(tmp_path / "appendonlydir", tmp_path / "old")
        learner.insert_many([make_segment(sequence=s, first=4 * s) for s in range(3, 6)])
        assert learner.refresh().inserted == 24
        os.kill(server.pid, signal.SIGKILL)
        wait_for_the_end(server)
        shutil.rmtree(tmp_path / "appendonlydir")
        (tmp_path / "old").rename(tmp_path / "appendonlydir")
        server.restart()
        with pytest.raises(SequenceGapError):
            learner.insert(make_segment(sequence=6))
        for sequence in range(num_new):
            learner.insert(make_segment(incarnation=2, sequence=sequence, first=100 + 4 * sequence))
        assert learner.refresh().inserted == 12 + 4 * num_new
        assert held_rewards(learner) == [*range(12), *range(100, 100 + 4 * num_new)]
        assert "came back without its last writes" in caplog.text


def test_a_long_outage_is_an_error(tmp_path):
    server = EmbeddedServer.start(tmp_path)
    learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=0.3)
    server.stop()
    learner.refresh()
    time.sleep(0.4)
    with pytest.raises(ReplayUnreachableError, match=r"no answer from the replay server at redis://127\.0\.0\.1"):
        learner.refresh()
    with pytest.raises(ReplayUnreachableError, match=r"gave up after 0\.\d s"):
        learner.insert(make_segment())


def test_a_full_server_makes_writers_wait(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        writer = RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=0.3)
        learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY)
        writer.insert_many([make_segment(sequence=s) for s in range(3)])
        learner.refresh()
        client.config_set("maxmemory", 1000)
        with pytest.raises(ReplayFullError) as caught:
            writer.insert(make_segment(sequence=3))
        for part in ["is out of memory", "raise its maxmemory", "gave up after"]:
            assert part in str(caught.value)
        learner.sample(4, np.random.default_rng(0))
        assert learner.refresh() == ReplayCounts(inserted=12, sampled=4)
        threading.Timer(0.2, lambda: client.config_set("maxmemory", 0)).start()
        patient = RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=10)
        assert patient.insert_many([make_segment(sequence=s) for s in (3, 4)]).is_new
        assert learner.refresh().inserted == 20
        assert writer.poll().counts.sampled == 4


def test_an_evicting_server_is_refused(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ReplayConfigError) as caught:
            RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY)
        for part in ["maxmemory-policy allkeys-lru", "expected noeviction", "deletes transitions"]:
            assert part in str(caught.value)


def test_wrong_password_is_refused_at_once_and_never_shown(server, run_id, caplog):
    port = urlsplit(server.url).port
    started = time.monotonic()
    with caplog.at_level(logging.DEBUG), pytest.raises(CredentialsRefusedError) as caught:
        RedisReplay.connect(f"redis://:canary-4711@127.0.0.1:{port}/0", run_id, SPEC, LIMITER, CAPACITY)
    assert time.monotonic() - started < 2
    for part in [f"redis://127.0.0.1:{port}/0 refuses the credentials", "check the user and the password in REDIS_URL"]:
        assert part in str(caught.value)
    shown = "".join(map(str, (caught.value, repr(caught.value), caught.value.__cause__, caplog.text)))
    assert "canary" not in shown


def test_a_password_changed_meanwhile_is_an_error_at_once(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY)
        client.config_set("requirepass", "another")
        client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(CredentialsRefusedError):
            learner.refresh()
