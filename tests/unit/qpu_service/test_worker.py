"""Micro-batching: who gets which rows, what is merged, what waits, what fails. Takes about 2 s."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.config import QPUConfig
from qpu_service.errors import BackendFailedError, BackendUnavailableError, InvalidCircuitError
from qpu_service.types import CircuitBatch, MeasurementBatch
from qpu_service.worker import QPUWorker
from tests.conformance.circuits import random_circuits
from tests.unit.qpu_service.workers import IN_THREAD, FakeBackend, request, seeds_of, serve, until


@pytest.mark.parametrize(
    "config", [QPUConfig(), IN_THREAD, QPUConfig(max_delay_s=0.002), QPUConfig(max_batch_circuits=5)]
)
def test_every_request_gets_its_own_rows(config: QPUConfig) -> None:
    async def scenario(worker: QPUWorker, _: FakeBackend) -> None:
        generator = np.random.default_rng(0)
        asked = [
            request(
                *generator.integers(0, 4096, size=generator.integers(1, 9)).tolist(),
                shots=int(generator.integers(1, 3)),
                num_qubits=int(generator.choice([12, 13])),
            )
            for _ in range(300)
        ]
        answers = await asyncio.gather(*(worker.sample(one) for one in asked))
        for one, answer in zip(asked, answers, strict=True):
            assert seeds_of(answer) == one.seeds.tolist()
            assert answer.bits.shape == (len(one), one.shots, one.angles.shape[2])
            assert (answer.request_id, answer.backend_name, answer.job_id) == (one.request_id, "fake", "job-7")
            assert answer.queue_s >= 0
            assert answer.execution_s > 0

    serve(scenario, config)


def test_what_arrives_during_a_run_shares_the_next_one() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        backend.gate.clear()
        first = asyncio.create_task(worker.sample(request(1)))
        await until(lambda: backend.batch_sizes == [1])
        others = [asyncio.create_task(worker.sample(request(seed, seed + 1))) for seed in range(10, 20)]
        await until(lambda: worker.stats().queued_circuits == 20)
        backend.gate.set()
        assert seeds_of(await first) == [1]
        for seed, other in zip(range(10, 20), others, strict=True):
            assert seeds_of(await other) == [seed, seed + 1]

    assert serve(scenario).batch_sizes == [1, 20]


def test_only_equal_shots_and_sizes_share_a_run() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        backend.gate.clear()
        first = asyncio.create_task(worker.sample(request(1)))
        await until(lambda: backend.batch_sizes == [1])
        kinds = [{"shots": 1}, {"shots": 2}, {"num_qubits": 5}, {"shots": 1}, {"shots": 2}]
        others = [asyncio.create_task(worker.sample(request(7, 8, **kind))) for kind in kinds]
        await until(lambda: worker.stats().queued_circuits == 10)
        backend.gate.set()
        await asyncio.gather(first, *others)

    assert serve(scenario).batch_sizes == [1, 4, 4, 2]


def test_runs_stay_within_max_batch_and_a_larger_request_runs_alone() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        backend.gate.clear()
        first = asyncio.create_task(worker.sample(request(1)))
        await until(lambda: backend.batch_sizes == [1])
        others = [asyncio.create_task(worker.sample(request(*range(size)))) for size in (3, 3, 6, 2, 1)]
        await until(lambda: worker.stats().queued_circuits == 15)
        backend.gate.set()
        await asyncio.gather(first, *others)

    assert serve(scenario, replace(IN_THREAD, max_batch_circuits=5)).batch_sizes == [1, 5, 4, 6]


def test_delay_collects_requests_of_an_idle_worker() -> None:
    async def scenario(worker: QPUWorker, _: FakeBackend) -> None:
        tasks = []
        for seed in range(5):
            tasks.append(asyncio.create_task(worker.sample(request(seed))))
            await asyncio.sleep(0.005)
        await asyncio.gather(*tasks)

    assert serve(scenario, replace(IN_THREAD, max_delay_s=1.0, max_batch_circuits=5)).batch_sizes == [5]


def test_a_failing_run_fails_only_the_requests_in_it() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        backend.gate.clear()
        backend.failing_seed = 13
        good = asyncio.create_task(worker.sample(request(1)))
        await until(lambda: backend.batch_sizes == [1])
        failing = [asyncio.create_task(worker.sample(request(seed))) for seed in (13, 14)]
        spared = asyncio.create_task(worker.sample(request(15, shots=2)))
        await until(lambda: worker.stats().queued_circuits == 3)
        backend.gate.set()
        results = await asyncio.gather(good, *failing, spared, return_exceptions=True)
        assert seeds_of(results[0]) == [1]
        assert seeds_of(results[3]) == [15]
        for failure in results[1:3]:
            assert isinstance(failure, BackendFailedError)
            assert str(failure) == "backend fake failed with RuntimeError: the cryostat is warm"
            assert isinstance(failure.__cause__, RuntimeError)
        assert seeds_of(await worker.sample(request(16))) == [16]
        assert (worker.stats().requests, worker.stats().errors) == (3, 2)

    serve(scenario)


def test_a_short_run_fails_its_caller_alone() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        await worker.sample(request(1))
        backend.failing_seed = 13
        with pytest.raises(BackendFailedError, match="cryostat"):
            await worker.sample(request(13))
        assert seeds_of(await worker.sample(request(2))) == [2]

    serve(scenario, QPUConfig(inline_limit_s=10.0))


def test_a_full_queue_makes_requests_wait_and_drops_none() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        backend.gate.clear()
        tasks = [asyncio.create_task(worker.sample(request(0, 0)))]
        await until(lambda: backend.batch_sizes == [2])
        tasks += [asyncio.create_task(worker.sample(request(seed, seed))) for seed in range(1, 40)]
        for _ in range(20):
            await asyncio.sleep(0.001)
            assert worker.stats().queued_circuits <= 10
        assert worker.stats().queued_circuits == 10
        backend.gate.set()
        answers = await asyncio.gather(*tasks)
        assert [seeds_of(answer) for answer in answers] == [[seed, seed] for seed in range(40)]

    assert sum(serve(scenario, replace(IN_THREAD, max_queued_circuits=10)).batch_sizes) == 80


def test_a_request_larger_than_the_queue_still_runs() -> None:
    async def scenario(worker: QPUWorker, _: FakeBackend) -> None:
        answers = await asyncio.gather(*(worker.sample(request(*range(30))) for _ in range(3)))
        assert all(seeds_of(answer) == list(range(30)) for answer in answers)

    serve(scenario, replace(IN_THREAD, max_queued_circuits=4))


def test_a_cancelled_request_is_not_run() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        backend.gate.clear()
        first = asyncio.create_task(worker.sample(request(1)))
        await until(lambda: backend.batch_sizes == [1])
        cancelled = asyncio.create_task(worker.sample(request(2, 3)))
        kept = asyncio.create_task(worker.sample(request(4)))
        await until(lambda: worker.stats().queued_circuits == 3)
        cancelled.cancel()
        await asyncio.sleep(0)
        backend.gate.set()
        await first
        assert seeds_of(await kept) == [4]
        assert worker.stats().queued_circuits == 0

    assert serve(scenario).batch_sizes == [1, 1]


def test_what_was_never_constructed_here_is_checked() -> None:
    async def scenario(worker: QPUWorker, backend: FakeBackend) -> None:
        diverged = request(1)
        diverged.angles[0, 0, 0, 0] = np.nan  # after construction, as a foreign object would arrive
        with pytest.raises(InvalidCircuitError, match="NaN"):
            await worker.sample(diverged)
        with pytest.raises(InvalidCircuitError, match="got list"):
            await worker.sample([])  # type: ignore[arg-type]
        assert backend.batch_sizes == []

    serve(scenario)


def test_a_backend_that_returns_too_few_rows_is_an_error() -> None:
    class ShortBackend(FakeBackend):
        def run(self, circuits: CircuitBatch) -> MeasurementBatch:
            measured = super().run(circuits)
            return replace(measured, bits=measured.bits[1:])

    async def main() -> None:
        with pytest.raises(BackendFailedError, match=r"shape \(1, 1, 12\), expected \(2, 1, 12\)"):
            await QPUWorker(ShortBackend()).sample(request(1, 2))

    asyncio.run(main())


def test_closing_refuses_what_waits_and_frees_the_backend() -> None:
    backend = FakeBackend()

    async def main() -> None:
        worker = QPUWorker(backend, IN_THREAD)
        backend.gate.clear()
        running = asyncio.create_task(worker.sample(request(1)))
        await until(lambda: backend.batch_sizes == [1])
        waiting = asyncio.create_task(worker.sample(request(2)))
        await until(lambda: worker.stats().queued_circuits == 1)
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0.01)
        backend.gate.set()
        await closing
        assert seeds_of(await running) == [1]
        with pytest.raises(BackendUnavailableError, match="closed"):
            await waiting
        with pytest.raises(BackendUnavailableError, match="closed"):
            await worker.sample(request(3))
        await worker.close()

    asyncio.run(main())
    assert backend.is_closed


def test_an_empty_request_is_answered() -> None:
    async def scenario(worker: QPUWorker, _: FakeBackend) -> None:
        assert (await worker.sample(request())).bits.shape == (0, 1, 12)

    serve(scenario)


def test_statistics_add_up() -> None:
    async def scenario(worker: QPUWorker, _: FakeBackend) -> None:
        empty = worker.stats()
        assert (empty.requests, empty.batches, empty.mean_batch_circuits, empty.latency_p99_s) == (0, 0, 0.0, 0.0)
        for size in (1, 2, 3):
            await worker.sample(request(*range(size), shots=5))
        stats = worker.stats()
        assert (stats.requests, stats.circuits, stats.shots, stats.errors, stats.batches) == (3, 6, 30, 0, 3)
        assert stats.mean_batch_circuits == 2.0
        assert stats.latency_s_sum == pytest.approx(stats.queue_s_sum + stats.execution_s_sum)
        assert 0 < stats.latency_p50_s <= stats.latency_p99_s <= stats.latency_s_sum

    serve(scenario)


def test_real_circuits_of_many_callers_equal_direct_runs() -> None:
    backend = StatevectorBackend()
    asked = [random_circuits(1 + seed % 7, 8, 6, shots=1 + seed % 2, seed=seed) for seed in range(100)]

    async def main() -> None:
        worker = QPUWorker(backend, IN_THREAD)
        answers = await asyncio.gather(*(worker.sample(one) for one in asked))
        for one, answer in zip(asked, answers, strict=True):
            assert (answer.bits == backend.run(one).bits).all()
        assert worker.stats().batches < 20
        await worker.close()

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [{"max_batch_circuits": 0}, {"max_queued_circuits": 0}, {"inline_limit_s": -1.0}])
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QPUConfig(**wrong)  # type: ignore[arg-type]
