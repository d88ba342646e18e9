"""The QPU workers of a run as the driver sees them: started, watched, replaced, counted.

Ray restarts a worker that dies, in place, so the handles that actors hold stay good and they send their
unanswered requests again; one that dies again and again pauses before it takes work (cluster/restart_pause.py). What
Ray can't see is a worker that lives and does nothing; that one is killed here when it stops answering or when one run
on its backend lasts longer than ``stall_s``.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from cluster.errors import ClusterUnreachableError, RunFailedError
from cluster.progress import format_duration
from cluster.qpu_health import health_note, health_row, load_note
from cluster.ray_runtime import has_process
from cluster.ray_services import QPUActor
from cluster.restart_pause import STABLE_S, restart_pause_s
from qpu_service.config import QPUConfig
from qpu_service.device_health import DeviceHealth
from qpu_service.errors import BackendUnavailableError, QPUError
from qpu_service.places import WorkerPlace
from qpu_service.worker_stats import WorkerStats

_log = logging.getLogger(__name__)
_MAX_CONCURRENT_REQUESTS = 1_000
_PERIOD_S = 1.0
_CLOSE_TIMEOUT_S = 10.0
_MAX_FAILURES = 5
"""Deaths and stalls of one worker, none after ``STABLE_S`` of health, after which the run ends with the cause."""
_START_S = 30.0
"""A worker that does not answer so long after its death, and its pause, has died again."""
_FIRST_START_S = 1_800.0
"""Longest wait for the first answer of all workers: a machine is bought and installed, a backend is made."""
_TELL_AFTER_S = 10.0
_LOOK_PERIOD_S = 0.1


@dataclass(slots=True)
class _Member:
    place: WorkerPlace
    handle: Any
    call: Any = None
    asked_s: float = 0.0
    failures: int = 0
    well_since_s: float | None = None
    """Its first answer since its last start; None until then."""
    back_by_s: float = 0.0
    was_up: bool = False
    is_placed: bool = True
    stats: WorkerStats | None = None
    history: list[tuple[float, WorkerStats]] = field(default_factory=list)


class QPUCrew:
    """Starts and watches QPU workers.

    Args:
        places: one worker each.
        config: batching.
        options_of: Ray options of the worker process of a place.
        num_qubits: of the circuits to come.
        stall_s: a worker that answers nothing, or whose one run lasts, for this long is replaced.
        meanwhile: called again and again while the workers start, after a while with words for what is waited for; what
            it raises ends the start.
        has_process: whether Ray has a process for an actor; one that waits for a machine has not failed.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        QPUError: if a backend cannot be made where its worker runs.
        ClusterUnreachableError: if the workers do not start within half an hour.
    """

    def __init__(
        self,
        places: Sequence[WorkerPlace],
        config: QPUConfig,
        options_of: Callable[[WorkerPlace], dict[str, Any]],
        *,
        num_qubits: int = 1,
        stall_s: float = 120.0,
        meanwhile: Callable[[str], None] = lambda _: None,
        has_process: Callable[[Any], bool] = has_process,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stall_s = stall_s
        self._has_process, self._clock = has_process, clock
        self.num_restarts = 0
        remote = ray.remote(max_restarts=-1, max_task_retries=0, max_concurrency=_MAX_CONCURRENT_REQUESTS)(QPUActor)
        self._members = [
            _Member(
                place,
                remote.options(**options_of(place)).remote(place.backend, place.device, config, num_qubits),
            )
            for place in places
        ]
        try:
            self._wait_until_up(meanwhile, sleep)
        except BaseException:
            self.stop()
            raise
        self._polled_s = clock()
        self._next_poll_s = self._polled_s

    @property
    def handles(self) -> list[Any]:
        """Handles for RayQPUClient."""
        return [member.handle for member in self._members]

    def poll(self) -> None:
        """Ask the workers how they are, at most once a second; replace those that stall.

        Raises:
            RunFailedError: if a worker dies or stalls again and again.
        """
        now = self._clock()
        if now < self._next_poll_s:
            return
        since_s, self._polled_s = now - self._polled_s, now
        self._next_poll_s = now + _PERIOD_S
        for member in self._members:
            member.is_placed = member.well_since_s is not None or self._has_process(member.handle)
            if not member.is_placed:
                # Time without a machine is nobody's failure.
                member.back_by_s += since_s
                member.asked_s += since_s
            self._hear(member, now)
            if member.call is None:
                member.call, member.asked_s = member.handle.stats.remote(), now
            elif now - member.asked_s > self._stall_s:
                self._replace(member, now, member.asked_s, f"no answer for {self._stall_s:.0f} s")
            if member.stats is not None and member.stats.running_s > self._stall_s:
                running_s = member.stats.running_s
                self._replace(member, now, now - running_s, f"one run has lasted {running_s:.0f} s")

    def row(self) -> dict[str, float]:
        """Numbers over all workers, rates since the answer before the last."""
        known = [member for member in self._members if len(member.history) == 2]
        if not known:
            return {}
        newest = [member.history[1][1] for member in known]
        rates = {"requests": 0.0, "circuits": 0.0, "shots": 0.0}
        for member in known:
            (then, before), (now, after) = member.history
            for name in rates:
                rates[name] += max(0, getattr(after, name) - getattr(before, name)) / max(now - then, 1e-9)
        batches = sum(stats.batches for stats in newest)
        requests = sum(stats.requests for stats in newest)
        return {
            **{f"qpu/{name}_per_s": value for name, value in rates.items()},
            "qpu/queued_circuits": float(sum(stats.queued_circuits for stats in newest)),
            "qpu/batch_circuits": sum(stats.circuits for stats in newest) / batches if batches else 0.0,
            "qpu/request_p50_ms": 1e3 * max(stats.latency_p50_s for stats in newest),
            "qpu/request_p99_ms": 1e3 * max(stats.latency_p99_s for stats in newest),
            "qpu/queue_ms": 1e3 * sum(stats.queue_s_sum for stats in newest) / requests if requests else 0.0,
            "qpu/run_ms": 1e3 * sum(stats.execution_s_sum for stats in newest) / batches if batches else 0.0,
            "qpu/errors": float(sum(stats.errors for stats in newest)),
            "qpu/restarts": float(self.num_restarts),
            **health_row(self._health()),
        }

    @property
    def note(self) -> str:
        """Load, breaker, budget and missing machines in words for the progress line; empty where all is well."""
        missing = [member for member in self._members if not member.is_placed]
        machines = f"{len(missing)} of {len(self._members)} QPU workers wait for a machine" if missing else ""
        return " | ".join(filter(None, (load_note(self.row()), health_note(self._health()), machines)))

    def stop(self) -> None:
        """Let the workers free their backends, then end their processes."""
        closing = [member.handle.close.remote() for member in self._members if member.was_up]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_CLOSE_TIMEOUT_S)
        for member in self._members:
            ray.kill(member.handle)

    def _health(self) -> list[DeviceHealth]:
        stats = [member.stats for member in self._members if member.stats is not None]
        return [one.device for one in stats if one.device is not None]

    def _wait_until_up(self, meanwhile: Callable[[str], None], sleep: Callable[[float], None]) -> None:
        started_s = self._clock()
        for member in self._members:
            member.call = member.handle.stats.remote()
        while missing := [member for member in self._members if not self._is_up(member)]:
            waited_s, note = self._clock() - started_s, ""
            if waited_s > _TELL_AFTER_S:
                homeless = [member for member in missing if not self._has_process(member.handle)]
                what = "wait for a machine" if homeless else "make their backends"
                note = f"{len(homeless or missing)} of {len(self._members)} QPU workers {what}"
            if waited_s > _FIRST_START_S:
                raise ClusterUnreachableError(
                    f"{note} after {format_duration(waited_s)}; expected all of them to answer by then. See "
                    "`ray status` for machines and Ray's logs of the workers for their backends, then go on with "
                    "`hdqnn resume`, or ask for fewer: --qpu.num-workers"
                )
            meanwhile(note)
            sleep(_LOOK_PERIOD_S)

    def _is_up(self, member: _Member) -> bool:
        if member.was_up:
            return True
        if not ray.wait([member.call], timeout=0)[0]:
            return False
        _check_start(member)
        member.call, member.was_up, member.well_since_s = None, True, self._clock()
        return True

    def _hear(self, member: _Member, now: float) -> None:
        if member.call is None or not ray.wait([member.call], timeout=0)[0]:
            return
        try:
            member.stats = ray.get(member.call)
        except RayActorError as error:
            # While Ray starts it again every question fails: that is still the same death, for a time.
            if member.well_since_s is not None or now > member.back_by_s:
                self._count(member, now, member.asked_s, error)
                _log.warning("QPU worker on %s died and is started again: %s", member.place, _last_line(error))
        else:
            member.well_since_s = now if member.well_since_s is None else member.well_since_s
            member.history = [*member.history[-1:], (now, member.stats)]
        member.call = None

    def _replace(self, member: _Member, now: float, well_until_s: float, cause: str) -> None:
        self._count(member, now, well_until_s, cause)
        _log.warning("QPU worker on %s: %s; starting it again, its requests are sent again", member.place, cause)
        ray.kill(member.handle, no_restart=False)
        member.call, member.stats = None, None

    def _count(self, member: _Member, now: float, well_until_s: float, cause: object) -> None:
        was_well = member.well_since_s is not None and well_until_s - member.well_since_s >= STABLE_S
        member.failures = 1 if was_well else member.failures + 1
        member.well_since_s, member.back_by_s = None, now + _START_S + restart_pause_s(member.failures)
        member.history.clear()
        self.num_restarts += 1
        if member.failures >= _MAX_FAILURES:
            raise RunFailedError(
                f"the QPU worker on {member.place} died or hung {member.failures} times in a row, the last time with: "
                f"{_last_line(cause)}. Mend the cause and go on with `hdqnn resume`"
            ) from (cause if isinstance(cause, BaseException) else None)


def _last_line(cause: object) -> str:
    return str(cause).strip().split("\n")[-1]


def _check_start(member: _Member) -> None:
    try:
        ray.get(member.call)
    except (RayTaskError, RayActorError) as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, QPUError):
            raise cause from error
        raise BackendUnavailableError(f"the QPU backend {member.place.backend!r} cannot be started: {error}") from error
