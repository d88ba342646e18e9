"""What the QPU service costs per request, and how it scales over workers whose device is slow.

Overhead: the same frames go, in turn, to the service (statevector behind a QPU worker) and to a bare Ray async actor
that returns an answer of the same size without doing anything. Scaling: K workers on a device with a fixed latency per
job, kept busy by one client.
"""

import statistics
import time
from typing import Any

import numpy as np

from qpu_service.config import QPUConfig
from qpu_service.interfaces import CircuitBackend
from qpu_service.types import CircuitBatch, MeasurementBatch, circuit_seeds
from qpu_service.wire import decode_circuits, encode_circuits, encode_measurements

_CIRCUITS_PER_REQUEST = 16
_CONCURRENCY = 1_000


class BareActor:
    """Answers every frame with bytes prepared beforehand."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def sample(self, frame: bytes) -> bytes:  # noqa: ARG002 - taking it is the point
        """The prepared answer."""
        return self._answer


class SlowDevice:
    """A backend that takes ``latency_s`` per job, whatever is in it."""

    name = "slow"

    def __init__(self, backend: CircuitBackend, latency_s: float) -> None:
        self._backend, self._latency_s = backend, latency_s

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Wait, then simulate."""
        time.sleep(self._latency_s)
        return self._backend.run(circuits)

    def close(self) -> None:
        """Close the simulator."""
        self._backend.close()


class SlowQPUActor:
    """A QPU worker on a slow device."""

    def __init__(self, latency_s: float) -> None:
        from qpu_service.backends.registry import make_backend
        from qpu_service.worker import QPUWorker

        config = QPUConfig(max_batch_circuits=_CIRCUITS_PER_REQUEST)
        self._worker = QPUWorker(SlowDevice(make_backend("statevector"), latency_s), config)

    async def sample(self, frame: bytes) -> bytes:
        """As of cluster.ray_services.QPUActor."""
        return encode_measurements(await self._worker.sample(decode_circuits(frame)))


def run(*, requests: int = 2_000, latency_s: float = 0.05, jobs_per_worker: int = 40) -> dict[str, Any]:
    """Measure both on this machine.

    Args:
        requests: of each kind in the overhead measurement, in alternating blocks.
        latency_s: of the slow device.
        jobs_per_worker: length of each scaling measurement.

    Returns:
        ``service_request_us``, ``bare_ray_call_us`` (medians), their ``ratio``, and ``scaling``: requests per second
        and speed-up for K = 1, 2, 4, 8 workers.
    """
    from cluster.ray_runtime import ray_runtime

    with ray_runtime() as runtime:
        return {
            "circuits_per_request": _CIRCUITS_PER_REQUEST,
            **_overhead(runtime.service_options, requests),
            "latency_s": latency_s,
            "scaling": _scaling(runtime.service_options, latency_s, jobs_per_worker),
        }


def _overhead(options: dict[str, Any], requests: int) -> dict[str, float]:
    import ray

    from cluster.ray_services import QPUActor, RayQPUClient

    circuits = _circuits(0)
    service = ray.remote(QPUActor).options(max_concurrency=_CONCURRENCY, **options)
    service = service.remote("statevector", None, QPUConfig())
    answer = ray.get(service.sample.remote(encode_circuits(circuits)))
    bare = ray.remote(BareActor).options(max_concurrency=_CONCURRENCY, **options).remote(answer)
    # The same client code on both sides: what differs is the service behind it.
    clients = {"service_request_us": RayQPUClient([service]), "bare_ray_call_us": RayQPUClient([bare])}
    times: dict[str, list[float]] = {name: [] for name in clients}
    block = 100
    for index in range(requests // block * 2):
        name = list(clients)[index % 2]
        for _ in range(block):
            started_s = time.perf_counter()
            clients[name].submit(circuits).result(60.0)
            times[name].append(time.perf_counter() - started_s)
    medians = {name: 1e6 * statistics.median(values) for name, values in times.items()}
    for actor in (service, bare):
        ray.kill(actor)
    return {**medians, "ratio": medians["service_request_us"] / medians["bare_ray_call_us"]}


def _scaling(options: dict[str, Any], latency_s: float, jobs_per_worker: int) -> list[dict[str, float]]:
    import ray

    from cluster.ray_services import RayQPUClient

    rows: list[dict[str, float]] = []
    for num_workers in (1, 2, 4, 8):
        remote = ray.remote(SlowQPUActor).options(max_concurrency=_CONCURRENCY, **options)
        workers = [remote.remote(latency_s) for _ in range(num_workers)]
        client = RayQPUClient(workers)
        for pending in [client.submit(_circuits(i)) for i in range(2 * num_workers)]:
            pending.result(120.0)
        jobs = jobs_per_worker * num_workers
        started_s = time.perf_counter()
        window = [client.submit(_circuits(i)) for i in range(min(4 * num_workers, jobs))]
        for index in range(jobs):
            window.pop(0).result(120.0)
            if index + len(window) + 1 < jobs:
                window.append(client.submit(_circuits(index)))
        rate = jobs / (time.perf_counter() - started_s)
        rows.append(
            {
                "num_workers": num_workers,
                "requests_per_s": rate,
                "speed_up": rate / rows[0]["requests_per_s"] if rows else 1.0,
                "share_of_device_limit": rate * latency_s / num_workers,
            }
        )
        for worker in workers:
            ray.kill(worker)
    return rows


def _circuits(seed: int) -> CircuitBatch:
    rng = np.random.default_rng(seed)
    shape = (_CIRCUITS_PER_REQUEST, 10, 10, 2)
    return CircuitBatch(
        angles=rng.uniform(-np.pi, np.pi, shape).astype(np.float32),
        entangler_pairs=rng.integers(10, size=(_CIRCUITS_PER_REQUEST, 10, 2)).astype(np.int16),
        seeds=circuit_seeds(seed, _CIRCUITS_PER_REQUEST),
        request_id=str(seed),
    )
