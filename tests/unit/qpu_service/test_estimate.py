"""What a run will cost: the prediction against a run whose circuits and jobs are counted. About 6 s."""

import asyncio
import dataclasses
import io
import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cluster.synchronous
from cluster.command_qpu import acting_workload, run, test_workload
from cluster.config import RunConfig
from cluster.presets import get_preset
from cluster.progress import Progress
from cluster.run_directory import create_run_directory
from qpu_service.budget import Budget, BudgetLimits
from qpu_service.types import CircuitBatch, MeasurementBatch
from qpu_service.worker import QPUWorker
from tests.conformance.circuits import random_circuits

test_workload.__test__ = False  # type: ignore[attr-defined]  # a function of the project, not a test


class CountingBackend:
    """Random bits, and a count of what a device would be paid for."""

    name = "counting"

    def __init__(self, delay_s: float = 0.0) -> None:
        self.jobs: list[int] = []
        self._delay_s = delay_s

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        self.jobs.append(len(circuits))
        time.sleep(self._delay_s)
        shape = len(circuits), circuits.shots, circuits.angles.shape[2]
        return MeasurementBatch(bits=np.zeros(shape, np.uint8), request_id="", backend_name=self.name, execution_s=1e-9)

    def close(self) -> None:
        pass


def test_the_prediction_of_a_lockstep_run_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke = get_preset("smoke")
    config = dataclasses.replace(
        smoke,
        total_steps=40,
        synchronous=True,
        backend="counting",
        run_dir=tmp_path / "run",
        num_threads=1,
        evaluation=dataclasses.replace(smoke.evaluation, period_steps=40, num_episodes=2),
    )
    backend = CountingBackend()
    monkeypatch.setattr(cluster.synchronous, "make_backend", lambda *_args, **_kwargs: backend)
    progress = Progress(io.StringIO())
    cluster.synchronous.train_synchronous(config, create_run_directory(config, ""), None, progress, lambda: False)
    acting, tests = acting_workload(config), test_workload(config, 200)
    assert (acting.circuits, acting.jobs) == (40, 10)
    assert (tests.circuits, tests.jobs) == (400, 200)
    assert len(backend.jobs) == acting.jobs + tests.jobs
    assert sum(backend.jobs) == acting.circuits + tests.circuits


@pytest.mark.parametrize(("num_actors", "max_delay_s"), [(1, 0.0), (4, 0.0), (4, 0.05)])
def test_jobs_of_a_slow_device_hold_what_is_predicted(num_actors: int, max_delay_s: float) -> None:
    config = with_settings(
        num_actors=num_actors, envs_per_actor=4, max_delay_s=max_delay_s, total_steps=num_actors * 80
    )
    backend = CountingBackend(delay_s=0.01)
    qpu = dataclasses.replace(config.qpu, max_batch_circuits=4 * num_actors)

    async def act() -> None:
        worker = QPUWorker(backend, qpu)

        async def lane(number: int) -> None:
            await asyncio.sleep(0.001 * number)  # lanes that all start at once would share every job
            for _ in range(40):
                await worker.sample(random_circuits(2, 2, 1))
                await asyncio.sleep(0.001)  # environments step; the next job has begun meanwhile

        await asyncio.gather(*[lane(number) for number in range(2 * num_actors)])
        await worker.close()

    asyncio.run(act())
    assert sum(backend.jobs) == 2 * 2 * num_actors * 40
    predicted = acting_workload(dataclasses.replace(config, total_steps=sum(backend.jobs))).jobs
    assert len(backend.jobs) == pytest.approx(predicted, rel=0.15)


def with_settings(
    *, num_actors: int = 1, envs_per_actor: int = 8, max_delay_s: float = 0.0, shots: int = 1, total_steps: int = 1_000
) -> RunConfig:
    config = get_preset("pendulum")
    return dataclasses.replace(
        config,
        total_steps=total_steps,
        actors=dataclasses.replace(config.actors, num_actors=num_actors, envs_per_actor=envs_per_actor),
        qpu=dataclasses.replace(config.qpu, max_delay_s=max_delay_s, shots=shots),
    )


