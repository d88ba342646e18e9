"""What runs keep on real servers: it is listed as it is, and a drop takes one run's data and nothing else's."""

import re
import time
from urllib.parse import urlsplit

import pytest
import redis

from cluster.__main__ import run as hdqnn
from replay import stored_runs
from replay.embedded_server import EmbeddedServer
from replay.errors import ReplayConfigError, ReplayFullError, ReplayLostError
from replay.learner_lease import hold_lease
from replay.opening import open_replay, open_writer
from replay.redis_replay import RedisReplay
from replay.redis_session import RedisSession
from replay.redis_writer import RedisWriter
from replay.stored_runs import drop_run, read_contents
from tests.integration.redis_fixtures import CAPACITY, LIMITER
from tests.integration.test_sharded_replay import LIMITER as SHARDED_LIMITER
from tests.unit.replay.segments import HUMANOID, SPEC, make_segment

pytestmark = pytest.mark.redis

AWKWARD = ["pqc", "pqc*", "pqc?", "pqc[1]", "pqc1", "pqc\\", "pqc\\*", "pqc-Ω é"]
"""Each looks like others to a pattern, or is the beginning of them."""


@pytest.fixture
def server(tmp_path):
    with EmbeddedServer.start(tmp_path / "server") as started:
        yield started


@pytest.fixture
def client(server):
    with redis.Redis.from_url(server.url) as opened:
        yield opened


@pytest.fixture
def session(server):
    opened = RedisSession(server.url, deadline_s=5)
    yield opened
    opened.close()


def fill(url, run_id, num_segments=12):
    """A run that was and is over: what its learner, its actor and its lease leave."""
    learner = RedisReplay.connect(url, run_id, SPEC, LIMITER, CAPACITY)
    incarnation = learner.register_actor(0)
    for sequence in range(num_segments):
        learner.insert(make_segment(incarnation=incarnation, sequence=sequence))
    learner.refresh()
    learner.close()
    return learner.dataset_id


def url_of(client):
    """The URL of a server by a client of it."""
    options = client.connection_pool.connection_kwargs
    return f"redis://:{options['password']}@{options['host']}:{options['port']}/0"


def snapshot(client, without="never"):
    """All keys and values, but for one run's."""
    keys = [key for key in client.keys("*") if not key.startswith(f"hdqnn:{{{without}}}:".encode())]
    return {key: client.dump(key) for key in keys}


def test_what_is_there_is_listed(server, client, session):
    client.set("of another program", "x" * 10_000)
    client.set(b"hdqnn:{not \xff text}:meta", "x")
    before = client.info("memory")["used_memory"]
    fill(server.url, "small", 3)
    fill(server.url, "large", 400)
    with hold_lease(server.url, "large", "/runs/large on one"):
        contents = read_contents(session)
    growth = client.info("memory")["used_memory"] - before
    assert contents.label == f"redis://127.0.0.1:{urlsplit(server.url).port}/0"
    assert contents.limit_bytes == 0
    assert contents.used_bytes > growth
    assert [each.run_id for each in contents.runs] == ["large", "small"]
    large, small = contents.runs
    assert (large.num_transitions, small.num_transitions) == (CAPACITY, 12)
    # meta, counters, sequences, incarnations, lengths, segments; the lease while it is held.
    assert (large.num_keys, small.num_keys) == (5 + CAPACITY // 4 + 1, 5 + 3)
    assert 0 < small.num_bytes < large.num_bytes < growth
    assert (large.learner, small.learner) == ("/runs/large on one", "")


def test_the_memory_is_that_of_the_server(server, client, session):
    before = client.info("memory")["used_memory"]
    learner = RedisReplay.connect(server.url, "run", HUMANOID, LIMITER, 10_000)
    learner.insert_many([make_segment(64, spec=HUMANOID, sequence=sequence) for sequence in range(60)])
    learner.close()
    (stored,) = read_contents(session).runs
    growth = client.info("memory")["used_memory"] - before
    assert stored.num_bytes > 9_000_000
    assert stored.num_bytes == pytest.approx(growth, rel=0.15)


def test_looking_is_no_use_of_a_run(server, session):
    fill(server.url, "run", 3)
    time.sleep(4)
    for _ in range(2):
        (stored,) = read_contents(session).runs
        assert stored.unused_s >= 3
    RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY).insert(make_segment(incarnation=2))
    assert read_contents(session).runs[0].unused_s < 3


