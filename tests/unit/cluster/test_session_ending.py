"""How a run ends: the last updates and test rounds are made while everything is still looked after, and can be stopped.

What a run that was stopped in its ending still lacks is made after ``hdqnn resume``.
"""

import dataclasses
import itertools

import pytest

from cluster import distributed
from cluster.checkpoint import load_newest
from cluster.config import CheckpointConfig
from cluster.errors import RunFailedError
from cluster.progress import Progress
from cluster.run_directory import read_rows
from tests.unit.cluster.test_session import CONFIG, Run, Tests

ENDING = dataclasses.replace(CONFIG, total_steps=120)


class Crew:
    """Actors that have no more to say than how often they were asked and told to stop; then they do ``last``."""

    num_restarts, waiting = 0, ""

    def __init__(self, last=lambda: None):
        self.polls = self.stops = 0
        self.last = last

    def poll(self):
        assert not self.stops, "actors were started again after they were stopped"
        self.polls += 1
        return []

    def stop(self):
        self.stops += 1
        if self.stops == 1:
            self.last()
        return []


class QPU:
    """Counts how often its workers were looked after."""

    note = "QPU budget left: 412 s"

    def __init__(self):
        self.polls = 0

    def poll(self):
        self.polls += 1

    def row(self):
        return {"qpu/budget_left_s": 412.0}


class Watch:
    """Every look takes ``step_s`` on the run's clock; then ``happens``."""

    def __init__(self, run, happens=lambda: None, step_s=10.0):
        self.run, self.happens, self.step_s, self.looks = run, happens, step_s, 0

    def poll(self):
        self.looks += 1
        assert self.looks < 10_000, "the run never ends"
        self.run.now_s += self.step_s
        self.happens()


class Replay:
    """Rows of a replay server."""

    def row(self):
        return {}


class Ending:
    """A run with enough steps, its updates not yet made, and all that its loop looks after."""

    def __init__(self, path, config=ENDING, *, inserted=120, **run):
        self.run = Run(path, config, tests=Tests(is_slow=True), inserted=inserted, **run)
        self.run.session.tick()
        self.crew, self.qpu = Crew(), QPU()

    def go(self, *, happens=lambda: None, should_stop=lambda: False):
        self.watch = Watch(self.run, happens)
        distributed._loop(self.run.session, self.crew, self.qpu, Replay(), (self.watch,), should_stop)

    def answer(self):
        """The evaluator has made every round that it was asked for."""
        self.run.tests.is_slow = False


def resume(ending, config=ENDING):
    """The run as ``hdqnn resume`` goes on with it: from its last checkpoint, its transitions still on the server."""
    checkpoint = load_newest(ending.run.directory.checkpoints)
    again = Ending(ending.run.directory.path, config, checkpoint=checkpoint)
    again.run.replay._sampled = checkpoint.scalars["sampled"]
    return again


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    class NoPause:
        def after(self, num_updates):
            assert num_updates >= 0

    monkeypatch.setattr(distributed, "IdlePause", NoPause)


@pytest.fixture
def ending(tmp_path):
    return Ending(tmp_path / "run")


def test_the_run_ends_once_the_last_updates_and_its_last_round_are_made(ending):
    assert not ending.run.rounds
    ending.go(happens=lambda: ending.answer() if ending.watch.looks == 200 else None)
    session = ending.run.session
    assert session.is_finished
    assert session.learner.update_step == 100
    assert [(p.env_step, p.update_step) for p in ending.run.tests.requested] == [(120, 100)]
    assert ending.run.rounds == [120]
    assert (ending.crew.polls, ending.crew.stops > 0) == (0, True)
    state = load_newest(ending.run.directory.checkpoints).scalars
    assert (state["env_step"], state["learner"]["update_step"], state["tested_update"]) == (120, 100, 100)


def test_what_actors_insert_while_they_stop_is_learned_from_before_the_last_round(ending):
    session, replay = ending.run.session, ending.run.replay

    def can_sample(count):
        """As over a server: what was inserted allows an update once the counters were refreshed."""
        return replay._limiter.can_sample(dataclasses.replace(replay.refresh(), inserted=session.env_step), count)

    replay.can_sample = can_sample
    session.learn(10**9)
    ending.crew.last = lambda: ending.run.insert(10)
    ending.answer()
    ending.go()
    assert [(p.env_step, p.update_step) for p in ending.run.tests.requested] == [(130, 110)]
    assert (ending.run.rounds, ending.run.rows[-1]) == ([130], 130)


def test_while_the_last_round_takes_an_hour_everything_is_still_looked_after(tmp_path):
    ending = Ending(tmp_path / "run", dataclasses.replace(ENDING, checkpoint=CheckpointConfig(period_s=600.0)))
    saved_s, save = [], ending.run.session.save
    ending.run.session.save = lambda: (saved_s.append(ending.run.now_s), save())
    ending.go(happens=lambda: ending.answer() if ending.run.now_s >= 3_595.0 else None)
    assert ending.qpu.polls == ending.watch.looks > 350
    rows = list(read_rows(ending.run.directory.metrics))
    gaps = [b["time/elapsed_s"] - a["time/elapsed_s"] for a, b in itertools.pairwise(rows)]
    assert len(rows) >= 50
    assert max(gaps) <= 70.0, "rows come at least once a minute"
    assert {row["qpu/budget_left_s"] for row in rows[1:-1]} == {412.0}
    assert saved_s[:-1] == pytest.approx([600.0 * i for i in range(1, 7)], abs=10.0)
    assert "ending: 1 test round(s) to come" in ending.run.out.getvalue()


