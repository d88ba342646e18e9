"""Test rounds in a process of their own: their order, what happens when it fails or hangs, and how many may wait."""

import pytest
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import InvalidEnvironmentError
from cluster.errors import RunFailedError
from cluster.remote_tests import RemoteTests
from qpu_service.errors import BackendFailedError
from tests.unit.cluster.fake_ray import FakeRay, Handle, has_process


def task_error(cause):
    return RayTaskError("call", "a traceback", cause)


class Rounds:
    """A RemoteTests and the workers that it started."""

    def __init__(self):
        self.workers = []
        self.now_s = 100.0
        self.tests = RemoteTests(self._start, deadline_s=60.0, has_process=has_process, clock=lambda: self.now_s)

    def _start(self):
        self.workers.append(Handle())
        return self.workers[-1]

    def under_way(self):
        """What the worker was asked for and has not answered."""
        return [call.arguments[0] for call in self.workers[-1].run.calls if call.answer is None]

    def finish_one(self, after_s=0.0):
        """The round under way ends, stepping all the while; returns what is collected then."""
        self.now_s += after_s
        for question in self.workers[-1].idle_s.calls:
            question.answer = 0.0
        (name,) = self.under_way()
        self.workers[-1].run.calls[-1].answer = f"round {name}"
        return self.tests.collect()


@pytest.fixture
def rounds(monkeypatch):
    monkeypatch.setattr("cluster.remote_tests.ray", FakeRay())
    return Rounds()


def test_rounds_come_one_after_another_in_the_order_in_which_they_were_asked_for(rounds):
    assert rounds.tests.request("first") == []
    assert rounds.tests.request("second") == []
    assert rounds.tests.collect() == []
    assert rounds.under_way() == ["first"]
    assert rounds.finish_one() == ["round first"]
    assert rounds.finish_one() == ["round second"]
    assert rounds.tests.collect() == []
    assert len(rounds.workers) == 1


@pytest.mark.parametrize(
    "error",
    [RayActorError(error_msg="killed"), task_error(BackendFailedError("down")), task_error(TimeoutError())],
    ids=["died", "QPU failed", "silent"],
)
def test_a_round_that_fails_is_run_again_elsewhere_before_those_behind_it(rounds, caplog, error):
    rounds.tests.request("first")
    rounds.tests.request("second")
    rounds.workers[0].fail(error)
    assert rounds.tests.collect() == []
    assert rounds.workers[0].is_killed
    assert rounds.under_way() == ["first"]
    assert "running its round again" in caplog.text
    assert rounds.finish_one() == ["round first"]
    assert rounds.under_way() == ["second"]


def test_rounds_wait_for_no_more_than_about_ten_minutes_of_testing(rounds):
    rounds.tests.request("0")
    assert rounds.finish_one(after_s=250.0) == ["round 0"]
    assert [rounds.tests.request(name) for name in ("1", "2", "3")] == [[], [], []]
    assert rounds.tests.request("4") == ["2"], "two rounds of 250 s may wait, and the oldest makes room"
    assert rounds.tests.request("5") == ["3"]
    assert [rounds.finish_one(after_s=250.0) for _ in range(3)] == [["round 1"], ["round 4"], ["round 5"]]


def test_rounds_that_are_short_all_wait(rounds):
    rounds.tests.request("0")
    rounds.finish_one(after_s=5.0)
    names = [str(number) for number in range(1, 101)]
    assert [rounds.tests.request(name) for name in names] == [[]] * 100
    assert [rounds.finish_one(after_s=5.0) for _ in names] == [[f"round {name}"] for name in names]


def test_before_the_first_round_has_ended_its_age_says_how_long_they_take(rounds):
    names = [str(number) for number in range(5)]
    assert [rounds.tests.request(name) for name in names] == [[]] * 5
    rounds.now_s += 3_600.0
    assert rounds.tests.request("5") == ["1", "2", "3", "4"]
    assert rounds.finish_one() == ["round 0"]
    assert rounds.finish_one() == ["round 5"], "the newest round is never left out"


def test_an_environment_at_fault_ends_the_run_with_its_own_error(rounds):
    rounds.tests.request("first")
    error = InvalidEnvironmentError("the reward is nan")
    rounds.workers[0].fail(task_error(error))
    with pytest.raises(InvalidEnvironmentError) as raised:
        rounds.tests.collect()
    assert raised.value is error


def test_an_evaluator_that_fails_again_and_again_is_given_time_and_then_ends_the_run(rounds):
    rounds.tests.request("first")
    started_s = []
    for _ in range(4):
        rounds.workers[-1].fail(RayActorError(error_msg="killed"))
        before = len(rounds.workers)
        rounds.tests.collect()
        while len(rounds.workers) == before:
            rounds.now_s += 0.25
            rounds.tests.collect()
        started_s.append(rounds.now_s)
    assert started_s == [100.0, 100.5, 101.5, 103.5]
    rounds.workers[-1].fail(RayActorError(error_msg="killed"))
    with pytest.raises(RunFailedError, match=r"evaluator failed 5 times in a row.*killed.*hdqnn resume"):
        rounds.tests.collect()


def look(rounds, after_s, answer=None):
    """Let time pass and the runner look at its worker, which answers how long its step has lasted."""
    rounds.now_s += after_s
    rounds.tests.collect()
    if answer is not None:
        (question,) = [call for call in rounds.workers[-1].idle_s.calls if call.answer is None]
        question.answer = answer


def test_an_evaluator_that_hangs_is_replaced(rounds, caplog):
    rounds.tests.request("first")
    for _ in range(20):
        look(rounds, 6.0, answer=59.0)
        look(rounds, 6.0)
    assert len(rounds.workers) == 1, "a slow step was taken for a wedged one"
    look(rounds, 6.0, answer=61.0)
    look(rounds, 6.0)
    assert rounds.workers[0].is_killed
    assert "no step for 61 s; an environment or a backend hangs" in caplog.text
    assert rounds.finish_one() == ["round first"]


def test_an_evaluator_that_answers_nothing_at_all_is_replaced(rounds):
    rounds.tests.request("first")
    for _ in range(12):
        look(rounds, 6.0)
    assert [worker.is_killed for worker in rounds.workers] == [True, False]


def test_an_evaluator_without_a_machine_does_not_hang(rounds):
    rounds.tests.request("first")
    rounds.workers[0].is_placed = False
    for _ in range(600):
        look(rounds, 6.0)
    assert not rounds.workers[0].is_killed
    rounds.workers[0].is_placed = True
    for _ in range(12):
        look(rounds, 6.0)
    assert rounds.workers[0].is_killed


def test_an_evaluator_that_hangs_for_good_ends_the_run(rounds):
    rounds.tests.request("first")

    def hang_for_ever():
        for _ in range(100):
            look(rounds, 6.0)

    with pytest.raises(RunFailedError, match=r"failed 5 times in a row, the last time with: no step for 6\d s"):
        hang_for_ever()
