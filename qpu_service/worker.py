"""One backend behind a queue: concurrent requests are merged into batches and each gets exactly its own rows back.

A plain asyncio class: cluster/ makes it an actor, tests use it as it is. Merging is opportunistic: whatever arrived
while the backend was busy goes into the next run, so an idle worker adds no delay. A run that is known to be short
happens on the event loop itself, because a thread's wake-up would cost more than the circuits; a long one runs in a
thread, so that requests can keep arriving. Must never import ray.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from qpu_service.config import QPUConfig
from qpu_service.device_health import ReportsHealth
from qpu_service.errors import BackendFailedError, BackendUnavailableError, InvalidCircuitError, QPUError
from qpu_service.interfaces import CircuitBackend, StopsMidRun
from qpu_service.types import CircuitBatch, MeasurementBatch
from qpu_service.worker_stats import StatsRecorder, WorkerStats

_Kind: TypeAlias = tuple[tuple[int, ...], int]


@dataclass(slots=True)
class _Request:
    circuits: CircuitBatch
    arrived_s: float
    answer: asyncio.Future[MeasurementBatch]


class QPUWorker:
    """Serves one backend to many concurrent callers of one event loop."""

    def __init__(
        self,
        backend: CircuitBackend,
        config: QPUConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend = backend
        self._config = config or QPUConfig()
        self._clock = clock
        self._queue: deque[_Request] = deque()
        self._queued_circuits = 0
        self._admission = asyncio.Lock()
        self._changed = asyncio.Event()
        self._dispatcher: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._seconds_per_circuit: dict[_Kind, float] = {}
        self._stats = StatsRecorder()
        self._is_closed = False
        self._run_started_s: float | None = None

    async def sample(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Measure circuits; waits while too many are queued.

        Raises:
            InvalidCircuitError: if no backend could run this, before it is queued.
            BackendFailedError: if the run that contained this request failed.
            BackendUnavailableError: if the worker is closed.
        """
        arrived_s = self._clock()
        if not isinstance(circuits, CircuitBatch):
            raise InvalidCircuitError(f"a QPU worker takes a CircuitBatch, got {type(circuits).__name__}")
        circuits.validate()  # an object from another process was never constructed here
        self._check_open()
        if self._dispatcher is None and self._config.max_delay_s == 0 and self._is_short(circuits):
            return self._answer_at_once(circuits, arrived_s)
        async with self._admission:
            while self._queued_circuits and self._queued_circuits + len(circuits) > self._config.max_queued_circuits:
                self._changed.clear()
                await self._changed.wait()
        self._check_open()
        request = _Request(circuits, arrived_s, asyncio.get_running_loop().create_future())
        self._queue.append(request)
        self._queued_circuits += len(circuits)
        self._changed.set()
        if self._dispatcher is None:
            self._dispatcher = asyncio.create_task(self._dispatch())
        return await request.answer

    def stats(self) -> WorkerStats:
        """What this worker has done so far."""
        running_s = 0.0 if self._run_started_s is None else self._clock() - self._run_started_s
        device = self._backend.health() if isinstance(self._backend, ReportsHealth) else None
        return self._stats.snapshot(queued_circuits=self._queued_circuits, running_s=running_s, device=device)

    async def close(self) -> None:
        """Finish the present run, or stop it where it may take hours; refuse what is queued, free the backend.

        Calling it twice is fine.
        """
        self._is_closed = True
        self._changed.set()
        if isinstance(self._backend, StopsMidRun):
            await asyncio.to_thread(self._backend.stop)
        if self._dispatcher is not None:
            await self._dispatcher
        if self._thread is not None:
            self._thread.shutdown()
        self._backend.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise _closed()

    def _answer_at_once(self, circuits: CircuitBatch, arrived_s: float) -> MeasurementBatch:
        started_s = self._clock()
        try:
            measured = self._run(circuits)
        except QPUError:
            self._stats.failed()
            raise
        except Exception as error:
            self._stats.failed()
            raise _as_qpu_error(error, self._backend.name) from error
        return self._rows_of(measured, 0, circuits, started_s - arrived_s)

    async def _dispatch(self) -> None:
        """Run batches until the queue is empty."""
        try:
            while self._queue:
                if self._is_closed:
                    self._refuse_queued()
                    return
                if self._config.max_delay_s > 0:
                    await self._wait_for_company()
                await self._run_group(self._take_group())
                await asyncio.sleep(0)
        finally:
            self._dispatcher = None

    async def _wait_for_company(self) -> None:
        deadline_s = self._queue[0].arrived_s + self._config.max_delay_s
        while not self._is_closed and self._queued_circuits < self._config.max_batch_circuits:
            remaining_s = deadline_s - self._clock()
            if remaining_s <= 0:
                return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), remaining_s)
            except TimeoutError:
                return

    def _take_group(self) -> list[_Request]:
        """Oldest request, and the queued ones of the same kind that fit into one run with it."""
        kind = _kind_of(self._queue[0].circuits)
        group: list[_Request] = []
        left: deque[_Request] = deque()
        size = 0
        for request in self._queue:
            count = len(request.circuits)
            if _kind_of(request.circuits) == kind and (not group or size + count <= self._config.max_batch_circuits):
                group.append(request)
                size += count
            else:
                left.append(request)
        self._queue = left
        self._queued_circuits -= size
        self._changed.set()
        return [request for request in group if not request.answer.done()]

    async def _run_group(self, group: list[_Request]) -> None:
        if not group:
            return
        started_s = self._clock()
        try:
            circuits = _merge([request.circuits for request in group])
            if self._is_short(circuits):
                measured = self._run(circuits)
            else:
                measured = await self._run_in_thread(circuits)
        except Exception as error:
            for request in group:
                self._stats.failed()
                if not request.answer.done():
                    request.answer.set_exception(_as_qpu_error(error, self._backend.name))
            return
        first_row = 0
        for request in group:
            if not request.answer.done():
                queue_s = started_s - request.arrived_s
                request.answer.set_result(self._rows_of(measured, first_row, request.circuits, queue_s))
            first_row += len(request.circuits)

    def _rows_of(
        self, measured: MeasurementBatch, first_row: int, circuits: CircuitBatch, queue_s: float
    ) -> MeasurementBatch:
        """One request's part of a run."""
        self._stats.answered(queue_s=queue_s, latency_s=queue_s + measured.execution_s)
        return MeasurementBatch(
            bits=measured.bits[first_row : first_row + len(circuits)],
            request_id=circuits.request_id,
            backend_name=measured.backend_name,
            queue_s=queue_s,
            execution_s=measured.execution_s,
            job_id=measured.job_id,
        )

    def _refuse_queued(self) -> None:
        while self._queue:
            request = self._queue.popleft()
            self._queued_circuits -= len(request.circuits)
            if not request.answer.done():
                request.answer.set_exception(_closed())
        self._changed.set()

    async def _run_in_thread(self, circuits: CircuitBatch) -> MeasurementBatch:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="qpu-worker")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, circuits)

    def _run(self, circuits: CircuitBatch) -> MeasurementBatch:
        started_s = self._run_started_s = self._clock()
        try:
            measured = self._backend.run(circuits)
        finally:
            self._run_started_s = None
        execution_s = self._clock() - started_s
        expected = (len(circuits), circuits.shots, circuits.angles.shape[2])
        if measured.bits.shape != expected:
            raise BackendFailedError(
                f"backend {self._backend.name} returned bits of shape {measured.bits.shape}, expected {expected}"
            )
        if len(circuits):
            self._remember_speed(_kind_of(circuits), execution_s / len(circuits))
        self._stats.ran(circuits=len(circuits), shots=circuits.shots, execution_s=execution_s)
        return measured if measured.execution_s else replace(measured, execution_s=execution_s)

    def _is_short(self, circuits: CircuitBatch) -> bool:
        seconds = self._seconds_per_circuit.get(_kind_of(circuits))
        return seconds is not None and seconds * len(circuits) <= self._config.inline_limit_s

    def _remember_speed(self, kind: _Kind, seconds: float) -> None:
        known = self._seconds_per_circuit.get(kind)
        self._seconds_per_circuit[kind] = seconds if known is None else 0.8 * known + 0.2 * seconds


def _kind_of(circuits: CircuitBatch) -> _Kind:
    """Requests of one kind can share a run."""
    return circuits.angles.shape[1:], circuits.shots


def _merge(batches: list[CircuitBatch]) -> CircuitBatch:
    if len(batches) == 1:
        return batches[0]
    return CircuitBatch(
        angles=np.concatenate([batch.angles for batch in batches]),
        entangler_pairs=np.concatenate([batch.entangler_pairs for batch in batches]),
        seeds=np.concatenate([batch.seeds for batch in batches]),
        shots=batches[0].shots,
        request_id="+".join(batch.request_id for batch in batches),
    )


def _as_qpu_error(error: Exception, backend_name: str) -> QPUError:
    if isinstance(error, QPUError):
        return error
    failure = BackendFailedError(f"backend {backend_name} failed with {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _closed() -> BackendUnavailableError:
    return BackendUnavailableError("this QPU worker is closed and its circuits did not run; ask another worker")