def test_a_stop_in_the_ending_is_heard_at_once(ending):
    ending.go(should_stop=lambda: bool(ending.run.tests.requested))
    assert not ending.run.session.is_finished
    assert ending.watch.looks < 20, "it went on for more than the turns of the last updates"


def test_a_failure_seen_in_the_ending_ends_the_run(ending):
    def fail():
        if ending.run.tests.requested:
            raise RunFailedError("Ray on this machine has died")

    with pytest.raises(RunFailedError, match="has died"):
        ending.go(happens=fail)


def test_while_qpu_workers_start_the_run_is_watched_and_hears_a_stop(ending):
    watch, stops = Watch(ending.run), []
    progress = Progress(ending.run.out, lambda: ending.run.now_s)
    look = distributed._meanwhile((watch,), progress, lambda: bool(stops))
    look("")
    look("1 of 3 QPU workers wait for a machine")
    assert watch.looks == 2
    assert ending.run.out.getvalue().endswith("\n1 of 3 QPU workers wait for a machine\n")
    stops.append("SIGTERM")
    with pytest.raises(KeyboardInterrupt):
        look("")


def test_finishing_tests_the_final_policy_once_and_writes_no_row_twice(tmp_path):
    run = Run(tmp_path / "run")
    run.advance(130)
    run.session.finish()
    assert (run.rows, run.rounds) == ([130], [130])
    run.session.finish()
    assert (run.rows, run.rounds) == ([130], [130])
    run.advance(10)
    run.session.finish()
    assert (run.rows, run.rounds) == ([130, 140], [130, 140])


def test_finishing_asks_once_and_is_over_when_no_round_is_under_way(tmp_path):
    run = Run(tmp_path / "run", tests=Tests(is_slow=True))
    run.advance(100)
    run.advance(30)
    assert [run.session.finish() for _ in range(3)] == [False] * 3
    assert (run.rounds, len(run.tests.requested), run.session.is_finished) == ([], 2, False)
    run.tests.is_slow = False
    assert run.session.finish()
    assert (run.rounds, run.rows, run.session.is_finished) == ([100, 130], [100, 130], True)


@pytest.mark.parametrize("stop_at", [40, 100], ids=["in the last updates", "in the last round"])
def test_a_run_that_was_stopped_in_its_ending_makes_the_rest_after_a_resume(tmp_path, stop_at):
    ending = Ending(tmp_path / "run")
    session = ending.run.session
    requested = ending.run.tests.requested
    ending.go(should_stop=lambda: bool(requested) if stop_at == 100 else session.learner.update_step >= stop_at)
    session.save()
    assert (session.learner.update_step >= stop_at, len(requested)) == (True, stop_at == 100)
    again = resume(ending)
    again.answer()
    again.go()
    assert again.run.session.is_finished
    assert again.run.session.learner.update_step == 100
    assert [(p.env_step, p.update_step) for p in again.run.tests.requested] == [(120, 100)]
    assert again.run.rounds == [120]


def test_a_run_that_had_ended_makes_nothing_twice_when_it_is_resumed(tmp_path):
    ending = Ending(tmp_path / "run")
    ending.answer()
    ending.go()
    rows = ending.run.rows
    again = resume(ending)
    again.answer()
    again.go()
    assert again.run.session.is_finished
    assert (again.run.tests.requested, again.run.rounds, again.run.rows) == ([], [120], rows)


def test_a_finished_run_that_is_made_longer_does_not_test_its_old_policy_again(tmp_path):
    ending = Ending(tmp_path / "run")
    ending.answer()
    ending.go()
    again = resume(ending, dataclasses.replace(ENDING, total_steps=2_000))
    again.run.advance(30)
    assert again.run.tests.requested == []
    again.run.advance(60)
    assert [p.env_step for p in again.run.tests.requested] == [210]


def test_a_goal_that_was_reached_stays_reached_whatever_later_rounds_say(tmp_path):
    config = dataclasses.replace(CONFIG, stop_return=-5.0)
    run = Run(tmp_path / "run", config)
    for mean in (-4.0, -5.0, -9.0):
        run.tests.returns = (mean, mean)
        run.advance(100)
    assert run.session.is_done
    run.session.save()
    resumed = Run(tmp_path / "run", config, checkpoint=load_newest(run.directory.checkpoints), inserted=300)
    assert resumed.session.is_done


class FullTests(Tests):
    """Makes room for every round by leaving out the one before it."""

    def request(self, parameters):
        super().request(parameters)
        left_out = self._waiting[:-1]
        self._waiting = self._waiting[-1:]
        return left_out


def test_a_round_that_was_left_out_is_told_and_not_waited_for(tmp_path):
    run = Run(tmp_path / "run", tests=FullTests(is_slow=True))
    for _ in range(3):
        run.advance(100)
    assert run.session.rounds.num_under_way == 1
    run.tests.is_slow = False
    run.advance(50)
    assert run.rounds == [300]
    assert run.out.getvalue().count("left out: rounds take longer than the steps between them") == 2
    assert "test round at step 200 left out" in run.out.getvalue()
    assert "evaluation.period_steps" in run.out.getvalue()
    rows = list(read_rows(run.directory.metrics))
    assert "evaluation/left_out" not in rows[0]
    assert rows[-1]["evaluation/left_out"] == 2.0
