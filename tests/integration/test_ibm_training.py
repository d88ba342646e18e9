"""Training on Ray with the ibm backend: the real client against IBM's interface on localhost. About 60 s."""

import pytest

from cluster.errors import EXIT_INTERRUPTED
from cluster.run_directory import RunDirectory, read_rows
from qpu_service.budget import Budget, BudgetLimits
from qpu_service.job_journal import JobJournal
from tests.commands import TINY, Command, hdqnn
from tests.environments import PREFIX
from tests.integration.ibm_http import FakeIBM

pytestmark = [pytest.mark.ray, pytest.mark.redis, pytest.mark.slow]

ARGUMENTS = [
    *("train", "smoke", *TINY, "--env-id", f"{PREFIX}Seeded-v0", "--run-dir", "run"),
    *("--td3.learning-starts", "40", "--replay.slack-steps", "200", "--log-period-steps", "20"),
    *("--evaluation.period-steps", "1000", "--evaluation.num-episodes", "1"),
]


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return tmp_path_factory.mktemp("journal")


@pytest.fixture(scope="module")
def ibm():
    with FakeIBM() as server:
        server.polls_before_done = 0
        yield server


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, journal, ibm):
    """A run that its budget stops after a few dozen steps; its directory and what it said."""
    directory = tmp_path_factory.mktemp("ibm")
    environment = {"QPU_BACKEND": "ibm", **ibm.environment(journal, QPU_BUDGET_SECONDS="10000")}
    finished = hdqnn(*ARGUMENTS, "--total-steps", "200", directory=directory, QPU_BUDGET_JOBS="30", **environment)
    return directory, environment, finished


def test_a_budget_that_is_used_up_ends_the_run_with_everything_saved(stopped, journal, ibm):
    directory, _, finished = stopped
    assert finished.code == 1, finished
    assert "the budget of 30 QPU jobs is used up" in finished.err
    assert "raise QPU_BUDGET_JOBS" in finished.err
    assert "hdqnn resume run" in finished.err
    assert "Traceback" not in finished.out + finished.err
    assert Budget(journal, BudgetLimits()).spending().jobs == len(ibm.jobs) == 30
    assert list(RunDirectory(directory / "run").checkpoints.iterdir())


def test_it_goes_on_with_a_larger_budget_and_pays_no_circuit_twice(stopped, journal, ibm):
    directory, environment, _ = stopped
    finished = hdqnn("resume", "run", directory=directory, QPU_BUDGET_JOBS="10000", **environment)
    assert finished.code == 0, finished
    assert "done after" in finished.out
    spending = Budget(journal, BudgetLimits()).spending()
    jobs = JobJournal(journal).jobs
    assert spending.jobs == len(ibm.jobs) > 30
    assert spending.reserved == {}
    circuits = [digest for job in jobs if job.state == "done" for digest in job.digests]
    assert len(circuits) == len(set(circuits))
    backends = {row["env_step"] for row in read_rows(RunDirectory(directory / "run").metrics)}
    assert max(backends) >= 200


def test_rows_say_what_is_left_of_the_budget(stopped):
    # After the run above. How many rows a run of seconds writes, and when, depends on the machine.
    directory, _, _ = stopped
    rows = [row for row in read_rows(RunDirectory(directory / "run").metrics) if "qpu/budget_left_jobs" in row]
    left = [row["qpu/budget_left_jobs"] for row in rows]
    first, second = [n for n in left if n <= 30], [n for n in left if n > 30]
    assert left == [*first, *second]
    assert first == sorted(first, reverse=True)
    assert second == sorted(second, reverse=True)
    assert 0 < second[-1] <= 10_000 - 30
    assert {row["qpu/breaker_open"] for row in rows} == {0.0}
    assert rows[-1]["qpu/run_ms"] > 0


def test_a_run_that_is_stopped_while_its_job_waits_closes_the_session(tmp_path):
    with FakeIBM() as ibm:
        ibm.polls_before_done = 10**6
        environment = {"QPU_BACKEND": "ibm", **ibm.environment(tmp_path / "journal", QPU_MODE="session")}
        with Command([*ARGUMENTS, "--total-steps", "200"], tmp_path, environment) as run:
            run.wait_until(lambda: ibm.seen.count("status") > 1)
            run.press_ctrl_c()
            finished = run.wait()
        assert finished.code == EXIT_INTERRUPTED, finished
        assert [session["accepting_jobs"] for session in ibm.sessions] == [False]
        (job,) = ibm.jobs
        assert not job.was_cancelled, "it is paid: the next start takes it up"
        assert JobJournal(tmp_path / "journal").jobs[0].state == "submitted"
