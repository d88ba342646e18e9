"""What a QPU worker has done so far: counters that only grow, and percentiles of its newest requests."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from qpu_service.device_health import DeviceHealth

_RECENT = 1024
"""Requests that the percentiles look back on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStats:
    """One worker's numbers since it started; durations in seconds."""

    requests: int
    """Requests answered with bits."""
    circuits: int
    """Circuits measured."""
    shots: int
    """Measurements of all circuits together."""
    errors: int
    """Requests answered with an error."""
    batches: int
    """Runs on the backend that returned bits; several requests may share one."""
    mean_batch_circuits: float
    """Circuits per run: ``circuits / batches``."""
    queued_circuits: int
    """Circuits that wait now."""
    running_s: float
    """How long the run that is on the backend now has lasted; 0 where there is none."""
    queue_s_sum: float
    """Time that answered requests waited for the backend, summed."""
    execution_s_sum: float
    """Time that the backend was at work, summed over runs."""
    latency_s_sum: float
    """Time from arrival to bits, summed over answered requests."""
    latency_p50_s: float
    """Median latency of the newest requests."""
    latency_p99_s: float
    """99th percentile of the newest requests' latency."""
    device: DeviceHealth | None = None
    """State of the service behind the backend; None for simulators."""


class StatsRecorder:
    """Counts what a worker does; ``snapshot`` makes a WorkerStats of it."""

    def __init__(self) -> None:
        self._requests = self._circuits = self._shots = self._errors = self._batches = 0
        self._queue_s = self._execution_s = self._latency_s = 0.0
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def ran(self, *, circuits: int, shots: int, execution_s: float) -> None:
        """Count one run on the backend."""
        self._batches += 1
        self._circuits += circuits
        self._shots += circuits * shots
        self._execution_s += execution_s

    def answered(self, *, queue_s: float, latency_s: float) -> None:
        """Count one request that got its bits."""
        self._requests += 1
        self._queue_s += queue_s
        self._latency_s += latency_s
        self._recent.append(latency_s)

    def failed(self) -> None:
        """Count one request that got an error."""
        self._errors += 1

    def snapshot(
        self, *, queued_circuits: int, running_s: float = 0.0, device: DeviceHealth | None = None
    ) -> WorkerStats:
        """Numbers of this moment."""
        recent = np.array(self._recent or [0.0])
        median, high = np.percentile(recent, [50, 99])
        return WorkerStats(
            requests=self._requests,
            circuits=self._circuits,
            shots=self._shots,
            errors=self._errors,
            batches=self._batches,
            mean_batch_circuits=self._circuits / self._batches if self._batches else 0.0,
            queued_circuits=queued_circuits,
            running_s=running_s,
            queue_s_sum=self._queue_s,
            execution_s_sum=self._execution_s,
            latency_s_sum=self._latency_s,
            latency_p50_s=float(median),
            latency_p99_s=float(high),
            device=device,
        )
