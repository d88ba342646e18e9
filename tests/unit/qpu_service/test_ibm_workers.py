"""Several workers with one journal, one of them slow or cut off while it submits: nothing is paid twice. About 3 s."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qpu_service.errors import BackendFailedError
from qpu_service.ibm.trouble import Timing
from tests.unit.qpu_service import ibm_process
from tests.unit.qpu_service.ibm_process import Clock, assert_right, flips, make_backend
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, Killed, ScriptedService


class Slow:
    """The first submission hangs until ``release``; ``has_begun`` is set when it does."""

    def __init__(self, service: ScriptedService, monkeypatch: pytest.MonkeyPatch, outcome: BaseException | None = None):
        self.has_begun, self.release = threading.Event(), threading.Event()
        happen = service.happen

        def wait_once(call: str) -> None:
            if call == "submit" and not self.has_begun.is_set():
                self.has_begun.set()
                assert self.release.wait(20.0)
                if outcome is not None:
                    raise outcome
            happen(call)

        monkeypatch.setattr(service, "happen", wait_once)


class Real:
    """Time that really passes, a hundred times as fast."""

    def __init__(self, on_sleep: Callable[[], None] = lambda: None) -> None:
        self.timing = Timing(clock=lambda: 100 * time.monotonic(), sleep=self._sleep, draw=lambda: 0.0)
        self._on_sleep = on_sleep

    def _sleep(self, seconds: float) -> None:
        self._on_sleep()
        time.sleep(seconds / 100)


def worker(service: ScriptedService, directory: Path, **settings: Any) -> Any:
    return make_backend(service, directory, Real(), **settings)  # type: ignore[arg-type]


def test_a_request_that_moves_while_its_worker_still_submits_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ScriptedService()
    slow = Slow(service, monkeypatch)
    first, second = worker(service, tmp_path), worker(service, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        cut_off = pool.submit(first.run, flips([9, 3]))
        assert slow.has_begun.wait(20.0)
        moved = pool.submit(second.run, flips([9, 3]))
        time.sleep(0.5)  # 50 s of theirs: three times as long as a tag is looked for
        assert service.paid == []
        assert not moved.done()
        slow.release.set()
        assert_right(moved.result(20.0).bits, [9, 3])
        assert_right(cut_off.result(20.0).bits, [9, 3])
    assert len(service.paid) == 1
    assert second.spending().spent_s == SECONDS_PER_JOB


def test_a_worker_that_is_killed_while_it_submits_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ScriptedService()
    slow = Slow(service, monkeypatch, Killed())
    first, second = worker(service, tmp_path), worker(service, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        killed = pool.submit(first.run, flips([9, 3]))
        assert slow.has_begun.wait(20.0)
        moved = pool.submit(second.run, flips([9, 3]))
        slow.release.set()
        assert_right(moved.result(20.0).bits, [9, 3])
        assert isinstance(killed.exception(20.0), Killed)
    assert len(service.paid) == 1


def test_waiting_for_another_worker_ends_at_the_deadline_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, clock = ScriptedService(), Clock()
    slow = Slow(service, monkeypatch)
    first = worker(service, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        cut_off = pool.submit(first.run, flips([9, 3]))
        assert slow.has_begun.wait(20.0)
        with pytest.raises(BackendFailedError, match=r"another worker is still submitting.*might be paid twice"):
            make_backend(service, tmp_path, clock, deadline_s=30.0).run(flips([9, 3]))
        assert clock.now == 30.0
        slow.release.set()
        cut_off.result(20.0)
    assert len(service.paid) == 1


def test_workers_that_are_asked_for_overlapping_circuits_at_once_pay_each_once(tmp_path: Path) -> None:
    service = ScriptedService()
    workers = [worker(service, tmp_path) for _ in range(4)]
    start = threading.Barrier(4)

    def ask(number: int) -> None:
        for seed in range(5):
            start.wait(20.0)
            # The four requests of a round are the same, or share their first circuits.
            numbers = [9, 3, 12, 5][: 2 + number % 3]
            assert_right(workers[number].run(flips(numbers, seed=seed)).bits, numbers)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(ask, number) for number in range(4)]:
            done.result(60.0)
    assert sum(len(job.circuits) for job in service.paid) == 5 * 4
    assert workers[0].spending().jobs == len(service.paid)


def test_the_judge_counts_what_is_paid_twice(tmp_path: Path) -> None:
    service = ScriptedService()
    for directory in ("a", "b"):
        worker(service, tmp_path / directory).run(flips([9, 3]))
    assert len(service.paid) == 2
    assert ibm_process.NUM_QUBITS == 4
