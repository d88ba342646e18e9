"""Servers with users of few rights, and servers behind TLS, reached by URL alone."""

import os
import re
import signal
import time
from urllib.parse import urlsplit

import pytest
import redis

from cluster.__main__ import run as hdqnn
from replay.embedded_server import EmbeddedServer
from replay.errors import CredentialsRefusedError, ReplayUnreachableError
from replay.learner_lease import hold_lease
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.types import ReplayCounts
from tests.integration.redis_fixtures import CAPACITY, LIMITER, held_rewards, wait_for_the_end
from tests.unit.replay.segments import SPEC, make_segment

pytest.importorskip("cryptography")
from tests.integration.tls_relay import TLSRelay, make_certificate

pytestmark = pytest.mark.redis

RIGHTS = [
    *("evalsha", "eval", "script|load", "mget", "hincrby", "info", "ping"),
    *("multi", "exec", "rename", "pexpire"),
    *("exists", "hget", "hmget", "hset", "set", "getrange", "rpush", "lpop", "del", "strlen", "pttl"),
]
"""As listed in replay/README.md, and what the scripts call."""
KEEPER_RIGHTS = ["evalsha", "eval", "scan", "memory|usage", "hmget", "getrange", "unlink", "object|idletime", "info"]
"""The same for `hdqnn replay`."""


@pytest.fixture
def server(tmp_path):
    with EmbeddedServer.start(tmp_path / "server") as started, redis.Redis.from_url(started.url) as client:
        client.acl_setuser(
            "run", enabled=True, passwords=["+canary"], keys=["hdqnn:*"], commands=[f"+{right}" for right in RIGHTS]
        )
        client.acl_setuser("reader", enabled=True, passwords=["+canary"], keys=["hdqnn:*"], commands=["+ping", "+info"])
        client.acl_setuser(
            "keeper",
            enabled=True,
            passwords=["+canary"],
            keys=["hdqnn:*"],
            commands=[f"+{right}" for right in KEEPER_RIGHTS],
        )
        yield started


def insert_and_read(url):
    with hold_lease(url, "run", "a learner"):
        pass
    writer = RedisWriter.connect(url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
    learner = RedisReplay.connect(url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
    incarnation = writer.register_actor(0)
    # More than fits, so that old segments fall out.
    for sequence in range(12):
        writer.insert(make_segment(incarnation=incarnation, sequence=sequence, first=4 * sequence))
    learner.set_sampled(3)
    learner.announce_policy_version(2)
    assert learner.refresh() == ReplayCounts(inserted=48, sampled=3)
    assert held_rewards(learner) == list(range(8, 48))
    assert writer.poll().policy_version == 2
    for end in (writer, learner):
        end.close()


def test_a_user_with_the_documented_rights_is_enough(server):
    port = urlsplit(server.url).port
    url = f"redis://run:canary@127.0.0.1:{port}/0"
    insert_and_read(url)
    with redis.Redis.from_url(url) as client:
        for forbidden in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("GET", "hdqnn:x"), ("HINCRBY", "other", "a", 1)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)


def test_a_user_with_too_few_rights_is_told_so_without_the_password(server):
    url = f"redis://reader:canary@127.0.0.1:{urlsplit(server.url).port}/0"
    with pytest.raises(CredentialsRefusedError, match="expected a user that may run scripts") as caught:
        RedisReplay.connect(url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
    assert "canary" not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.fixture
def relay(server, tmp_path):
    made = TLSRelay("127.0.0.1", urlsplit(server.url).port, *make_certificate(tmp_path, "server"))
    yield made
    made.close()


def test_rediss_with_the_right_authority_works(relay, tmp_path):
    insert_and_read(f"rediss://run:canary@127.0.0.1:{relay.port}/0?ssl_ca_certs={tmp_path / 'server.crt'}")
    assert relay.num_refused == 0


def test_runs_are_listed_and_dropped_with_the_documented_rights_over_tls(relay, tmp_path, capsys, monkeypatch):
    address = f"127.0.0.1:{relay.port}/0?ssl_ca_certs={tmp_path / 'server.crt'}"
    insert_and_read(f"rediss://run:canary@{address}")
    monkeypatch.setenv("REDIS_URL", f"rediss://keeper:canary@{address}")
    assert hdqnn(["replay", "list"]) == 0
    assert hdqnn(["replay", "drop", "run"]) == 0
    assert hdqnn(["replay", "list", "--servers", f"rediss://reader:canary@{address}"]) == 2
    said = capsys.readouterr()
    assert f"rediss://127.0.0.1:{relay.port}/0: " in said.out
    assert re.search(r"run +40 .* \d s  –\nrun: freed .* in 15 keys", said.out)
    assert "refuses the credentials" in said.err
    assert "canary" not in said.out + said.err
    assert relay.num_refused == 0


@pytest.mark.parametrize("authority", ["other", None])
def test_a_certificate_of_somebody_else_is_refused_and_the_password_never_sent(relay, tmp_path, authority):
    make_certificate(tmp_path, "other")
    options = "" if authority is None else f"?ssl_ca_certs={tmp_path / f'{authority}.crt'}"
    with pytest.raises(ReplayUnreachableError, match="certificate verify failed") as caught:
        RedisReplay.connect(
            f"rediss://run:canary@127.0.0.1:{relay.port}/0{options}", "run", SPEC, LIMITER, CAPACITY, deadline_s=0.1
        )
    assert "canary" not in str(caught.value)
    deadline_s = time.monotonic() + 5
    while relay.num_refused == 0:
        assert time.monotonic() < deadline_s, "the relay let it in"
        time.sleep(0.01)


def test_a_plain_connection_to_a_server_that_wants_tls_is_an_error(relay):
    with pytest.raises(ReplayUnreachableError):
        RedisReplay.connect(
            f"redis://run:canary@127.0.0.1:{relay.port}/0", "run", SPEC, LIMITER, CAPACITY, deadline_s=0.1
        )


def test_a_server_restarted_behind_tls_is_found_again(server, relay, tmp_path):
    url = f"rediss://:{urlsplit(server.url).password}@127.0.0.1:{relay.port}/0?ssl_ca_certs={tmp_path / 'server.crt'}"
    writer = RedisWriter.connect(url, "run", SPEC, LIMITER, CAPACITY, deadline_s=10)
    writer.insert(make_segment())
    os.kill(server.pid, signal.SIGKILL)
    wait_for_the_end(server)
    server.restart()
    assert writer.insert(make_segment(sequence=1)).counts.inserted == 8
    writer.close()
