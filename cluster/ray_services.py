"""Ray handles behind the interfaces that the plain classes know: QPU service and parameter board."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, RayTaskError

from cluster.errors import RunFailedError
from cluster.restart_pause import StartLog
from learner.parameters import ParameterBoard, VersionedParameters
from qpu_service.backends.registry import make_backend
from qpu_service.config import QPUConfig
from qpu_service.errors import BackendUnavailableError, QPUError
from qpu_service.interfaces import PendingMeasurement
from qpu_service.types import CircuitBatch, MeasurementBatch
from qpu_service.wire import decode_circuits, decode_measurements, encode_circuits, encode_measurements
from qpu_service.worker import QPUWorker
from qpu_service.worker_stats import WorkerStats

_RETRY_PAUSE_S = 0.2
_BOARD_TIMEOUT_S = 120.0
_PUBLISH_TIMEOUT_S = 30.0


class QPUActor:
    """A QPU worker and its backend, made inside the actor's process; becomes a Ray async actor."""

    def __init__(self, backend_name: str, device: str | None, config: QPUConfig, num_qubits: int = 1) -> None:
        self._starts = StartLog(f"qpu-{ray.get_runtime_context().get_actor_id()}")
        self._starts.begin()
        try:
            backend = make_backend(backend_name, device=device, num_threads=config.num_threads, num_qubits=num_qubits)
        except QPUError:
            self._starts.end()
            raise
        self._worker = QPUWorker(backend, config)

    async def sample(self, frame: bytes) -> bytes:
        """QPUWorker.sample over frames of qpu_service/wire.py."""
        return encode_measurements(await self._worker.sample(decode_circuits(frame)))

    async def close(self) -> None:
        """Free the backend; a session on a paid device ends here instead of idling until its timeout."""
        self._starts.end()
        await self._worker.close()

    async def stats(self) -> WorkerStats:
        """See QPUWorker."""
        return self._worker.stats()


class RayQPUClient:
    """CircuitSampler over QPU actors: each request goes to the worker with the fewest unanswered ones.

    A request whose worker dies is sent again with the same seeds and request id, to another worker where
    there is one, until the deadline.
    """

    def __init__(self, workers: Sequence[Any], first: int = 0) -> None:
        self._workers = list(workers)
        self._outstanding = [0] * len(workers)
        self._next = first

    def submit(self, circuits: CircuitBatch) -> PendingMeasurement:
        """Send a request; returns at once."""
        return _RayPending(self, circuits)

    def send(self, frame: bytes) -> tuple[int, Any]:
        """Choose a worker and start the call."""
        order = [(self._next + i) % len(self._workers) for i in range(len(self._workers))]
        chosen = min(order, key=lambda index: self._outstanding[index])
        self._next = (chosen + 1) % len(self._workers)
        self._outstanding[chosen] += 1
        return chosen, self._workers[chosen].sample.remote(frame)

    def answered(self, worker: int) -> None:
        """A call to this worker ended, well or not."""
        self._outstanding[worker] -= 1


class _RayPending:
    """One request under way."""

    def __init__(self, client: RayQPUClient, circuits: CircuitBatch) -> None:
        self._client = client
        self._circuits = circuits
        self._frame = encode_circuits(circuits)
        self._worker, self._reference = client.send(self._frame)

    def result(self, timeout_s: float | None = None) -> MeasurementBatch:
        """Wait for the bits.

        Raises:
            TimeoutError: if they do not come within ``timeout_s``.
            QPUError: if the backend refuses or fails.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            remaining_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            try:
                answer: bytes = ray.get(self._reference, timeout=remaining_s)
            except GetTimeoutError as error:
                self._client.answered(self._worker)
                raise TimeoutError(
                    f"no bits for request {self._circuits.request_id} of {len(self._circuits)} circuits within "
                    f"{timeout_s} s; the QPU service is overloaded or stuck, see qpu.timeout_s"
                ) from error
            except (ActorDiedError, ActorUnavailableError) as error:
                self._client.answered(self._worker)
                if deadline_s is not None and time.monotonic() > deadline_s:
                    raise BackendUnavailableError(f"QPU worker {self._worker} is gone: {error}") from error
                time.sleep(_RETRY_PAUSE_S)
                self._worker, self._reference = self._client.send(self._frame)
                continue
            except RayTaskError as error:
                self._client.answered(self._worker)
                if isinstance(error.cause, QPUError):
                    raise error.cause from error
                raise
            self._client.answered(self._worker)
            return decode_measurements(answer)


class RayParameterSource:
    """ParameterSource over a ParameterBoard actor."""

    def __init__(self, board: Any) -> None:
        self._board = board

    def get_parameters(self, *, newer_than: int) -> VersionedParameters | None:
        """See ParameterSource; a board that is restarting has nothing newer."""
        try:
            newest: VersionedParameters | None = ray.get(
                self._board.get_parameters.remote(newer_than=newer_than), timeout=_BOARD_TIMEOUT_S
            )
        except (ActorDiedError, ActorUnavailableError):
            return None
        return newest


def publish_parameters(board: Any, parameters: VersionedParameters, check: Callable[[], None] = lambda: None) -> None:
    """Put a version on the board; one that has died is waited for, because Ray starts it again.

    Args:
        board: the actor.
        parameters: a board ignores one that it has.
        check: called while the board stays away; raises where waiting is no use.

    Raises:
        RunFailedError: if it stays away.
    """
    deadline_s = time.monotonic() + _BOARD_TIMEOUT_S
    while True:
        try:
            ray.get(board.publish.remote(parameters), timeout=_PUBLISH_TIMEOUT_S)
        except (ActorDiedError, ActorUnavailableError, GetTimeoutError) as error:
            if time.monotonic() > deadline_s:
                raise RunFailedError(
                    f"the parameter board has not come back within {_BOARD_TIMEOUT_S:.0f} s: {error}. "
                    "Go on with `hdqnn resume`"
                ) from error
            check()
            time.sleep(_RETRY_PAUSE_S)
        else:
            return


def start_board(options: dict[str, Any]) -> Any:
    """The actor that holds the newest parameters."""
    return ray.remote(ParameterBoard).options(max_restarts=-1, **options).remote()
