"""Supervision of actors, with a Ray of the test's own that fails when it is told to."""

import pytest
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import InvalidEnvironmentError
from cluster.crew import Crew
from cluster.errors import EXIT_FAILED, RunFailedError
from qpu_service.errors import BackendFailedError, BudgetExceededError
from tests.unit.cluster.fake_ray import FakeRay, Handle, has_process


class World:
    def __init__(self, num_actors=1, **settings):
        self.now_s = 0.0
        self.started = []
        self.num_machines = 1_000
        self.crew = Crew(self._start, num_actors, has_process=has_process, clock=lambda: self.now_s, **settings)

    def _start(self, actor_id):
        self.started.append(Handle(actor_id))
        self.started[-1].is_placed = len(self.started) <= self.num_machines
        return self.started[-1]

    def poll(self, *, after_s=0.0):
        self.now_s += after_s
        return self.crew.poll()


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr("cluster.crew.ray", FakeRay())
    return World()


def task_error(cause):
    return RayTaskError("advance", "a traceback", cause)


def died():
    return RayActorError(error_msg="the process was killed")


def test_every_actor_is_started_and_has_one_call_under_way_and_one_queued(monkeypatch):
    monkeypatch.setattr("cluster.crew.ray", FakeRay())
    world = World(num_actors=3)
    assert world.poll() == []
    assert [handle.name for handle in world.started] == [0, 1, 2]
    assert [handle.under_way for handle in world.started] == [2, 2, 2]


def test_a_report_is_handed_out_once_and_the_next_call_ordered(world):
    world.poll()
    (handle,) = world.started
    handle.answer("first")
    assert world.poll() == ["first"]
    assert handle.under_way == 2
    assert world.poll() == []
    handle.answer("second")
    handle.answer("third")
    assert world.poll() == ["second", "third"]
    assert handle.under_way == 2


def test_a_dead_actor_is_started_again_after_a_pause_that_doubles(world):
    world.poll()
    for pause_s in (0.5, 1.0, 2.0, 4.0):
        before = len(world.started)
        world.started[-1].fail(died())
        assert world.poll() == []
        assert world.started[-1].is_killed
        world.poll(after_s=pause_s - 0.01)
        assert len(world.started) == before
        world.poll(after_s=0.02)
        assert len(world.started) == before + 1
        assert world.started[-1].under_way == 2
    assert world.crew.num_restarts == 4


def test_what_came_before_a_death_is_kept(world):
    world.poll()
    world.started[0].answer("report")
    world.started[0].fail(died())
    assert world.poll() == ["report"]
    assert world.started[0].is_killed


def test_five_failures_in_a_row_end_the_run_with_the_last_cause(world):
    world.poll()
    for _ in range(4):
        world.started[-1].fail(task_error(BackendFailedError("the device is down")))
        world.poll()
        world.poll(after_s=10)
    world.started[-1].fail(task_error(BackendFailedError("the device is still down")))
    with pytest.raises(RunFailedError, match=r"actor 0 failed 5 times .*still down.*hdqnn resume") as raised:
        world.poll()
    assert raised.value.exit_code == EXIT_FAILED


def test_a_report_between_failures_starts_the_count_again(world):
    world.poll()
    for _ in range(12):
        world.started[-1].fail(died())
        world.poll()
        world.poll(after_s=10)
        world.started[-1].answer("report")
        assert world.poll() == ["report"]
    assert world.crew.num_restarts == 12


def test_an_environment_at_fault_ends_the_run_at_once_and_is_told_once(world, caplog):
    world.poll()
    error = InvalidEnvironmentError("the reward is nan")
    world.started[0].fail(task_error(error))
    with pytest.raises(InvalidEnvironmentError, match="the reward is nan") as raised:
        world.poll()
    assert raised.value is error
    assert world.crew.stop() == []
    assert world.started[0].is_killed
    assert caplog.records == []


def test_a_budget_that_is_used_up_ends_the_run_at_once(world):
    world.poll()
    world.started[0].fail(task_error(BudgetExceededError("nothing left")))
    with pytest.raises(BudgetExceededError, match="nothing left"):
        world.poll()
    assert world.crew.num_restarts == 0


