"""The start of QPU workers: waited for while the run can be stopped, and not for ever."""

import pytest
from ray.exceptions import RayActorError, RayTaskError

from cluster.errors import ClusterUnreachableError
from qpu_service.errors import BackendUnavailableError, BudgetExceededError
from tests.unit.cluster.test_qpu_crew import Ray, World, stats


class StartRay(Ray):
    """Closing workers answer at once."""

    def wait(self, calls, *, num_returns=1, timeout):
        if timeout:
            assert num_returns == len(calls)
            for call in calls:
                call.answer = "closed"
            timeout = 0
        return super().wait(calls, num_returns=len(calls), timeout=timeout)


@pytest.fixture
def ray(monkeypatch):
    fake = StartRay()
    monkeypatch.setattr("cluster.qpu_crew.ray", fake)
    return fake


def test_workers_that_start_at_once_are_waited_for_without_a_word(ray):
    notes = []
    World(ray, num_workers=3, meanwhile=notes.append)
    assert len(ray.started) == 3
    assert set(notes) <= {""}


def test_a_worker_without_a_machine_is_told_after_ten_seconds_and_can_come_later(ray):
    ray.num_machines, notes = 2, []

    def meanwhile(note):
        notes.append(note)
        if len(notes) == 1_000:
            ray.started[2].is_placed = True

    World(ray, num_workers=3, meanwhile=meanwhile)
    assert len(notes) > 1_000 - 2
    assert notes[50] == ""
    assert notes[900] == "1 of 3 QPU workers wait for a machine"


def test_a_backend_that_takes_long_is_told_too(ray):
    notes = []

    def meanwhile(note):
        notes.append(note)

    World(ray, starts=lambda handle: len(notes) > 500, meanwhile=meanwhile)
    assert notes[400] == "1 of 1 QPU workers make their backends"


def test_a_stop_while_they_start_ends_them_all_and_closes_those_that_are_up(ray):
    ray.num_machines = 2

    def meanwhile(note):
        if note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        World(ray, num_workers=3, meanwhile=meanwhile)
    assert [handle for handle, _ in ray.kills] == ray.started
    assert [len(handle.close.calls) for handle in ray.started] == [1, 1, 0]


@pytest.mark.parametrize(
    ("num_machines", "words"),
    [(1, "2 of 3 QPU workers wait for a machine"), (3, "2 of 3 QPU workers make their backends")],
    ids=["no machine", "backends hang"],
)
def test_what_does_not_start_within_half_an_hour_ends_the_run_with_the_reason(ray, num_machines, words):
    ray.num_machines, waited_s = num_machines, []

    class Watched(World):
        def _sleep(self, seconds):
            super()._sleep(seconds)
            waited_s.append(seconds)

    with pytest.raises(ClusterUnreachableError, match=f"{words} after 30 min.*ray status.*hdqnn resume"):
        Watched(ray, num_workers=3, starts=lambda handle: handle is ray.started[0])
    assert 1_800 <= sum(waited_s) < 1_810
    assert [handle for handle, _ in ray.kills] == ray.started


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (RayTaskError("init", "a traceback", BudgetExceededError("nothing left")), BudgetExceededError),
        (RayActorError(error_msg="killed"), BackendUnavailableError),
    ],
    ids=["its own error", "died"],
)
def test_a_backend_that_cannot_be_made_is_told_as_it_is(ray, failure, expected):
    def starts(handle):
        for call in handle.stats.calls:
            call.answer = failure
        return False

    with pytest.raises(expected):
        World(ray, num_workers=2, starts=starts)
    assert [handle for handle, _ in ray.kills] == ray.started


def test_the_first_answer_is_no_row_yet(ray):
    world = World(ray)
    assert world.crew.row() == {}
    world.hear(stats())
    assert world.crew.row() == {}
