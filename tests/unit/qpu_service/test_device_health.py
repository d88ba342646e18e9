"""What is seen of a device service while it fails, is left alone, and comes back. About 2 s."""

import asyncio
from pathlib import Path

import pytest

from qpu_service.budget import Budget, BudgetLimits
from qpu_service.device_health import DeviceHealth, ReportsHealth
from qpu_service.errors import BackendFailedError
from qpu_service.worker import QPUWorker
from tests.unit.qpu_service.ibm_process import Clock, flips, http, make_backend, refused
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, ScriptedService
from tests.unit.qpu_service.workers import FakeBackend


def test_budget_and_breaker_while_a_service_fails_and_after(tmp_path: Path) -> None:
    service, clock = ScriptedService(), Clock()
    backend = make_backend(service, tmp_path, clock, budget=BudgetLimits(seconds=100.0, jobs=9))
    assert backend.health() == DeviceHealth(budget_left_s=100.0, budget_left_jobs=9)
    seen: list[DeviceHealth] = []
    sleep = clock.sleep
    clock.sleep = lambda seconds: (seen.append(backend.health()), sleep(seconds))[1]  # type: ignore[method-assign]
    for _ in range(2):
        refused(http(429))(service)
    backend = make_backend(service, tmp_path, clock, budget=BudgetLimits(seconds=100.0, jobs=9))
    backend.run(flips([9]))
    failing = [health for health in seen if health.paused_s > 0]
    assert [(health.failures_in_a_row, health.paused_s) for health in failing] == [(1, 5.0), (2, 10.0)]
    assert all(health.budget_left_jobs == 8 for health in failing), "a job that is being sent is set aside"
    after = backend.health()
    assert (after.failures_in_a_row, after.paused_s, after.devices_given_up) == (0, 0.0, 0)
    assert (after.budget_left_s, after.budget_left_jobs) == (100.0 - SECONDS_PER_JOB, 8)


def test_failures_stay_until_the_service_answers(tmp_path: Path) -> None:
    service = ScriptedService()
    for _ in range(18):
        refused(http(429))(service)
    backend = make_backend(service, tmp_path)
    with pytest.raises(BackendFailedError):
        backend.run(flips([9]))
    assert backend.health().failures_in_a_row == 18
    backend.run(flips([9]))
    assert backend.health().failures_in_a_row == 0


def test_a_worker_hands_on_what_its_backend_reports(tmp_path: Path) -> None:
    async def stats_of(backend: object) -> DeviceHealth | None:
        worker = QPUWorker(backend)  # type: ignore[arg-type]
        health = worker.stats().device
        await worker.close()
        return health

    backend = make_backend(ScriptedService(), tmp_path)
    assert isinstance(backend, ReportsHealth)
    assert asyncio.run(stats_of(backend)) == DeviceHealth(budget_left_s=1_000.0)
    assert asyncio.run(stats_of(FakeBackend())) is None


def test_a_damaged_budget_file_reads_as_nothing_left(tmp_path: Path) -> None:
    budget = Budget(tmp_path, BudgetLimits(seconds=5.0))
    assert budget.left() == (5.0, None)
    (tmp_path / "budget.json").write_text("{")
    assert budget.left() == (0.0, None)
    assert Budget(tmp_path / "other", BudgetLimits()).left() == (None, None)
