"""The learner's side of a run: when it learns, publishes, tests, logs, saves and ends; and that it goes on as saved."""

import dataclasses
import io
import json
import logging

import numpy as np
import pytest

from actors.config import EvaluationConfig
from actors.rollout import EpisodeRecord
from cluster import rounds
from cluster import session as sessions
from cluster.build import make_learner
from cluster.build_replay import make_limiter, transition_spec
from cluster.checkpoint import load_newest
from cluster.config import CheckpointConfig, RunConfig
from cluster.metrics import MetricsWriter
from cluster.progress import Progress
from cluster.run_directory import RunDirectory, read_rows
from learner.config import AgentSpec, PolicyConfig, SurrogateConfig, TD3Config
from learner.critic_config import CriticConfig
from learner.normalisation import ReturnMoments
from qpu_service.circuit import CircuitShape
from replay.config import ReplayConfig
from replay.memory_replay import MemoryReplay
from tests.unit.replay.segments import make_segment

SPEC = AgentSpec(observation_size=3, action_low=(-1.0, -1.0), action_high=(1.0, 1.0))
MOMENTS = ReturnMoments(count=2, total=3.0, total_squares=5.0, largest=2.0)
CONFIG = RunConfig(
    total_steps=1_000,
    device="cpu",
    publish_period_updates=4,
    log_period_steps=50,
    policy=PolicyConfig(hidden_size=8, num_links=2, circuit=CircuitShape(num_qubits=2, num_layers=1)),
    surrogate=SurrogateConfig(hidden_size=8, num_tiny_batches=1, tiny_batch_size=4),
    td3=TD3Config(batch_size=4, learning_starts=20),
    critic=CriticConfig(hidden_size=8),
    evaluation=EvaluationConfig(period_steps=100, num_episodes=2),
    replay=ReplayConfig(capacity=2_000, slack_steps=300),
)


class Tests:
    """TestRunner that answers when it is told to, with returns that the test chose."""

    __test__ = False

    def __init__(self, returns=(-1.0, -3.0), *, is_slow=False):
        self.requested, self._waiting = [], []
        self.returns, self.is_slow = returns, is_slow

    def request(self, parameters):
        self.requested.append(parameters)
        self._waiting.append(parameters)
        return []

    def collect(self):
        if self.is_slow:
            return []
        waiting, self._waiting = self._waiting, []
        return [rounds.TestRound(parameters, self.returns) for parameters in waiting]


class Run:
    """A session over an in-memory replay, with everything that it hands out."""

    def __init__(self, path, config=CONFIG, *, tests=None, checkpoint=None, version_floor=0, inserted=0):
        path.mkdir(exist_ok=True)
        self.directory = RunDirectory(path)
        self.spec = transition_spec(config, SPEC)
        self.replay = MemoryReplay(self.spec, make_limiter(config), config.replay.capacity)
        self.sequence = 0
        self.insert(inserted)
        self.published, self.now_s, self.out = [], 0.0, io.StringIO()
        self.tests = tests or Tests()
        self.session = sessions.Session(
            config,
            self.directory,
            learner=make_learner(config, SPEC),
            source=self.replay,
            publish=self.published.append,
            tests=self.tests,
            metrics=MetricsWriter(self.directory),
            progress=Progress(self.out, lambda: self.now_s),
            extra_state=lambda: ({}, {}),
            clock=lambda: self.now_s,
        )
        self.session.start(checkpoint, version_floor=version_floor)

    def insert(self, steps):
        while steps > 0:
            size = min(10, steps)
            self.replay.insert(make_segment(size, spec=self.spec, sequence=self.sequence, first=self.sequence % 7))
            self.sequence += 1
            steps -= size

    def advance(self, steps):
        self.insert(steps)
        self.session.counts = self.replay.refresh()
        self.session.learn(10**9)
        self.session.tick()

    @property
    def rows(self):
        return [row["env_step"] for row in read_rows(self.directory.metrics)]

    @property
    def rounds(self):
        return [row["env_step"] for row in read_rows(self.directory.evaluations)]


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def test_it_learns_exactly_as_much_as_the_law_allows(run):
    run.insert(20)
    run.session.tick()
    assert run.session.learn(100) == 0, "learned before a transition was there beyond the start of learning"
    run.insert(30)
    run.session.tick()
    assert run.session.learn(7) == 7
    assert run.session.learn(100) == 23
    assert run.session.learner.update_step == 30


def test_parameters_are_published_at_the_start_and_then_every_period(run):
    assert [(p.version, p.env_step, p.update_step) for p in run.published] == [(1, 0, 0)]
    run.advance(40)
    assert [(p.version, p.update_step) for p in run.published] == [(1, 0), (2, 4), (3, 8), (4, 12), (5, 16), (6, 20)]
    first, last = (parameters.arrays["pre.0.weight"] for parameters in (run.published[0], run.published[-1]))
    assert not np.array_equal(first, last)


def test_a_version_that_anybody_has_seen_never_means_other_parameters(tmp_path):
    assert [p.version for p in Run(tmp_path / "a", version_floor=7).published] == [8]
    first = Run(tmp_path / "b")
    first.advance(50)
    first.session.save()
    checkpoint = load_newest(first.directory.checkpoints)
    version = first.session.version
    same = Run(tmp_path / "b", checkpoint=checkpoint, version_floor=version - 1)
    assert [p.version for p in same.published] == [version]
    later = Run(tmp_path / "b", checkpoint=checkpoint, version_floor=version + 5)
    assert [p.version for p in later.published] == [version, version + 6]