def test_a_run_that_stored_nothing_and_a_server_that_does_not_tell(server, client, session):
    fill(server.url, "run", 0)
    assert read_contents(session).runs[0].unused_s is None
    fill(server.url, "run", 1)
    client.config_set("maxmemory-policy", "allkeys-lfu")
    (stored,) = read_contents(session).runs
    assert (stored.unused_s, stored.num_transitions) == (None, 4)


@pytest.mark.parametrize("run_id", AWKWARD)
def test_a_drop_leaves_everything_else_untouched(server, client, session, monkeypatch, run_id):
    monkeypatch.setattr(stored_runs, "_KEYS_PER_CALL", 10)
    client.set("hdqnn", "x")
    client.set("of another program", "x")
    client.set(f"hdqnn:{{{run_id}", "x")
    for each in AWKWARD:
        fill(server.url, each)
    stored = {each.run_id: each for each in read_contents(session).runs}
    assert set(stored) == set(AWKWARD)
    others = snapshot(client, without=run_id)
    dropped = drop_run(session, run_id)
    assert snapshot(client) == others
    assert dropped.num_keys == stored[run_id].num_keys == 15
    assert dropped.num_bytes == stored[run_id].num_bytes
    assert {each.run_id for each in read_contents(session).runs} == set(AWKWARD) - {run_id}


def test_whoever_comes_back_finds_a_lost_replay(server, client, session):
    writer = RedisWriter.connect(server.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=5)
    writer.insert(make_segment())
    dataset_id = fill(server.url, "run")
    drop_run(session, "run")
    with pytest.raises(ReplayLostError, match=r"they were dropped \(`hdqnn replay drop`\)"):
        RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY, dataset_id=dataset_id)
    with pytest.raises(ReplayLostError):
        writer.insert(make_segment(sequence=1))
    writer.close()
    assert client.keys("*") == []


def test_a_run_that_is_learned_from_keeps_everything(server, client, session):
    fill(server.url, "run")
    with hold_lease(server.url, "run", "/runs/run on one"):
        before = snapshot(client)
        with pytest.raises(ReplayConfigError, match=r"learner works with the data of run 'run' .*: /runs/run on one"):
            drop_run(session, "run")
        assert snapshot(client) == before
    drop_run(session, "run")
    assert client.keys("*") == []


def test_a_learner_that_comes_in_the_middle_stops_a_drop_that_can_be_repeated(server, client, session, monkeypatch):
    monkeypatch.setattr(stored_runs, "_KEYS_PER_CALL", 5)
    dataset_id = fill(server.url, "run")
    scan, leases = stored_runs._scan, []

    def scan_with_company(*arguments):
        for number, keys in enumerate(scan(*arguments)):
            if number == 1:
                leases.append(client.set("hdqnn:{run}:learner", "somebody", px=60_000))
            yield keys

    monkeypatch.setattr(stored_runs, "_scan", scan_with_company)
    with pytest.raises(ReplayConfigError, match="somebody"):
        drop_run(session, "run")
    assert leases
    monkeypatch.setattr(stored_runs, "_scan", scan)
    assert 2 <= read_contents(session).runs[0].num_keys <= 13
    with pytest.raises(ReplayLostError):
        RedisReplay.connect(server.url, "run", SPEC, LIMITER, CAPACITY, dataset_id=dataset_id)
    client.delete("hdqnn:{run}:learner")
    assert drop_run(session, "run").num_keys >= 1
    assert client.keys("*") == []


def write_until_full(url, run_id):
    """4 MB of Humanoid's segments as an actor writes them."""
    writer = RedisWriter.connect(url, run_id, HUMANOID, LIMITER, 1_600, deadline_s=0.3)
    try:
        for sequence in range(25):
            writer.insert(make_segment(64, spec=HUMANOID, sequence=sequence))
    finally:
        writer.close()


