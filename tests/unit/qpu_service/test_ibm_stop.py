"""A backend that is stopped while its job waits or is sent: nobody waits, no session stays open, nothing is paid twice.

About 3 s.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from qpu_service.config import QPUConfig
from qpu_service.errors import BackendUnavailableError
from qpu_service.ibm.backend import IBMBackend
from qpu_service.ibm.trouble import Timing
from qpu_service.types import MeasurementBatch
from qpu_service.worker import QPUWorker
from tests.unit.qpu_service.ibm_process import assert_right, flips, http, make_backend
from tests.unit.qpu_service.ibm_service import ScriptedService


class RealTime:
    timing = Timing(draw=lambda: 1.0)


@contextmanager
def in_a_thread(
    backend: IBMBackend, numbers: list[int], service: ScriptedService
) -> Iterator["Future[MeasurementBatch]"]:
    """A run under way; its job ends at the latest when the test does."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(backend.run, flips(numbers))
        finally:
            for job in service.paid:
                job.statuses = ["DONE"]


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.mark.parametrize("mode", ["job", "batch", "session"])
def test_a_run_that_waits_for_its_job_ends_and_the_job_is_taken_up_later(tmp_path: Path, mode: str) -> None:
    service = ScriptedService()
    service.next_statuses.append(["QUEUED"])
    backend = make_backend(service, tmp_path, RealTime(), mode=mode)  # type: ignore[arg-type]
    with in_a_thread(backend, [9, 3], service) as running:
        until(lambda: service.calls["status"] > 0)
        started_s = time.monotonic()
        backend.stop()
        assert isinstance(running.exception(20.0), BackendUnavailableError)
        assert "its job goes on and is taken up by the next start" in str(running.exception())
        assert time.monotonic() - started_s < 5.0
    with pytest.raises(BackendUnavailableError, match="closed"):
        backend.run(flips([5]))
    backend.close()
    assert not any(session.is_open for session in service.sessions)
    assert not service.paid[0].was_cancelled
    assert_right(make_backend(service, tmp_path, mode=mode).run(flips([9, 3])).bits, [9, 3])
    assert len(service.paid) == 1


def test_a_pause_after_a_refusal_ends_too(tmp_path: Path) -> None:
    service = ScriptedService()
    service.script["submit"] = [http(400, "Error code: 1999.")]  # maintenance: a minute's pause
    backend = make_backend(service, tmp_path, RealTime())  # type: ignore[arg-type]
    with in_a_thread(backend, [9], service) as running:
        until(lambda: service.calls["submit"] > 0)
        backend.stop()
        assert isinstance(running.exception(5.0), BackendUnavailableError)
    assert service.paid == []


def test_a_session_is_closed_although_a_call_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qpu_service.ibm.backend._STOP_S", 0.1, raising=False)
    service, begun, release = ScriptedService(), threading.Event(), threading.Event()
    happen = service.happen

    def hang(call: str) -> None:
        if call == "submit":
            begun.set()
            assert release.wait(20.0)
        happen(call)

    monkeypatch.setattr(service, "happen", hang)
    backend = make_backend(service, tmp_path, RealTime(), mode="session")  # type: ignore[arg-type]
    with in_a_thread(backend, [9], service) as running:
        assert begun.wait(20.0)
        try:
            backend.stop()
            assert not running.done()
            assert not service.sessions[0].is_open
        finally:
            release.set()
        assert isinstance(running.exception(20.0), BackendUnavailableError)
    backend.close()
    assert_right(make_backend(service, tmp_path).run(flips([9])).bits, [9])
    assert len(service.paid) == 1


def test_a_worker_that_is_closed_does_not_wait_a_job_out(tmp_path: Path) -> None:
    service = ScriptedService()
    service.next_statuses.append(["QUEUED"])
    backend = make_backend(service, tmp_path, RealTime(), mode="session")  # type: ignore[arg-type]

    async def main() -> None:
        worker = QPUWorker(backend, QPUConfig(inline_limit_s=0.0))
        running = asyncio.create_task(worker.sample(flips([9])))
        while not service.calls["status"]:
            await asyncio.sleep(0.01)
        try:
            await asyncio.wait_for(worker.close(), 5.0)
        finally:
            service.paid[0].statuses = ["DONE"]
        with pytest.raises(BackendUnavailableError):
            await running

    asyncio.run(main())
    assert not service.sessions[0].is_open
