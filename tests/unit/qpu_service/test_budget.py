"""Money: what is reserved, charged and refused, over restarts and between workers."""

import json
import multiprocessing
import re
from pathlib import Path

import pytest

from qpu_service.budget import Budget, BudgetLimits
from qpu_service.errors import BackendUnavailableError, BudgetExceededError


def test_seconds_are_reserved_then_replaced_by_the_charge(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=100.0))
    assert budget.reserve("a", 30.0) == 100.0
    assert budget.spending().reserved_s == 30.0
    budget.settle("a", 12.5)
    spending = budget.spending()
    assert (spending.spent_s, spending.reserved_s, spending.jobs) == (12.5, 0.0, 1)


def test_a_job_may_take_what_others_have_left(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=100.0))
    budget.reserve("a", 30.0)
    assert budget.reserve("b", 10.0) == 70.0
    budget.settle("a", 20.0)
    assert budget.reserve("b", 10.0) == 80.0  # the same job again reserves nothing more
    assert budget.spending().jobs == 2


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=10.0))
    budget.reserve("a", 6.0)
    before = (tmp_path / "budget.json").read_text()
    expected = "needs about 4.1 QPU seconds, but of the budget of 10 s 0.0 s are spent and 6.0 s set aside"
    with pytest.raises(BudgetExceededError, match=re.escape(expected)):
        budget.reserve("b", 4.1)
    assert (tmp_path / "budget.json").read_text() == before
    budget.reserve("b", 4.0)


def test_jobs_are_counted_and_refused(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(jobs=2))
    assert budget.reserve("a", 5.0) is None
    budget.settle("a", 5.0)
    budget.reserve("b", 5.0)
    with pytest.raises(BudgetExceededError, match=r"2 QPU jobs is used up \(2 sent\)"):
        budget.reserve("c", 5.0)


def test_a_job_that_was_never_sent_gives_everything_back(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=10.0, jobs=1))
    budget.reserve("a", 10.0)
    budget.release("a")
    budget.release("a")
    budget.reserve("b", 10.0)
    assert budget.spending().jobs == 1


def test_settling_twice_charges_once(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits())
    budget.reserve("a", 1.0)
    budget.settle("a", 4.0)
    budget.settle("a", 4.0)
    budget.release("a")
    assert budget.spending().spent_s == 4.0


def test_a_session_is_charged_what_it_has_cost_since_it_was_charged_last(tmp_path: Path) -> None:
    first, second = (Budget(tmp_path, BudgetLimits(seconds=100.0)) for _ in range(2))
    first.reserve("a", 5.0)
    second.reserve("b", 5.0)
    assert first.settle_session("s1", 10.0, "a") == 10.0
    assert second.settle_session("s1", 9.0, "b") == 0.0, "an answer that was overtaken by a later one"
    assert second.settle_session("s1", 12.0) == 2.0
    assert second.settle_session("s2", 3.0, "b") == 3.0
    spending = first.spending()
    assert (spending.spent_s, spending.reserved, spending.uncorrected) == (15.0, {}, {})
    assert spending.sessions == {"s1": 12.0, "s2": 3.0}
    assert spending.correction == pytest.approx(1.5)


def test_a_charge_that_stays_unknown_counts_as_estimated(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits())
    budget.reserve("a", 7.0)
    budget.settle("a", None)
    assert (budget.spending().spent_s, budget.spending().correction) == (7.0, 1.0)


def test_estimates_learn_from_what_was_charged(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=100.0))
    budget.reserve("a", 2.0)
    budget.settle("a", 6.0)
    budget.reserve("b", 2.0)
    assert budget.spending().reserved == {"b": pytest.approx(6.0)}


def test_cheap_jobs_do_not_make_estimates_smaller(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=100.0))
    budget.reserve("a", 5.0)
    budget.settle("a", 1.0)
    budget.reserve("b", 5.0)
    assert budget.spending().reserved == {"b": 5.0}


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    first = Budget(tmp_path, BudgetLimits(seconds=10.0))
    first.reserve("a", 3.0)
    first.settle("a", 5.0)
    first.reserve("b", 3.0)
    again = Budget(tmp_path, BudgetLimits(seconds=10.0))
    assert again.spending() == first.spending()
    with pytest.raises(BudgetExceededError):
        again.reserve("c", 3.0)


def test_a_crash_while_writing_leaves_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget(tmp_path, BudgetLimits())
    budget.reserve("a", 3.0)

    def crash(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", crash)
    with pytest.raises(KeyboardInterrupt):
        budget.reserve("b", 3.0)
    monkeypatch.undo()
    assert set(Budget(tmp_path, BudgetLimits()).spending().reserved) == {"a"}


@pytest.mark.parametrize("text", ["{", "[]", '{"spent_s": 1, "colour": 2}'])
def test_a_damaged_file_stops_the_spending(tmp_path: Path, text: str) -> None:
    (tmp_path / "budget.json").write_text(text)
    with pytest.raises(BackendUnavailableError, match=r"budget\.json is damaged"):
        Budget(tmp_path, BudgetLimits(seconds=1.0))


@pytest.mark.parametrize("limits", [{"seconds": -1.0}, {"seconds": float("nan")}, {"jobs": -1}])
def test_impossible_limits_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be finite and 0 or more"):
        BudgetLimits(**limits)  # type: ignore[arg-type]


def spend(directory: str, worker: int) -> int:
    budget, accepted = Budget(Path(directory), BudgetLimits(seconds=30.0)), 0
    for job in range(10):
        try:
            budget.reserve(f"{worker}-{job}", 1.0)
        except BudgetExceededError:
            continue
        budget.settle(f"{worker}-{job}", 1.0)
        accepted += 1
    return accepted


def test_workers_share_one_budget(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        accepted = pool.starmap(spend, [(str(tmp_path), worker) for worker in range(4)])
    assert sum(accepted) == 30
    assert Budget(tmp_path, BudgetLimits()).spending().spent_s == 30.0
