"""Processes that die at any point of a paid job: a backend is left as it is, and a new one is built. About 3 s."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qpu_service.types import CircuitBatch
from tests.unit.qpu_service.ibm_process import (
    NUM_QUBITS,
    Clock,
    assert_right,
    flips,
    make_backend,
)
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, Killed, ScriptedService


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
