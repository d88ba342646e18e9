import logging
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis

from replay.codec import frame_bytes
from replay.embedded_server import EmbeddedServer
from replay.errors import (
    CredentialsRefusedError,
    InvalidSegmentError,
    ReplayConfigError,
    ReplayError,
    ReplayFullError,
    ReplayLostError,
    ReplayUnreachableError,
    SequenceGapError,
)
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.types import ReplayCounts
from tests.integration.tcp_proxy import LossyProxy
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment

pytestmark = pytest.mark.redis

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


def test_what_writers_insert_the_learner_samples(writer, learner):
    for sequence in range(5):
        assert writer.insert(make_segment(sequence=sequence, first=4 * sequence)).is_new
    assert len(learner) == 0
    assert learner.refresh() == ReplayCounts(inserted=20, sampled=0)
    batch = learner.sample(500, np.random.default_rng(0))
    assert set(batch.reward) == set(range(20))
    # Of make_segment: what belongs together stayed together.
    np.testing.assert_array_equal(batch.action[:, 0], batch.reward + 0.5)
    np.testing.assert_array_equal(batch.circuit_parameters[:, 3], batch.reward + 0.25)
    np.testing.assert_array_equal(batch.next_observation, batch.observation + 1)
    np.testing.assert_array_equal(batch.bits @ (2.0 ** np.arange(10)), batch.reward)
    assert writer.poll().counts == ReplayCounts(inserted=20, sampled=0)
    learner.refresh()
    assert writer.poll().counts == ReplayCounts(inserted=20, sampled=500)


def test_a_retry_changes_nothing(writer, learner):
    first = make_segment(sequence=0)
    assert writer.insert(first).is_new
    assert writer.insert(make_segment(sequence=1)).is_new
    late = writer.insert(first)
    assert not late.is_new
    assert late.counts.inserted == 8
    learner.refresh()
    assert len(learner) == 8


def test_many_in_one_round_trip_keep_their_order(writer, learner):
    assert not writer.insert_many([]).is_new
    segments = [make_segment(3, sequence=s, first=10 * s) for s in range(6)]
    reply = writer.insert_many(segments)
    assert reply.is_new
    assert reply.counts.inserted == 18
    assert not writer.insert_many(segments).is_new
    assert writer.insert_many([*segments, make_segment(sequence=6, first=100)]).is_new
    learner.refresh()
    assert held_rewards(learner) == [10 * s + t for s in range(6) for t in range(3)] + [100, 101, 102, 103]


def test_a_gap_is_an_error(writer):
    writer.insert(make_segment(actor_id=5, incarnation=2))
    with pytest.raises(SequenceGapError) as caught:
        writer.insert_many([make_segment(actor_id=5, incarnation=2, sequence=s) for s in (2, 3)])
    for part in ["actor 5", "incarnation 2", "sent sequence 2", "expected 1"]:
        assert part in str(caught.value)
    assert writer.poll().counts.inserted == 4


def test_incarnations_count_up_and_apart(writer):
    assert [writer.register_actor(7), writer.register_actor(7), writer.register_actor(8)] == [1, 2, 1]
    assert writer.insert(make_segment(actor_id=7, incarnation=1)).is_new
    assert writer.insert(make_segment(actor_id=7, incarnation=2)).is_new
    assert not writer.insert(make_segment(actor_id=7, incarnation=1)).is_new


def test_limiter_and_policy_version_are_in_the_reply(writer, learner):
    replies = [writer.insert(make_segment(sequence=s)) for s in range(4)]
    assert [reply.can_insert for reply in replies] == [True, True, True, False]
    learner.announce_policy_version(12)
    assert writer.poll().policy_version == 12
    assert not learner.can_sample(1)
    learner.refresh()
    assert learner.can_sample(32)
    assert not learner.can_sample(33)
    learner.sample(8, np.random.default_rng(0))
    assert not writer.poll().can_insert
    learner.refresh()
    assert writer.poll().can_insert


def test_old_segments_leave_the_server_and_the_mirror(writer, learner, client, run_id):
    for sequence in range(25):
        writer.insert(make_segment(4, sequence=sequence, first=4 * sequence))
    assert learner.refresh().inserted == 100
    assert held_rewards(learner) == list(range(60, 100))
    assert len(client.keys(f"hdqnn:{{{run_id}}}:segment:*")) == 10
    assert client.llen(f"hdqnn:{{{run_id}}}:lengths") == 10


def test_a_slow_learner_counts_what_it_missed(server, run_id, writer, learner, caplog):
    for sequence in range(25):
        writer.insert(make_segment(4, sequence=sequence))
    learner.refresh()
    assert learner.num_missed_segments == 15
    assert "segments fall out of the server before they are read" in caplog.text
    late = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY)
    assert late.num_missed_segments == 0
    late.close()


