"""Sessions are charged by the clock: every second of one counts once, whatever becomes of its jobs. About 3 s."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qpu_service import job_journal
from qpu_service.errors import BackendFailedError, JobFailedError
from tests.unit.qpu_service.ibm_process import Clock, ended_as, flips, http, make_backend, refused
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, Killed, ScriptedService


def fail(service: ScriptedService) -> None:
    ended_as("Error code 1305; maximum execution time")(service)


def cancel(service: ScriptedService) -> None:
    service.next_statuses.append(["QUEUED"])


def charge_late(service: ScriptedService) -> None:
    refused(ConnectionError("reset"), "usage")(service)


@pytest.mark.parametrize(
    ("script", "error"),
    [(fail, JobFailedError), (cancel, BackendFailedError), (charge_late, None)],
    ids=["failed", "cancelled", "charged late"],
)
def test_what_an_earlier_job_was_charged_is_not_charged_again(
    tmp_path: Path, script: Callable[[ScriptedService], None], error: type[Exception] | None
) -> None:
    service, clock = ScriptedService(), Clock()
    service.session_elapsed_s = 10.0
    backend = make_backend(service, tmp_path, clock, mode="session", deadline_s=300.0)
    script(service)
    if error is None:
        backend.run(flips([9], seed=1))
        clock.now += 61.0
        backend.run(flips([]))
    else:
        with pytest.raises(error):
            backend.run(flips([9], seed=1))
    assert (backend.spending().spent_s, backend.spending().reserved) == (10.0, {})
    service.session_elapsed_s = 25.0
    backend.run(flips([9], seed=2))
    assert (backend.spending().spent_s, backend.spending().reserved) == (25.0, {})


def test_jobs_that_the_journal_has_forgotten_stay_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_journal, "_REMEMBERED", 1)
    service = ScriptedService()
    backend = make_backend(service, tmp_path, mode="session")
    for seed in range(5):
        service.session_elapsed_s += 10.0
        backend.run(flips([9], seed=seed))
    assert backend.spending().spent_s == 50.0


def test_workers_that_share_a_session_charge_it_once(tmp_path: Path) -> None:
    service = ScriptedService()
    make_backend(service, tmp_path, mode="session").run(flips([9], seed=1))
    workers = [make_backend(service, tmp_path, mode="session") for _ in range(2)]
    for seed, worker in enumerate(workers * 2, start=2):
        service.session_elapsed_s += 10.0
        worker.run(flips([9], seed=seed))
    assert len(service.sessions) == 1
    assert workers[0].spending().spent_s == 40.0


def test_the_time_after_the_last_job_is_charged_when_the_session_is_closed(tmp_path: Path) -> None:
    service = ScriptedService()
    service.session_elapsed_s = 10.0
    backend = make_backend(service, tmp_path, mode="session")
    backend.run(flips([9]))
    service.session_elapsed_s = 70.0  # the learner thought for a minute
    backend.close()
    assert backend.spending().spent_s == 70.0


@pytest.mark.parametrize("mode", ["session", "batch", "job"])
def test_a_late_charge_in_an_earlier_session_is_by_that_sessions_clock(tmp_path: Path, mode: str) -> None:
    service, clock = ScriptedService(), Clock()
    backend = make_backend(service, tmp_path, clock, mode="session")
    backend.run(flips([9], seed=1))
    service.sessions[0].elapsed_s = 10.0
    service.script["result"] = [Killed()]
    with pytest.raises(Killed):
        backend.run(flips([9], seed=2))
    service.sessions[0].is_open = False
    service.sessions[0].elapsed_s = 30.0
    backend = make_backend(service, tmp_path, clock, mode=mode)
    service.session_elapsed_s = 0.5  # of a session or batch that is opened now
    backend.run(flips([9], seed=3))
    clock.now += 61.0
    backend.run(flips([]))
    assert backend.spending().spent_s == 30.0 + (0.5 if mode == "session" else SECONDS_PER_JOB)
    assert backend.spending().reserved == {}


def test_a_session_that_is_closed_by_the_service_stays_charged(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    backend = make_backend(service, tmp_path, clock, mode="session")
    service.session_elapsed_s = 10.0
    backend.run(flips([9], seed=1))
    service.sessions[0].elapsed_s = 10.0
    service.session_elapsed_s = 4.0
    refused(http(400, "Session has been closed. Error code: 4001."))(service)
    backend.run(flips([9], seed=2))
    assert [job.session_id for job in service.paid] == ["session-1", "session-2"]
    assert backend.spending().spent_s == 14.0


def test_jobs_of_a_batch_are_charged_one_by_one(tmp_path: Path) -> None:
    service = ScriptedService()
    service.session_elapsed_s = 99.0
    make_backend(service, tmp_path, mode="batch").run(flips([9], seed=1))
    backend = make_backend(service, tmp_path, mode="session")  # a batch is no session to go on with
    backend.run(flips([9], seed=1))
    assert backend.spending().spent_s == SECONDS_PER_JOB
    backend.run(flips([9], seed=2))
    assert [job.session_id for job in service.paid] == ["session-1", "session-2"]
    assert backend.spending().spent_s == SECONDS_PER_JOB + 99.0


def test_a_job_that_the_service_has_lost_costs_what_its_session_costs(tmp_path: Path) -> None:
    service = ScriptedService()
    service.session_elapsed_s = 10.0
    service.script["result"] = [Killed()]
    with pytest.raises(Killed):
        make_backend(service, tmp_path, mode="session").run(flips([9]))
    service.paid[0].identifier = "another"
    backend = make_backend(service, tmp_path, mode="session")
    backend.run(flips([9]))
    assert backend.spending().spent_s == 10.0


def test_a_job_that_is_found_by_its_tag_belongs_to_its_session(tmp_path: Path) -> None:
    service = ScriptedService()
    service.session_elapsed_s = 10.0
    backend = make_backend(service, tmp_path, mode="session")
    backend.run(flips([9], seed=1))
    service.script["reply"] = [Killed()]
    with pytest.raises(Killed):
        backend.run(flips([9], seed=2))
    service.session_elapsed_s = 25.0
    backend = make_backend(service, tmp_path, mode="session")
    for seed in (2, 3):
        backend.run(flips([9], seed=seed))
    assert [job.session_id for job in service.paid] == ["session-1"] * 3
    assert backend.spending().spent_s == 25.0
