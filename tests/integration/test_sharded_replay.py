"""The replay over two real servers: where segments go, in which order they are read, and one of the two failing."""

import os
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import redis

from replay.embedded_server import EmbeddedServer
from replay.errors import ReplayConfigError, ReplayLostError, ReplayUnreachableError
from replay.opening import open_replay, open_writer
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_sampler import RedisSampler
from replay.sharded_replay import ShardedReplay
from tests.integration.redis_fixtures import held_rewards, wait_for_the_end
from tests.unit.replay.segments import SPEC, make_segment

pytestmark = pytest.mark.redis

LIMITER = SampleToInsertRatio.from_update_ratio(updates_per_step=0.5, batch_size=4, learning_starts=8, slack_steps=40)
CAPACITY = 4_000


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    with (
        EmbeddedServer.start(tmp_path_factory.mktemp("a")) as first,
        EmbeddedServer.start(tmp_path_factory.mktemp("b")) as second,
    ):
        yield first, second


@pytest.fixture
def make(servers, request):
    """Learners and writers of this test's run, closed at its end."""
    opened = []
    urls = [server.url for server in servers]

    def learner(capacity=CAPACITY, urls=urls, deadline_s=10.0, **options):
        opened.append(
            ShardedReplay.connect(urls, request.node.name, SPEC, LIMITER, capacity, deadline_s=deadline_s, **options)
        )
        return opened[-1]

    def writer(actor_id, capacity=CAPACITY):
        opened.append(open_writer(",".join(urls), actor_id, request.node.name, SPEC, LIMITER, capacity)[0])
        return opened[-1]

    yield SimpleNamespace(learner=learner, writer=writer)
    for each in opened:
        each.close()


def segment(actor_id, sequence, steps=2, incarnation=1):
    """Rewards tell the actor and the place."""
    first = 1000 * actor_id + steps * sequence
    return make_segment(steps, actor_id=actor_id, incarnation=incarnation, sequence=sequence, first=first)


def test_an_actors_segments_are_on_one_server_and_the_learner_has_them_all_in_turn(make, servers, request):
    make.learner().refresh()
    for actor_id, count in ((0, 3), (1, 2), (2, 1)):
        writer = make.writer(actor_id)
        assert writer.register_actor(actor_id) == 1
        for sequence in range(count):
            writer.insert(segment(actor_id, sequence))
            assert not writer.insert(segment(actor_id, sequence)).is_new
    counters = f"hdqnn:{{{request.node.name}}}:counters"
    inserted = []
    for server in servers:
        with redis.Redis.from_url(server.url) as client:
            inserted.append(int(client.hget(counters, "inserted")))
    assert inserted == [8, 4]
    learner = make.learner()
    assert learner.refresh().inserted == 12
    assert held_rewards(learner) == [0, 1, 1000, 1001, 2, 3, 1002, 1003, 4, 5, 2000, 2001]


