"""One actor against a real server, without Ray: lanes overlap, the law stops it, every start is a new incarnation."""

import dataclasses
import itertools

import numpy as np
import pytest
import redis

from actors.config import ActorConfig
from actors.environment import agent_spec
from cluster.build_replay import make_limiter, transition_spec
from cluster.config import RunConfig
from cluster.rollout_worker import ReplayAddress, RolloutWorker
from learner.config import TD3Config
from learner.parameters import ParameterBoard
from replay.codec import decode_segment
from replay.config import ReplayConfig
from replay.embedded_server import EmbeddedServer
from replay.redis_replay import RedisReplay
from tests.environments import PREFIX
from tests.unit.actors.fakes import POLICY, RecordingSampler

pytestmark = pytest.mark.redis

CONFIG = RunConfig(
    env_id=f"{PREFIX}Seeded-v0",
    policy=POLICY,
    td3=TD3Config(batch_size=4, learning_starts=20),
    actors=ActorConfig(envs_per_actor=4, segment_length=2),
    replay=ReplayConfig(capacity=1_000, slack_steps=40),
)
SPEC = agent_spec(CONFIG.env_id)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedServer.start(tmp_path_factory.mktemp("server")) as started:
        yield started


class Steps:
    """A clock that moves on by one second whenever it is read, so that budgets count loops."""

    def __init__(self):
        self._count = itertools.count()

    def __call__(self):
        return float(next(self._count))


@pytest.fixture
def make_worker(server, request):
    made = []

    def make(actor_id=0, sampler=None, config=CONFIG):
        worker = RolloutWorker(
            config,
            SPEC,
            actor_id=actor_id,
            address=ReplayAddress(url=server.url, run_id=request.node.name),
            sampler=sampler or RecordingSampler(),
            source=ParameterBoard(),
            clock=Steps(),
        )
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def replay(server, request):
    opened = RedisReplay.connect(
        server.url, request.node.name, transition_spec(CONFIG, SPEC), make_limiter(CONFIG), CONFIG.replay.capacity
    )
    yield opened
    opened.close()


def segments(server, run_id):
    with redis.Redis.from_url(server.url) as client:
        count = int(client.hget(f"hdqnn:{{{run_id}}}:counters", "next_index"))
        frames = [client.get(f"hdqnn:{{{run_id}}}:segment:{i}") for i in range(count)]
    return [decode_segment(frame, transition_spec(CONFIG, SPEC), run_id) for frame in frames]


def test_one_lane_steps_while_the_other_waits_for_its_bits(make_worker):
    sampler = RecordingSampler()
    worker = make_worker(sampler=sampler)
    worker.advance(budget_s=10)
    names = [name.rpartition("-")[0] for _, name in sampler.events]
    assert len(set(names)) == 2
    outstanding = set()
    for what, name in sampler.events:
        if what == "submit":
            outstanding.add(name)
            continue
        assert len(outstanding) == 2, "bits were awaited while no other lane's circuits were on their way"
        outstanding.remove(name)
    assert len(outstanding) == 2, "between two calls both lanes' circuits are on their way"


def test_a_report_says_what_was_done(make_worker, replay):
    report = make_worker(actor_id=3).advance(budget_s=5)
    assert (report.actor_id, report.incarnation) == (3, 1)
    assert report.num_steps > 0
    assert report.num_steps % 4 == 0
    assert report.blocked_s == 0
    assert [episode.episode_length for episode in report.episodes] == [4] * len(report.episodes)
    assert replay.refresh().inserted == report.num_steps // 4 * 4


def test_an_actor_that_ran_ahead_waits_until_the_learner_has_caught_up(make_worker, replay):
    worker = make_worker()
    made = sum(worker.advance(budget_s=20).num_steps for _ in range(4))
    report = worker.advance(budget_s=20)
    assert report.num_steps == 0
    assert report.blocked_s > 0
    # Inserting is free up to 20 steps, then 40 ahead of the learner; the last step of a lane may overshoot.
    assert 60 <= made + 4 <= 60 + 8
    replay.set_sampled(4 * 40)
    assert worker.advance(budget_s=20).num_steps > 0


def test_every_start_of_an_actor_is_an_incarnation_with_experience_of_its_own(make_worker, server, request):
    for actor_id in (0, 0, 1):
        make_worker(actor_id=actor_id).advance(budget_s=3)
    found = {}
    for segment in segments(server, request.node.name):
        found.setdefault((segment.actor_id, segment.incarnation), []).append(segment)
    assert set(found) == {(0, 1), (0, 2), (1, 1)}
    starts = [np.concatenate([s.observations[0] for s in found[identity][:4]]) for identity in found]
    actions = [np.concatenate([s.actions for s in found[identity][:4]]) for identity in found]
    for numbers in (starts, actions):
        for first, second in itertools.combinations(numbers, 2):
            assert not np.intersect1d(first, second).size


def test_one_environment_makes_one_lane(make_worker):
    config = dataclasses.replace(CONFIG, actors=ActorConfig(envs_per_actor=1, segment_length=2))
    assert make_worker(config=config).advance(budget_s=5).num_steps > 0