def test_a_full_server_has_room_again_after_a_drop(tmp_path, monkeypatch, capsys):
    with EmbeddedServer.start(tmp_path, maxmemory_bytes=12 * 2**20) as server:
        monkeypatch.setenv("REDIS_URL", server.url)
        write_until_full(server.url, "first")
        write_until_full(server.url, "second")
        with pytest.raises(ReplayFullError) as caught:
            write_until_full(server.url, "third")
        for part in ["Data of other runs may fill it", "`hdqnn replay list`", "`hdqnn replay drop RUN`"]:
            assert part in str(caught.value)
        assert hdqnn(["replay", "list"]) == 0
        assert "of at most 12.6 MB in use, 3 run(s)" in capsys.readouterr().out
        assert hdqnn(["replay", "drop", "third", "first"]) == 0
        # meta, counters, sequences, lengths and 25 segments.
        assert re.search(r"^first: freed 4\.\d MB in 29 keys at redis://127", capsys.readouterr().out, re.MULTILINE)
        write_until_full(server.url, "fourth")
        learner = RedisReplay.connect(server.url, "fourth", HUMANOID, LIMITER, 1_600)
        assert len(learner) == 1_600
        learner.close()


@pytest.fixture
def shared(server, tmp_path, monkeypatch):
    """Two servers in REDIS_URL, with a run over both and one on the second alone."""
    with EmbeddedServer.start(tmp_path / "b") as second:
        urls = f"{server.url},{second.url}"
        open_replay(urls, "over-both", SPEC, SHARDED_LIMITER, CAPACITY).close()
        for actor_id in (0, 1):
            writer = open_writer(urls, actor_id, "over-both", SPEC, SHARDED_LIMITER, CAPACITY)[0]
            writer.insert(make_segment(actor_id=actor_id))
            writer.close()
        fill(second.url, "alone")
        monkeypatch.setenv("REDIS_URL", urls)
        with redis.Redis.from_url(server.url) as one, redis.Redis.from_url(second.url) as two:
            yield one, two


def test_several_servers_are_listed_and_cleared_together(shared, capsys, tmp_path):
    one, two = shared
    ports = [client.connection_pool.connection_kwargs["port"] for client in shared]
    assert hdqnn(["replay", "list"]) == 0
    out = capsys.readouterr().out
    assert out.index(f":{ports[0]}/0: ") < out.index("over-both") < out.index(f":{ports[1]}/0: ") < out.index("alone")
    (tmp_path / "run_id").write_text("over-both\n")
    assert hdqnn(["replay", "drop", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert [line.split(": ")[0] for line in said.out.splitlines()] == ["over-both"] * 2
    assert one.keys("*") == []
    assert {key.split(b":")[1] for key in two.keys("*")} == {b"{alone}"}
    for password in (client.connection_pool.connection_kwargs["password"] for client in shared):
        assert password not in out + said.out + said.err


def test_a_lease_on_any_of_the_servers_keeps_the_data_on_all(shared, capsys):
    _, two = shared
    two.set("hdqnn:{over-both}:learner", "/runs/x on one", px=60_000)
    before = [snapshot(client) for client in shared]
    assert hdqnn(["replay", "drop", "alone", "over-both"]) == 2
    assert "a learner works with the data of run 'over-both'" in capsys.readouterr().err
    assert [snapshot(client) for client in shared] == before


def test_all_ended_runs_want_a_second_word(shared, capsys):
    one, _ = shared
    fill(url_of(one), "stopped")
    one.set("hdqnn:{over-both}:learner", "/runs/x on one", px=60_000)
    before = [snapshot(client) for client in shared]
    assert hdqnn(["replay", "drop", "--ended"]) == 2
    said = capsys.readouterr()
    assert "would drop 2 run(s): stopped, alone. Nothing was dropped: a run whose data are dropped cannot" in said.err
    assert "Add --yes" in said.err
    assert "unused for" in said.out
    assert [snapshot(client) for client in shared] == before
    assert hdqnn(["replay", "drop", "--ended", "--yes"]) == 0
    for client in shared:
        assert {key.split(b":")[1] for key in client.keys("*")} == {b"{over-both}"}
    capsys.readouterr()
    assert hdqnn(["replay", "drop", "--ended", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to drop: there is no run that nobody learns from\n"


def test_one_server_that_is_away_leaves_all_as_it_is(shared, capsys, monkeypatch):
    one, _ = shared
    before = snapshot(one)
    monkeypatch.setenv("REDIS_URL", f"{url_of(one)},redis://127.0.0.1:1/0")
    monkeypatch.setattr("cluster.command_replay._DEADLINE_S", 0.1)
    assert hdqnn(["replay", "drop", "over-both"]) == 2
    assert "no answer from the replay server at redis://127.0.0.1:1/0" in capsys.readouterr().err
    assert snapshot(one) == before