def test_a_long_start_is_read_in_like_ages(make):
    """1,000 segments on one server and 250 on the other: read over four rounds, nothing twice and all in order."""
    make.learner().refresh()
    for actor_id, count in ((0, 1000), (1, 250)):
        make.writer(actor_id).insert_many([segment(actor_id, sequence, steps=1) for sequence in range(count)])
    learner = make.learner()
    rewards = held_rewards(learner)
    of_first, of_second = [r for r in rewards if r < 1000], [r - 1000 for r in rewards if r >= 1000]
    assert (of_first, of_second) == (list(range(1000)), list(range(250)))
    quarter = rewards[: len(rewards) // 4]
    assert 50 <= sum(r >= 1000 for r in quarter) <= 70


def test_writers_stop_at_the_law_over_both_and_go_on_with_the_learner(make):
    learner = make.learner()
    assert learner.refresh().inserted == 0
    writers = [make.writer(actor_id) for actor_id in (0, 1)]
    rng = np.random.default_rng(0)
    sequences, updates = [0, 0], 0
    for round_number in range(400):
        for actor_id, writer in enumerate(writers):
            # One of the two stands still for a while, the other alone makes up for it.
            if actor_id == 1 and 100 <= round_number < 300:
                continue
            if writer.poll().can_insert:
                writer.insert(segment(actor_id, sequences[actor_id]))
                sequences[actor_id] += 1
        inserted = 2 * sum(sequences)
        assert inserted <= 8 + updates * 2 + 40 + 2
        if round_number % 3 == 0:
            assert learner.refresh().inserted == inserted
            while learner.can_sample(4):
                learner.sample(4, rng)
                updates += 1
            assert updates == max(0, int(0.5 * (inserted - 8)))
    assert min(sequences) >= 150


def test_the_newest_version_is_on_every_server_and_survives_the_learner(make):
    learner = make.learner()
    learner.announce_policy_version(7)
    assert [make.writer(actor_id).poll().policy_version for actor_id in (0, 1)] == [7, 7]
    assert make.learner().poll().policy_version == 7


def test_while_one_server_is_away_the_other_goes_on(tmp_path, caplog):
    with EmbeddedServer.start(tmp_path / "a") as first, EmbeddedServer.start(tmp_path / "b") as second:
        urls = f"{first.url},{second.url}"
        learner = open_replay(urls, "run", SPEC, LIMITER, CAPACITY)
        learner.refresh()
        writers = [open_writer(urls, actor_id, "run", SPEC, LIMITER, CAPACITY)[0] for actor_id in (0, 1)]
        writers[1].insert(segment(1, 0))
        learner.refresh()
        os.kill(second.pid, signal.SIGKILL)
        wait_for_the_end(second)
        rng = np.random.default_rng(0)
        for sequence in range(100):
            assert writers[0].poll().can_insert
            writers[0].insert(segment(0, sequence))
            learner.announce_policy_version(sequence + 1)
            assert learner.refresh().inserted == 2 + 2 * (sequence + 1)
            while learner.can_sample(4):
                learner.sample(4, rng)
            learner.refresh()
        second.restart()
        writers[1].insert(segment(1, 1))
        deadline_s = time.monotonic() + 10
        while learner.refresh().inserted < 204 and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert sorted(held_rewards(learner)) == [*range(200), *range(1000, 1004)]
        learner.refresh()
        assert writers[1].poll().can_insert
        assert writers[1].poll().policy_version == 100
        assert "sampling goes on without it" in caplog.text
        learner.close()
        for writer in writers:
            writer.close()


def test_a_server_that_stays_away_is_an_error(tmp_path, servers):
    with EmbeddedServer.start(tmp_path) as mortal:
        learner = ShardedReplay.connect([servers[0].url, mortal.url], "mortal", SPEC, LIMITER, CAPACITY, deadline_s=0.3)
    learner.refresh()
    time.sleep(0.4)
    with pytest.raises(ReplayUnreachableError, match=mortal.url.rpartition(":")[2]):
        learner.refresh()
    learner.close()


@pytest.mark.parametrize("num_new", [1, 3])
def test_a_server_that_lost_its_last_writes_is_read_again(tmp_path, servers, caplog, num_new):
    """As after a power cut; the other server's segments stay, and are not read twice."""
    run = f"lossy-{num_new}"
    with EmbeddedServer.start(tmp_path) as lossy:
        urls = f"{servers[0].url},{lossy.url}"
        learner = open_replay(urls, run, SPEC, LIMITER, CAPACITY)
        keeper, loser = (open_writer(urls, actor_id, run, SPEC, LIMITER, CAPACITY)[0] for actor_id in (0, 1))
        keeper.insert_many([segment(0, sequence) for sequence in range(3)])
        loser.insert_many([segment(1, sequence) for sequence in range(2)])
        time.sleep(0.01)
        shutil.copytree(tmp_path / "appendonlydir", tmp_path / "old")
        loser.insert_many([segment(1, sequence) for sequence in range(2, 5)])
        assert learner.refresh().inserted == 16
        os.kill(lossy.pid, signal.SIGKILL)
        wait_for_the_end(lossy)
        shutil.rmtree(tmp_path / "appendonlydir")
        (tmp_path / "old").rename(tmp_path / "appendonlydir")
        lossy.restart()
        for sequence in range(num_new):
            loser.insert(segment(3, sequence))
        deadline_s = time.monotonic() + 10
        while learner.refresh().inserted != 10 + 2 * num_new and time.monotonic() < deadline_s:
            time.sleep(0.02)
        assert sorted(held_rewards(learner)) == [*range(6), *range(1000, 1004), *range(3000, 3000 + 2 * num_new)]
        assert learner.row() == {"replay/rejected_frames": 0.0, "replay/missed_segments": 0.0}
        assert "came back without its last writes" in caplog.text
        for each in (learner, keeper, loser):
            each.close()


def test_one_emptied_server_is_a_lost_replay(make, servers, request):
    learner = make.learner()
    learner.refresh()
    with redis.Redis.from_url(servers[1].url) as client:
        client.delete(f"hdqnn:{{{request.node.name}}}:meta")
    with pytest.raises(ReplayLostError, match=rf"127\.0\.0\.1:{servers[1].url.rpartition(':')[2]} no longer holds"):
        learner.refresh()


def test_a_run_keeps_its_servers_and_their_order(make, servers, request):
    learner = make.learner()
    ids, urls = learner.dataset_id, [server.url for server in servers]
    assert make.learner(dataset_id=ids).dataset_id == ids
    with pytest.raises(ReplayLostError):
        make.learner(urls=urls[::-1], dataset_id=ids)
    with pytest.raises(ReplayConfigError, match=r"keeps its data on 2 server\(s\), REDIS_URL names 1"):
        open_replay(urls[0], request.node.name, SPEC, LIMITER, CAPACITY, dataset_id=ids)
    with pytest.raises(ReplayConfigError, match=r"keeps its data on 1 server\(s\), REDIS_URL names 2"):
        open_replay(",".join(urls), request.node.name, SPEC, LIMITER, CAPACITY, dataset_id=ids.split(",")[0])


def test_a_server_that_is_named_twice_is_refused(make, servers):
    with pytest.raises(ReplayConfigError, match=r"must name different servers.*some are the same"):
        make.learner(urls=[servers[0].url] * 2)


@pytest.mark.parametrize("options", [{}, {"learner_id": "a"}], ids=["mirror", "on the server"])
def test_what_knows_one_server_says_so(servers, options):
    connect = RedisSampler.connect if options else RedisReplay.connect
    with pytest.raises(ReplayConfigError, match="works with one server, got 2 URLs") as caught:
        connect(",".join(server.url for server in servers), "run", SPEC, LIMITER, CAPACITY, **options)
    assert servers[0].url.split("@")[0] not in str(caught.value)


def test_the_capacity_is_split(make, servers, request):
    make.learner(capacity=20).refresh()
    for actor_id in (0, 1):
        make.writer(actor_id, capacity=20).insert_many([segment(actor_id, sequence) for sequence in range(8)])
    learner = make.learner(capacity=20)
    assert sorted(held_rewards(learner)) == [*range(6, 16), *range(1006, 1016)]
    assert learner.refresh().inserted == 32