def test_tests_and_rows_come_once_per_period_however_far_a_step_leaps(run):
    run.advance(40)
    assert (run.rows, run.rounds) == ([], [])
    run.advance(10)
    run.advance(10)
    assert (run.rows, run.rounds) == ([50], [])
    run.advance(290)  # over rounds 100, 200, 300 and rows 100 to 350
    assert (run.rows, run.rounds) == ([50, 350], [350])
    run.advance(50)
    assert (run.rows, run.rounds) == ([50, 350, 400], [350, 400])
    assert [p.env_step for p in run.tests.requested] == [350, 400]


def test_rows_hold_what_was_measured_since_the_last_one(run):
    run.session.add_experience([EpisodeRecord(-10.0, 5), EpisodeRecord(-20.0, 15)], MOMENTS)
    run.now_s = 10.0
    run.advance(50)
    run.now_s = 20.0
    run.advance(50)
    first, second = read_rows(run.directory.metrics)
    assert (first["rollout/episode_return"], first["rollout/episode_length"]) == (-15.0, 10.0)
    assert "rollout/episode_return" not in second
    assert (first["update_step"], second["update_step"]) == (30, 80)
    assert (first["replay/size"], first["replay/sampled"]) == (50, 120)
    assert (second["time/env_steps_per_s"], second["time/updates_per_s"]) == (5.0, 5.0)
    for name in ("critic_loss", "policy_loss", "surrogate_loss", "q_value"):
        assert np.isfinite(second[f"learner/{name}"])


def test_the_end_is_after_the_last_step(run):
    run.advance(990)
    assert not run.session.is_done
    run.advance(10)
    assert run.session.is_done


def test_a_round_under_way_when_the_run_stops_is_made_after_resuming(tmp_path):
    run = Run(tmp_path / "run", tests=Tests(is_slow=True))
    run.advance(130)
    run.session.save()
    resumed = Run(tmp_path / "run", checkpoint=load_newest(run.directory.checkpoints), inserted=130)
    resumed.session.tick()
    assert resumed.rounds == [130]


@pytest.mark.parametrize("learning_starts", [20, 900], ids=["learning", "not yet learning"])
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_a_resumed_session_goes_on_exactly_as_the_uninterrupted_one(tmp_path, learning_starts, stop):
    config = dataclasses.replace(CONFIG, td3=dataclasses.replace(CONFIG.td3, learning_starts=learning_starts))
    steps = [30, 40, 70, 30, 60, 90, 10]

    def advance(run, part):
        for size in part:
            run.session.add_experience([EpisodeRecord(float(size), size)], MOMENTS)
            run.advance(size)

    whole = Run(tmp_path / "whole", config)
    advance(whole, steps)
    whole.session.finish()

    first = Run(tmp_path / "parts", config)
    advance(first, steps[:stop])
    first.session.save()
    first.session.close()
    second = Run(tmp_path / "parts", config, checkpoint=load_newest(first.directory.checkpoints))
    # The replay is restored by its own package: here the same transitions are inserted, and counted as sampled.
    second.insert(sum(steps[:stop]))
    second.replay._sampled = first.replay._sampled
    second.session.tick()
    advance(second, steps[stop:])
    second.session.finish()

    def rows(run, path):
        return [
            {name: value for name, value in row.items() if not name.startswith("time/")}
            for row in read_rows(getattr(run.directory, path))
        ]

    assert rows(second, "metrics") == rows(whole, "metrics")
    assert rows(second, "evaluations") == rows(whole, "evaluations")
    for a, b in zip(second.session.learner.policy.parameters(), whole.session.learner.policy.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach(), b.detach())


def test_checkpoints_come_by_the_clock(tmp_path):
    run = Run(tmp_path / "run", dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(period_s=60.0)))
    for now_s, expected in ((59.9, 0), (60.0, 1), (119.0, 1), (120.0, 2)):
        run.now_s = now_s
        run.advance(10)
        assert len(list(run.directory.checkpoints.glob("step_*"))) == expected


def test_checkpoints_come_by_steps_where_asked_for(tmp_path):
    run = Run(tmp_path / "run", dataclasses.replace(CONFIG, checkpoint=CheckpointConfig(period_steps=100, keep=9)))
    run.now_s = 1e9
    for _ in range(8):
        run.advance(40)
    names = sorted(path.name for path in run.directory.checkpoints.iterdir())
    assert names == ["step_000000000120", "step_000000000200", "step_000000000320"]


def test_a_full_disk_is_reported_and_training_goes_on(run, monkeypatch, caplog):
    run.advance(50)
    run.session.save()

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr("cluster.checkpoint._save_tensors", fail)
        run.session.save()
    assert "checkpoint at step 50 failed ([Errno 28] No space left" in caplog.text
    run.advance(50)
    assert load_newest(run.directory.checkpoints).scalars["env_step"] == 50


def test_a_checkpoint_is_json_and_holds_the_counters(run):
    run.advance(50)
    run.session.save()
    (path,) = run.directory.checkpoints.iterdir()
    state = json.loads((path / "state.json").read_text())
    assert (state["env_step"], state["sampled"], state["learner"]["update_step"]) == (50, 120, 30)
