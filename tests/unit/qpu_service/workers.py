"""A worker on a fake backend that tells what it was given, for the tests of micro-batching."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import numpy as np

from qpu_service.config import QPUConfig
from qpu_service.types import CircuitBatch, MeasurementBatch
from qpu_service.worker import QPUWorker

IN_THREAD = QPUConfig(inline_limit_s=0.0)


class FakeBackend:
    """Bits are the binary digits of each circuit's seed; runs wait for ``gate`` and are written down."""

    name = "fake"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batch_sizes: list[int] = []
        self.failing_seed: int | None = None
        self.is_running = False
        self.is_closed = False

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        assert not self.is_running, "two runs at once"
        self.is_running = True
        try:
            self.batch_sizes.append(len(circuits))
            assert self.gate.wait(20)
            if self.failing_seed is not None and self.failing_seed in circuits.seeds:
                raise RuntimeError("the cryostat is warm")
            num_qubits = circuits.angles.shape[2]
            digits = (circuits.seeds[:, None] >> np.arange(num_qubits, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)
            return MeasurementBatch(
                bits=np.repeat(digits[:, None], circuits.shots, axis=1),
                request_id=circuits.request_id,
                backend_name=self.name,
                job_id="job-7",
            )
        finally:
            self.is_running = False

    def close(self) -> None:
        self.is_closed = True


def request(*seeds: int, shots: int = 1, num_qubits: int = 12) -> CircuitBatch:
    return CircuitBatch(
        angles=np.zeros((len(seeds), 2, num_qubits, 2), np.float32),
        entangler_pairs=np.zeros((len(seeds), 2, 2), np.int16),
        seeds=np.array(seeds, np.uint64),
        shots=shots,
        request_id=f"r{seeds[0] if seeds else ''}",
    )


def seeds_of(measured: MeasurementBatch) -> list[int]:
    return [int(row @ (1 << np.arange(len(row)))) for row in measured.bits[:, 0].astype(np.int64)]


def serve(scenario: Callable[[QPUWorker, FakeBackend], Awaitable[None]], config: QPUConfig = IN_THREAD) -> FakeBackend:
    backend = FakeBackend()

    async def main() -> None:
        worker = QPUWorker(backend, config)
        await asyncio.wait_for(scenario(worker, backend), 30)
        await worker.close()

    asyncio.run(main())
    return backend


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
