"""Every failure of the error table, lost answers, deadlines: what the caller gets and what was paid. About 3 s.

The service is scripted (ibm_service.py); journal, budget, error table, assembler and job runner are the real ones.
"""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError, IBMRuntimeError

from qpu_service.errors import (
    BackendFailedError,
    BackendUnavailableError,
    InvalidCircuitError,
    JobFailedError,
    QPUError,
)
from qpu_service.types import CircuitBatch
from tests.unit.qpu_service.ibm_process import (
    NUM_QUBITS,
    Clock,
    assert_right,
    ended_as,
    flips,
    http,
    make_backend,
    refused,
)
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, ScriptedService


def test_a_request_is_one_tagged_job_that_is_noted_and_charged(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path)
    measured = backend.run(flips([5, 0, 15], request_id="r-7"))
    assert_right(measured.bits, [5, 0, 15])
    assert (measured.request_id, measured.backend_name, measured.job_id) == ("r-7", "ibm:ibm_test", "job-1")
    (job,) = service.paid
    assert job.tags[0] == "hdqnn-run-run1"
    assert job.max_execution_time == 1_000
    events = [json.loads(line)["event"] for line in (tmp_path / "jobs.jsonl").read_text().splitlines()]
    assert events == ["run", "intended", "submitted", "done"]
    assert backend.spending().spent_s == SECONDS_PER_JOB
    assert backend.spending().reserved == {}


def test_a_repeated_request_is_not_paid_again_whatever_it_is_grouped_with(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path)
    first, second = flips([1, 2], seed=1), flips([3, 4], seed=2)
    backend.run(first)
    merged = CircuitBatch(
        angles=np.concatenate([second.angles, first.angles[::-1]]),
        entangler_pairs=np.concatenate([second.entangler_pairs, first.entangler_pairs[::-1]]),
        seeds=np.concatenate([second.seeds, first.seeds[::-1]]),
    )
    assert_right(backend.run(merged).bits, [3, 4, 2, 1])
    assert [len(job.circuits) for job in service.paid] == [2, 2]
    assert backend.spending().spent_s == 2 * SECONDS_PER_JOB


def test_equal_circuits_with_equal_seeds_are_one_measurement(tmp_path: Path) -> None:
    service = ScriptedService()
    one = flips([6])
    twice = replace(
        one, angles=one.angles[[0, 0]], entangler_pairs=one.entangler_pairs[[0, 0]], seeds=one.seeds[[0, 0]]
    )
    assert_right(make_backend(service, tmp_path).run(twice).bits, [6, 6])
    assert len(service.paid[0].circuits) == 1


def test_an_empty_request_costs_nothing(tmp_path: Path) -> None:
    service = ScriptedService()
    assert make_backend(service, tmp_path).run(flips([])).bits.shape == (0, 1, NUM_QUBITS)
    assert service.paid == []


# What the caller gets, how many jobs were paid, and whether time passed. Every row of the table is here.
OUTCOMES: list[tuple[str, Callable[[ScriptedService], None], type[QPUError] | None, int, float]] = [
    ("wrong token", refused(IBMNotAuthorizedError("401 Client Error: Unauthorized")), BackendUnavailableError, 0, 0),
    ("job ran too long", ended_as("Error code 1305; maximum execution time"), JobFailedError, 1, 0),
    ("cancelled", ended_as("", "CANCELLED"), JobFailedError, 1, 0),
    ("invalid circuit", refused(IBMInputValueError("not supported")), InvalidCircuitError, 0, 0),
    ("invalid circuit", ended_as("Error code 7000; Instruction not in basis gates"), InvalidCircuitError, 1, 0),
    ("job too large", ended_as("Error code 5302; maximum payload exceeded"), JobFailedError, 1, 0),
    ("device gone", ended_as("Error code 1004; The backend is not available."), BackendUnavailableError, 1, 0),
    ("too many requests", refused(http(429, "Too Many Requests")), None, 1, 5),
    ("too many requests", refused(http(400, "too many. Error code: 1202.")), None, 1, 5),
    ("too many jobs", refused(http(400, "Error code: 3458.")), None, 1, 30),
    ("maintenance", refused(http(400, "Error code: 1999.")), None, 1, 60),
    ("maintenance", refused(http(503)), None, 1, 60),
    ("service error", refused(http(500)), None, 1, 2),
    ("service error", ended_as("Error code 1010; Error returned at backend level."), None, 2, 2),
    ("job failed", ended_as("something nobody has seen before"), JobFailedError, 1, 0),
    ("no answer", refused(TimeoutError("late")), None, 1, 2),
    ("no answer", refused(ConnectionError("reset")), None, 1, 2),
    ("unknown", refused(KeyError("surprise")), BackendFailedError, 0, 0),
]