@pytest.mark.parametrize(
    ("settings", "circuits_per_job"),
    [
        ({"num_actors": 1, "envs_per_actor": 8}, 4),
        ({"num_actors": 1, "envs_per_actor": 1}, 1),
        ({"num_actors": 4, "envs_per_actor": 8}, 16),
        ({"num_actors": 4, "envs_per_actor": 8, "max_delay_s": 0.1}, 32),
    ],
)
def test_circuits_of_a_job(settings: dict[str, Any], circuits_per_job: int) -> None:
    assert acting_workload(with_settings(**settings)).jobs == math.ceil(1_000 / circuits_per_job)


def test_shots_multiply_executions_and_nothing_else() -> None:
    one, hundred = acting_workload(with_settings()), acting_workload(with_settings(shots=100))
    assert (hundred.circuits, hundred.jobs) == (one.circuits, one.jobs)
    assert hundred.executions == 100 * one.executions


def test_the_report_says_what_it_assumes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "estimate.json"
    arguments = ["estimate", "pendulum", "--total-steps", "1000", "--price-per-minute", "60", "--json", str(file)]
    assert run(arguments) == 0
    shown = capsys.readouterr().out
    assert "2 s per job + (250 µs repetition delay + 100 µs circuit) per execution" in shown
    assert "test episodes of 200 steps" in shown
    content = json.loads(file.read_text())
    total = content["parts"]["total"]
    # 1,000 steps of 4 environments in two lanes, one test round of 10 episodes of 200 steps.
    assert (total["circuits"], total["jobs"]) == (1_000 + 2_000, 500 + 200)
    assert total["qpu_seconds"] == pytest.approx(2 * 700 + 0.00035 * 3_000)
    assert f"QPU_BUDGET_SECONDS={math.ceil(total['qpu_seconds'])} QPU_BUDGET_JOBS=700" in shown
    assert f"at 60 per minute: {total['qpu_seconds']:,.2f}" in shown


def test_parameters_of_the_model_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    run(["estimate", "--total-steps=10", "--job-overhead-s=0", "--repetition-delay-s=0.5", "--circuit-s=0.5"])
    assert "0 s per job + (500000 µs" in capsys.readouterr().out
    run(["estimate", "--total-steps", "10", "--episode-length", "3"])
    assert "test episodes of 3 steps" in capsys.readouterr().out


def test_a_block_without_a_circuit_costs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["estimate", "pendulum", "--block", "linear"]) == 0
    assert capsys.readouterr().out == "block linear runs no circuit: nothing to pay\n"


def test_nothing_is_connected_to(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("QPU_BACKEND", "ibm")
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "no-such-token")
    assert run(["estimate", "smoke"]) == 0
    assert "Pendulum-v1, 600 steps" in capsys.readouterr().out


def test_spending_is_read_from_the_budget_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QPU_JOURNAL_DIR", str(tmp_path / "ibm"))
    assert run(["spending"]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert not os.listdir(tmp_path)
    budget = Budget(tmp_path / "ibm", BudgetLimits())
    budget.reserve("a", 3.0)
    budget.settle("a", 2.5)
    budget.reserve("b", 4.0)
    monkeypatch.setenv("QPU_BUDGET_SECONDS", "100")
    assert run(["spending"]) == 0
    shown = capsys.readouterr().out
    assert "2.5 QPU seconds charged, 4.0 set aside for 1 jobs whose charge is not known yet, 2 jobs sent" in shown
    assert "limits: 100 QPU seconds, no QPU_BUDGET_JOBS" in shown


def test_an_unknown_subcommand_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert run(["buy"]) == 2
    assert "estimate" in capsys.readouterr().err
    assert run(["--help"]) == 0
    assert "estimate" in capsys.readouterr().out
