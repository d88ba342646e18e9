"""Jobs that are paid once: every failure of the error table, deadlines, budgets, and processes that die. About 5 s.

The service is scripted (ibm_service.py); journal, budget, error table, assembler and job runner are the real ones.
"""

import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError, IBMRuntimeError

from qpu_service.budget import Budget, BudgetLimits
from qpu_service.errors import (
    BackendFailedError,
    BackendUnavailableError,
    BudgetExceededError,
    InvalidCircuitError,
    JobFailedError,
    QPUError,
)
from qpu_service.ibm import usage
from qpu_service.ibm.backend import IBMBackend
from qpu_service.ibm.config import IBMConfig
from qpu_service.ibm.remote import RemoteRuntime
from qpu_service.ibm.trouble import Timing
from qpu_service.job_journal import JobJournal
from qpu_service.types import CircuitBatch, circuit_seeds
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, Killed, ScriptedService

NUM_QUBITS = 4


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep, draw=lambda: 1.0)


def make_backend(service: ScriptedService, directory: Path, clock: Clock | None = None, **settings: Any) -> IBMBackend:
    """A new process: nothing is carried over but the service and the directory."""
    config = IBMConfig(**({"device": "ibm_test", "budget": BudgetLimits(seconds=1_000.0)} | settings))
    journal = JobJournal(directory, new_id=lambda: "run1")
    sessions = [job.session_id for job in journal.jobs if job.session_id is not None]
    runtime = RemoteRuntime(
        service,
        config,
        sampler=service.sampler,
        modes={"session": service.mode, "batch": service.mode},
        resume_session=sessions[-1] if sessions else None,
        read_timeout_s=5.0,
    )
    return IBMBackend(runtime, journal, Budget(directory, config.budget), config, (clock or Clock()).timing)


def flips(numbers: list[int], *, seed: int = 0, request_id: str = "r", num_layers: int = 3) -> CircuitBatch:
    """Circuits that measure the binary digits of their numbers for certain, with CZs that do not show."""
    digits = np.array(numbers, np.int64)[:, None] >> np.arange(NUM_QUBITS) & 1
    angles = np.zeros((len(numbers), num_layers, NUM_QUBITS, 2), np.float32)
    angles[:, 0, :, 0] = np.pi * digits
    pairs = np.random.default_rng(5).integers(0, NUM_QUBITS, (len(numbers), num_layers, 2)).astype(np.int16)
    return CircuitBatch(
        angles=angles, entangler_pairs=pairs, seeds=circuit_seeds(seed, len(numbers)), request_id=request_id
    )


def assert_right(bits: np.ndarray, numbers: list[int]) -> None:
    assert (bits[:, 0] << np.arange(NUM_QUBITS)).sum(axis=1).tolist() == numbers


def ended_as(message: str, status: str = "ERROR") -> Callable[[ScriptedService], None]:
    """The next job runs and ends like this."""

    def script(service: ScriptedService) -> None:
        service.next_statuses.append(["RUNNING", status])
        service.next_messages.append(message)

    return script


def refused(error: Exception, call: str = "submit") -> Callable[[ScriptedService], None]:
    def script(service: ScriptedService) -> None:
        service.script[call].append(error)

    return script


def http(status: int, words: str = "") -> Exception:
    return IBMRuntimeError(f"Failed to run program: '{status} Client Error: {words} for url: https://x'")


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


def test_a_closed_backend_refuses(tmp_path: Path) -> None:
    backend = make_backend(ScriptedService(), tmp_path)
    backend.close()
    with pytest.raises(BackendUnavailableError, match="is closed"):
        backend.run(flips([1]))


# Processes that die. A process is a backend object; it is left as it is, never closed, and a new one is built.


def die(monkeypatch: pytest.MonkeyPatch, service: ScriptedService, step: int) -> Callable[[], int]:
    """Kill the process before its ``step``-th contact with the disk or the service; returns a counter of contacts."""
    contacts = [0]

    def contact() -> None:
        contacts[0] += 1
        if contacts[0] == step:
            raise Killed

    happen, fsync = service.happen, os.fsync
    monkeypatch.setattr(service, "happen", lambda call: (contact(), happen(call)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (contact(), fsync(descriptor)))
    return lambda: contacts[0]


def test_a_request_makes_fewer_contacts_than_are_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = ScriptedService()
    count = die(monkeypatch, service, 0)
    make_backend(service, tmp_path).run(flips([9, 3]))
    assert 14 <= count() < 20


@pytest.mark.parametrize("step", range(1, 20))
def test_a_process_may_die_at_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    service, clock = ScriptedService(), Clock()
    with monkeypatch.context() as dying:
        die(dying, service, step)
        try:
            make_backend(service, tmp_path, clock).run(flips([9, 3, 12]))
        except Killed:
            pass
        else:
            assert step > 14
    backend = make_backend(service, tmp_path, clock)
    assert_right(backend.run(flips([9, 3, 12])).bits, [9, 3, 12])
    clock.now += 61.0
    backend.run(flips([]))
    assert len(service.paid) == 1
    assert backend.spending().spent_s == SECONDS_PER_JOB
    assert backend.spending().reserved == {}


def test_ten_deaths_between_submission_and_result(tmp_path: Path) -> None:
    service, clock, rng = ScriptedService(), Clock(), np.random.default_rng(1)
    lost, wrong = 0, 0
    for death in range(10):
        numbers = rng.permutation(16)[:5].tolist()
        request = flips(numbers, seed=100 + death)
        point = ["reply", "status", "status", "result", "metrics"][death % 5]
        service.script[point] = [None] * int(death % 3 if point == "status" else 0) + [Killed()]
        with pytest.raises(Killed):
            make_backend(service, tmp_path, clock).run(request)
        # The caller asks again, together with circuits that nobody has measured, in another order.
        others = flips(rng.permutation(16)[:2].tolist(), seed=200 + death)
        order = rng.permutation(5)
        merged = CircuitBatch(
            angles=np.concatenate([others.angles, request.angles[order]]),
            entangler_pairs=np.concatenate([others.entangler_pairs, request.entangler_pairs[order]]),
            seeds=np.concatenate([others.seeds, request.seeds[order]]),
        )
        bits = make_backend(service, tmp_path, clock).run(merged).bits[2:]
        seen = (bits[:, 0] << np.arange(NUM_QUBITS)).sum(axis=1).tolist()
        lost += len(numbers) - len(seen)
        wrong += sum(a != b for a, b in zip(seen, np.array(numbers)[order].tolist(), strict=True))
    paid_twice = [tag for tag, count in Counter(job.tags[1] for job in service.paid).items() if count > 1]
    assert (paid_twice, lost, wrong) == ([], 0, 0)
    assert [len(job.circuits) for job in service.paid] == [5, 2] * 10
    final = make_backend(service, tmp_path, clock)
    clock.now += 61.0
    final.run(flips([]))
    assert final.spending().spent_s == 20 * SECONDS_PER_JOB
    assert final.spending().reserved == {}