@pytest.mark.parametrize(("row", "script", "error", "paid", "waits"), OUTCOMES, ids=[o[0] for o in OUTCOMES])
def test_what_each_failure_leads_to(
    tmp_path: Path,
    row: str,
    script: Callable[[ScriptedService], None],
    error: type[QPUError] | None,
    paid: int,
    waits: float,
) -> None:
    service, clock = ScriptedService(), Clock()
    backend = make_backend(service, tmp_path, clock)
    script(service)
    if error is None:
        assert_right(backend.run(flips([9, 3])).bits, [9, 3])
    else:
        with pytest.raises(error, match=row):
            backend.run(flips([9, 3]))
    assert len(service.paid) == paid
    assert len({tuple(job.tags) for job in service.paid}) == paid
    assert clock.now >= waits
    assert backend.spending().reserved == {}
    assert backend.spending().jobs == paid
    assert backend.spending().spent_s == paid * SECONDS_PER_JOB


def test_a_closed_session_is_opened_again(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path, mode="session")
    refused(http(400, "Session has been closed. Error code: 4001."))(service)
    assert_right(backend.run(flips([9])).bits, [9])
    assert [session.session_id for session in service.sessions] == ["session-1", "session-2"]
    assert [job.session_id for job in service.paid] == ["session-2"]


def test_failures_that_go_on_end_with_an_error_and_the_money_is_known(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path)
    for _ in range(5):
        ended_as("Error code 1010; Error returned at backend level.")(service)
    with pytest.raises(BackendFailedError, match="service error"):
        backend.run(flips([9]))
    assert len(service.paid) == 3
    assert backend.spending().spent_s == 3 * SECONDS_PER_JOB


