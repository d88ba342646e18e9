"""Inserts that count once they are on the server's disk, and servers that cannot say so."""

import os
import signal
import time
from urllib.parse import urlsplit

import pytest
import redis

from replay.confirmed_writer import ConfirmedWriter
from replay.embedded_server import EmbeddedServer
from replay.errors import ReplayConfigError, ReplayUnreachableError
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from tests.integration.redis_fixtures import CAPACITY, LIMITER, held_rewards, wait_for_the_end
from tests.unit.replay.segments import SPEC, make_segment

pytestmark = pytest.mark.redis


def connect(server, deadline_s=10.0):
    return RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=deadline_s)


@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_an_insert_is_answered_once_it_is_on_the_disk(tmp_path, fsync):
    with EmbeddedServer.start(tmp_path, fsync="always") as server, redis.Redis.from_url(server.url) as client:
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        # A server of somebody else's may do it either way.
        client.config_set("appendfsync", fsync)
        writer = ConfirmedWriter(connect(server))
        before = int(client.info("commandstats").get("cmdstat_waitaof", {"calls": 0})["calls"])
        started_s = time.monotonic()
        for sequence in range(3):
            assert writer.insert(make_segment(sequence=sequence, first=4 * sequence)).is_new
            # Nothing that was written is still waiting for its fsync.
            assert client.execute_command("WAITAOF", 1, 0, 1)[0] == 1
        assert time.monotonic() - started_s < 10
        assert client.info("commandstats")["cmdstat_waitaof"]["calls"] >= before + 3
        assert not writer.insert(make_segment(sequence=2, first=8)).is_new
        os.kill(server.pid, signal.SIGKILL)
        wait_for_the_end(server)
        server.restart()
        learner = RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY)
        assert held_rewards(learner) == list(range(12))
        for end in (writer, learner):
            end.close()


def test_a_server_that_has_no_append_only_file_is_refused(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")
        with pytest.raises(ReplayConfigError) as caught:
            ConfirmedWriter(connect(server))
        for part in ("replay.durability is waitaof", "appendonly is disabled", "'appendonly yes'", "everysec"):
            assert part in str(caught.value)


def test_a_server_too_old_to_confirm_is_refused(tmp_path):
    with EmbeddedServer.start(tmp_path) as server:
        with (tmp_path / "server.conf").open("a") as file:
            file.write('rename-command WAITAOF ""\n')
        server.restart()
        with pytest.raises(ReplayConfigError, match=r"unknown command.*7\.2 or newer"):
            ConfirmedWriter(connect(server))


def test_a_user_who_may_not_ask_is_refused(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        rights = {"keys": ["hdqnn:*"], "commands": ["+@all", "-waitaof"]}
        client.acl_setuser("actor", enabled=True, passwords=["+canary"], **rights)
        url = f"redis://actor:canary@127.0.0.1:{urlsplit(server.url).port}/0"
        writer = RedisWriter.connect(url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
        with pytest.raises(ReplayConfigError, match="may call WAITAOF") as caught:
            ConfirmedWriter(writer)
        assert "canary" not in str(caught.value)


def test_a_disk_that_does_not_keep_up_is_waited_for_up_to_the_deadline(tmp_path, monkeypatch):
    """Its server says so by confirming nothing."""
    with EmbeddedServer.start(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        client.config_set("appendfsync", "everysec")
        writer = ConfirmedWriter(connect(server, deadline_s=0.2))
        # With everysec the next fsync is up to a second away, far beyond one millisecond.
        monkeypatch.setattr("replay.confirmed_writer._TIMEOUT_MS", 1)
        segments = [make_segment(sequence=sequence) for sequence in range(50)]
        with pytest.raises(ReplayUnreachableError, match=r"has not written its append-only file.*gave up after"):
            list(map(writer.insert, segments))