def test_an_actor_may_wait_as_long_as_its_device(monkeypatch):
    monkeypatch.setattr("cluster.crew.ray", FakeRay())
    world = World(deadline_s=20_000.0)
    world.poll()
    world.poll(after_s=19_999)
    assert not world.started[0].is_killed
    world.poll(after_s=2)
    assert world.started[0].is_killed


def test_an_error_without_words_is_survived(world):
    world.poll()
    world.started[0].fail(task_error(TimeoutError()))
    assert world.poll() == []
    assert world.crew.num_restarts == 1


def test_an_actor_that_says_nothing_for_five_minutes_is_replaced(world):
    world.poll()
    world.poll(after_s=299)
    assert not world.started[0].is_killed
    world.poll(after_s=2)
    assert world.started[0].is_killed
    world.poll(after_s=1)
    assert len(world.started) == 2


def test_an_actor_without_a_machine_waits_and_has_not_failed(monkeypatch):
    monkeypatch.setattr("cluster.crew.ray", FakeRay())
    world = World(num_actors=3)
    world.num_machines = 1
    for _ in range(4 * 3_600):
        world.poll(after_s=1.0)
        for call in [call for call in world.started[0].calls if call.answer is None]:
            call.answer = "report"
    assert [handle.is_killed for handle in world.started] == [False] * 3
    assert world.crew.num_restarts == 0
    assert world.crew.waiting == "2 of 3 actors wait for a machine"
    assert world.started[1].looks <= 4 * 3_600 / 5, "Ray is asked too often"
    assert world.started[0].looks <= 1, "an actor that reports has a machine"
    # A machine comes; from then on it is an actor like any other.
    world.started[1].is_placed = True
    world.poll(after_s=10)
    assert world.crew.waiting == "1 of 3 actors wait for a machine"
    world.poll(after_s=285)
    assert not world.started[1].is_killed
    world.poll(after_s=20)
    assert [handle.is_killed for handle in world.started[:3]] == [True, True, False]


def test_an_actor_that_is_being_started_is_not_called_one_without_a_machine(world):
    world.num_machines = 0
    world.poll()
    for _ in range(29):
        world.poll(after_s=1)
        assert world.crew.waiting == ""
    world.poll(after_s=10)
    assert world.crew.waiting == "1 of 1 actors wait for a machine"


class SlowRay(FakeRay):
    """Whoever waits for an answer that does not come has waited."""

    def get(self, call, timeout=None):
        if call.answer is None:
            self.world.now_s += timeout
        return super().get(call, timeout)


def test_stopping_many_actors_that_hang_takes_as_long_as_one(monkeypatch, caplog):
    """Each of them may be waiting for bits; whoever stops a run kills what takes two minutes."""
    ray = SlowRay()
    monkeypatch.setattr("cluster.crew.ray", ray)
    ray.world = world = World(num_actors=8)
    world.num_machines = 6
    world.poll()
    world.poll(after_s=10)
    world.started[5].answer("report")
    before_s = world.now_s
    assert world.crew.stop() == ["report"]
    assert world.now_s - before_s == 10.0
    assert [handle.is_killed for handle in world.started] == [True] * 8
    assert "actor 4 did not end cleanly" in caplog.text
    assert "actor 6 did not end cleanly" not in caplog.text, "it was never there"
    for handle in world.started:
        handle.is_killed = False
    assert world.crew.stop() == []
    assert not any(handle.is_killed for handle in world.started), "Ray was told again"


def test_stopping_takes_the_last_reports_and_ends_the_processes(world):
    world.poll()
    world.started[0].answer("one")
    world.started[0].answer("two")
    assert world.crew.stop() == ["one", "two"]
    assert world.started[0].is_killed
    assert world.crew.stop() == []


def test_stopping_is_not_held_up_by_a_dead_actor(world, caplog):
    world.poll()
    world.started[0].answer("one")
    world.started[0].fail(died())
    assert world.crew.stop() == ["one"]
    assert "actor 0 did not end cleanly: the process was killed" in caplog.text.replace("\n", " ")
