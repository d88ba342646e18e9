"""What IBM jobs may cost, what they are charged, and how large requests are cut. About 2 s."""

from pathlib import Path

import pytest

from qpu_service.budget import BudgetLimits
from qpu_service.errors import (
    BudgetExceededError,
    JobFailedError,
)
from qpu_service.ibm import usage
from tests.unit.qpu_service.ibm_process import (
    Clock,
    assert_right,
    flips,
    make_backend,
)
from tests.unit.qpu_service.ibm_service import ScriptedService


def test_what_the_budget_does_not_cover_is_not_sent(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path, budget=BudgetLimits(seconds=1.9))  # a job's overhead alone is 2 s
    with pytest.raises(BudgetExceededError, match=r"needs about 2\.0 QPU seconds"):
        backend.run(flips([9]))
    assert service.paid == []
    assert backend.spending().jobs == 0


def test_a_budget_is_overrun_by_the_job_in_flight_at_most_also_over_restarts(tmp_path: Path) -> None:
    service = ScriptedService()
    limit, charge = 50.0, 15.0  # seven times what the model says
    spent = []
    for number in range(16):
        service.next_charges.append(charge)
        backend = make_backend(service, tmp_path, budget=BudgetLimits(seconds=limit))
        try:
            backend.run(flips([number], seed=number))
        except BudgetExceededError:
            service.next_charges.pop()
        spent.append(backend.spending().spent_s)
    assert max(spent) <= limit + charge
    assert len(service.paid) == 3  # estimates were corrected after the first charge: 45 s spent, 15 s do not fit
    assert [job.max_execution_time for job in service.paid] == [50, 35, 20]


def test_a_budget_of_jobs_is_kept(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path, budget=BudgetLimits(jobs=2))
    backend.run(flips([1], seed=1))
    backend.run(flips([2], seed=2))
    with pytest.raises(BudgetExceededError, match="2 QPU jobs"):
        backend.run(flips([3], seed=3))
    assert service.paid[0].max_execution_time is None


def test_usage_that_is_known_late_is_charged_later(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    service.next_charges += [[None, 7.0], [None, None, 9.0]]
    backend = make_backend(service, tmp_path, clock)
    backend.run(flips([1], seed=1))
    assert (backend.spending().spent_s, len(backend.spending().reserved)) == (0.0, 1)
    clock.now += 61.0
    backend.run(flips([2], seed=2))
    assert (backend.spending().spent_s, len(backend.spending().reserved)) == (7.0, 1)
    backend.close()
    again = make_backend(service, tmp_path, clock)
    clock.now += 61.0
    again.run(flips([]))
    assert (again.spending().spent_s, again.spending().reserved) == (16.0, {})


def test_late_usage_is_asked_for_before_work_is_refused(tmp_path: Path) -> None:
    service = ScriptedService()
    service.next_charges.append([None, 0.5])
    backend = make_backend(service, tmp_path, budget=BudgetLimits(seconds=3.0))
    backend.run(flips([1], seed=1))
    backend.run(flips([2], seed=2))  # 2 s were set aside for the first job, which took 0.5 s
    assert len(service.paid) == 2


def test_a_session_is_charged_by_the_clock_and_closed(tmp_path: Path) -> None:
    service = ScriptedService()
    service.next_charges += [99.0, 99.0]  # a job's own usage is not what a session costs
    backend = make_backend(service, tmp_path, mode="session", budget=BudgetLimits(seconds=100.0))
    spent = []
    # The second request is the first one again: its job is read, not charged.
    for seed, elapsed_s in [(1, 10.0), (1, 10.0), (2, 25.0)]:
        service.session_elapsed_s = elapsed_s
        backend.run(flips([9], seed=seed))
        spent.append(backend.spending().spent_s)
    (session,) = service.sessions
    assert session.max_time == 100
    assert spent == [10.0, 10.0, 25.0]
    backend.close()
    backend.close()
    assert not session.is_open


def test_a_restart_goes_on_in_its_session(tmp_path: Path) -> None:
    service = ScriptedService()
    make_backend(service, tmp_path, mode="session").run(flips([1], seed=1))
    make_backend(service, tmp_path, mode="session").run(flips([2], seed=2))
    assert len(service.sessions) == 1
    service.sessions[0].is_open = False
    make_backend(service, tmp_path, mode="session").run(flips([3], seed=3))
    assert len(service.sessions) == 2


@pytest.mark.parametrize(("mode", "sent_before_first_result"), [("job", 1), ("batch", 3)])
def test_large_requests_are_cut_into_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, sent_before_first_result: int
) -> None:
    monkeypatch.setattr(usage, "MAX_EXECUTIONS", 4)
    service = ScriptedService()
    results: list[int] = []
    happen = service.happen

    def watch(call: str) -> None:
        if call == "result":
            results.append(len(service.paid))
        happen(call)

    service.happen = watch  # type: ignore[method-assign]
    numbers = list(range(10))
    assert_right(make_backend(service, tmp_path, mode=mode).run(flips(numbers)).bits, numbers)
    assert [len(job.circuits) for job in service.paid] == [4, 4, 2]
    assert results[0] == sent_before_first_result
    assert len(service.sessions) == (1 if mode == "batch" else 0)


def test_what_was_measured_before_a_failure_is_not_paid_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MAX_EXECUTIONS", 2)
    service = ScriptedService()
    service.next_statuses += [["DONE"], ["ERROR"]]
    service.next_messages += ["", "Error code 1305; ran too long"]
    backend = make_backend(service, tmp_path)
    with pytest.raises(JobFailedError):
        backend.run(flips([1, 2, 3, 4]))
    assert_right(backend.run(flips([1, 2, 3, 4])).bits, [1, 2, 3, 4])
    assert [len(job.circuits) for job in service.paid] == [2, 2, 2]