def test_submission_gives_up_after_some_refusals(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    service.script["submit"] = [http(429, "Too Many Requests")] * 50
    with pytest.raises(BackendFailedError, match="use fewer workers"):
        make_backend(service, tmp_path, clock).run(flips([9]))
    assert service.calls["submit"] <= 18
    assert service.calls["jobs"] == 0  # a refused job is not looked for


def test_a_job_whose_acceptance_was_not_heard_is_found_by_its_tag(tmp_path: Path) -> None:
    service = ScriptedService()
    service.script["reply"] = [ConnectionError("reset by peer")]
    backend = make_backend(service, tmp_path)
    assert_right(backend.run(flips([9, 3])).bits, [9, 3])
    assert len(service.paid) == 1


def test_an_unknown_error_after_acceptance_does_not_lose_the_job(tmp_path: Path) -> None:
    service = ScriptedService()
    service.script["reply"] = [KeyError("id")]
    assert_right(make_backend(service, tmp_path).run(flips([9])).bits, [9])
    assert len(service.paid) == 1


def test_when_nobody_can_say_whether_a_job_arrived_it_stays_noted_and_reserved(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    service.script["reply"] = [ConnectionError("reset by peer")]
    service.script["jobs"] = [ConnectionError("no route")] * 200
    backend = make_backend(service, tmp_path, clock, deadline_s=600.0)
    with pytest.raises(BackendFailedError, match="no answer"):
        backend.run(flips([9]))
    assert len(backend.spending().reserved) == 1
    service.script["jobs"] = []
    assert_right(make_backend(service, tmp_path, clock).run(flips([9])).bits, [9])
    assert len(service.paid) == 1


def test_failing_questions_about_a_job_send_nothing_again(tmp_path: Path) -> None:
    service = ScriptedService()
    service.script["status"] = [ConnectionError("reset"), http(500), http(429, "Too Many Requests"), http(503)]
    service.script["result"] = [ConnectionError("reset"), TimeoutError("late")]
    assert_right(make_backend(service, tmp_path).run(flips([9])).bits, [9])
    assert len(service.paid) == 1


def test_a_call_that_hangs_is_left_behind(tmp_path: Path) -> None:
    service, never = ScriptedService(), threading.Event()
    backend = make_backend(service, tmp_path)
    backend._runtime._read_timeout_s = 0.1  # type: ignore[attr-defined]
    happen, hung = service.happen, []

    def hang_once(call: str) -> None:
        if call == "status" and not hung:
            hung.append(call)
            never.wait()
        happen(call)

    service.happen = hang_once  # type: ignore[method-assign]
    assert_right(backend.run(flips([9])).bits, [9])
    assert hung == ["status"]
    never.set()


def test_another_device_is_taken_only_if_none_was_named(tmp_path: Path) -> None:
    service = ScriptedService(names=("ibm_busy", "ibm_free"))
    backend = make_backend(service, tmp_path / "any", device=None)
    assert backend.name == "ibm:ibm_busy"
    ended_as("Error code 1004; The backend is not available.")(service)
    assert_right(backend.run(flips([9])).bits, [9])
    assert [job.device for job in service.paid] == ["ibm_busy", "ibm_free"]
    assert backend.name == "ibm:ibm_free"
    named = make_backend(service, tmp_path / "named", device="ibm_busy")
    ended_as("Error code 1004; The backend is not available.")(service)
    with pytest.raises(BackendUnavailableError, match="set QPU_DEVICE to another device"):
        named.run(flips([9]))


def test_bits_of_a_wrong_shape_are_not_used(tmp_path: Path) -> None:
    service = ScriptedService()
    backend = make_backend(service, tmp_path)
    accept = service.accept

    def lose_a_circuit(sampler: Any, pubs: list[Any], shots: int) -> Any:
        job = accept(sampler, pubs, shots)
        job.circuits.pop()
        return job

    service.accept = lose_a_circuit  # type: ignore[method-assign]
    with pytest.raises(JobFailedError, match=r"returned 1 circuits.*expected 2"):
        backend.run(flips([9, 3]))


def test_a_late_job_is_cancelled_at_the_deadline(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    service.next_statuses.append(["QUEUED"])
    service.next_charges.append(0.0)
    backend = make_backend(service, tmp_path, clock, deadline_s=300.0)
    with pytest.raises(BackendFailedError, match="not done at its deadline and was cancelled"):
        backend.run(flips([9]))
    assert service.paid[0].was_cancelled
    assert 300.0 <= clock.now < 330.0
    assert (backend.spending().spent_s, backend.spending().reserved) == (0.0, {})
    assert_right(backend.run(flips([9])).bits, [9])  # asking again sends a new job


def test_a_job_that_ends_while_it_is_cancelled_is_read(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    service.next_statuses.append(["RUNNING"] * 40 + ["DONE"])
    service.script["cancel"] = [IBMRuntimeError("Job cannot be cancelled: 409 Client Error")]
    backend = make_backend(service, tmp_path, clock, deadline_s=30.0)
    assert_right(backend.run(flips([9])).bits, [9])
    assert len(service.paid) == 1


def test_a_job_that_cannot_be_cancelled_is_taken_up_again(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    service.next_statuses.append(["RUNNING"])
    service.script["cancel"] = [ConnectionError("reset")]
    backend = make_backend(service, tmp_path, clock, deadline_s=30.0)
    with pytest.raises(BackendFailedError, match="could not be cancelled; asking again takes its bits up"):
        backend.run(flips([9]))
    assert len(backend.spending().reserved) == 1
    service.paid[0].statuses = ["DONE"]
    assert_right(make_backend(service, tmp_path, clock).run(flips([9])).bits, [9])
    assert len(service.paid) == 1


def test_a_closed_backend_refuses(tmp_path: Path) -> None:
    backend = make_backend(ScriptedService(), tmp_path)
    backend.close()
    with pytest.raises(BackendUnavailableError, match="is closed"):
        backend.run(flips([1]))