def test_capacity_in_bytes(server, run_id, client):
    size = frame_bytes(4, SPEC, len("statevector"))
    writer = RedisWriter.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, capacity_bytes=3 * size)
    for sequence in range(8):
        writer.insert(make_segment(4, sequence=sequence))
    assert [client.strlen(key) for key in client.keys(f"hdqnn:{{{run_id}}}:segment:*")] == [size] * 3
    writer.close()


def test_a_restarted_learner_rebuilds_its_mirror(server, run_id, writer, learner):
    for sequence in range(15):
        writer.insert(make_segment(1 + sequence % 4, sequence=sequence, first=10 * sequence))
    learner.refresh()
    learner.set_sampled(123)
    again = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, dataset_id=learner.dataset_id)
    assert again.counts() == learner.refresh()
    assert again.counts().sampled == 123
    assert_same_batch(again.sample(64, np.random.default_rng(4)), learner.sample(64, np.random.default_rng(4)))
    again.close()


def test_many_segments_come_in_bounded_pieces(writer, learner, monkeypatch):
    monkeypatch.setattr("replay.redis_tail._REPLY_BYTES", 600)
    for sequence in range(40):
        writer.insert(make_segment(1, sequence=sequence, first=sequence))
    learner.refresh()
    assert held_rewards(learner) == list(range(40))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"spec": replace(SPEC, action_size=3)}, ["transition sizes", "action=2", "action=3", "another run name"]),
        ({"capacity": CAPACITY + 1}, ["capacity '40'", "'41'"]),
    ],
    ids=["spec", "capacity"],
)
def test_another_schema_is_refused(server, writer, run_id, overrides, parts):
    run_id = writer.dataset.run_id
    arguments = {"spec": SPEC, "limiter": LIMITER, "capacity": CAPACITY, **overrides}
    with pytest.raises(ReplayConfigError) as caught:
        RedisReplay.connect(server.url, run_id, **arguments)
    for part in [run_id, *parts]:
        assert part in str(caught.value)


def test_another_dataset_than_the_checkpoint_is_refused(server, run_id, writer):
    with pytest.raises(ReplayLostError, match="no longer holds the data of run"):
        RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, dataset_id="0123456789abcdef")
    with pytest.raises(ReplayLostError):
        RedisReplay.connect(server.url, run_id + "x", SPEC, LIMITER, CAPACITY, dataset_id="0123456789abcdef")


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
    proxy = LossyProxy(target.hostname, target.port)
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
        server.restart()
        deadline = time.monotonic() + 5
        while learner.refresh() and learner._away_since is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert learner.poll().counts == ReplayCounts(inserted=12, sampled=8)


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


def test_an_idle_refresh_writes_nothing(learner, client):
    learner.insert(make_segment(8))
    learner.refresh()
    learner.sample(4, np.random.default_rng(0))
    learner.refresh()
    before = client.info("commandstats")["cmdstat_hset"]["calls"]
    for _ in range(3):
        learner.refresh()
    assert client.info("commandstats")["cmdstat_hset"]["calls"] == before


def test_bad_frames_are_counted_and_skipped(writer, learner, client, run_id, caplog):
    for sequence in range(3):
        writer.insert(make_segment(sequence=sequence, first=4 * sequence, actor_id=9))
    key = f"hdqnn:{{{run_id}}}:segment:1"
    frame = bytearray(client.get(key))
    frame[-1] ^= 1
    client.set(key, bytes(frame))
    with caplog.at_level(logging.WARNING):
        learner.refresh()
    assert held_rewards(learner) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert learner.num_rejected_frames == 1
    assert "skipped bad frame 1 (1 so far): crc32 differs" in caplog.text
    assert "actor 9" in caplog.text


@pytest.mark.parametrize(
    ("segment", "part"),
    [
        (make_segment(CAPACITY + 1), "41 transitions does not fit a replay of 40"),
        (
            make_segment(actor_id=3, rewards=np.full(4, np.nan, np.float32)),
            "rewards of actor 3 is not finite at step 0",
        ),
    ],
    ids=["length", "nan"],
)
def test_refused_segments_leave_no_trace(writer, segment, part):
    with pytest.raises(InvalidSegmentError) as caught:
        writer.insert(segment)
    assert part in str(caught.value)
    assert writer.poll().counts.inserted == 0


def test_a_refused_segment_among_others_leaves_them_for_a_retry(writer):
    segments = [make_segment(sequence=sequence) for sequence in range(3)]
    bad = replace(segments[1], rewards=np.full(4, np.inf, np.float32))
    with pytest.raises(InvalidSegmentError):
        writer.insert_many([segments[0], bad, segments[2]])
    assert writer.insert_many(segments).counts.inserted == 12


def test_an_unknown_server_error_is_one_of_ours(writer, client, run_id):
    client.set(f"hdqnn:{{{run_id}}}:lengths", "not a list")
    with pytest.raises(ReplayError, match=r"answered with an error .*WRONGTYPE"):
        writer.insert(make_segment())
