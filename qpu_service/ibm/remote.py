"""A real device through Qiskit Runtime: job, batch and session mode, one sampler generation or the other.

The client's HTTP calls have no read timeout of their own, so every call runs in a thread that is left behind when it
takes too long. Must never log or raise anything with the token in it, and never choose a device nobody asked for.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from qpu_service.ibm.config import IBMConfig
from qpu_service.ibm.samplers import as_pubs, make_sampler, read_bits, sampler_class

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_LARGEST_CIRCUIT = 20
"""Qubits that a device must have to be chosen as the least busy one."""
_READ_TIMEOUT_S = 60.0
_SUBMIT_TIMEOUT_S = 900.0
"""The client's own limit for uploads."""


def bounded(call: Callable[[], _T], timeout_s: float, what: str) -> _T:
    """Run a call in a thread of its own and stop waiting when it takes too long.

    Raises:
        TimeoutError: after ``timeout_s`` seconds; what was asked may still happen.
    """
    outcome: list[tuple[_T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:  # handed to the caller
            outcome.append((None, error))

    thread = threading.Thread(target=run, name=f"ibm-{what}", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if not outcome:
        raise TimeoutError(f"the service did not answer within {timeout_s:g} s when asked to {what}")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


class RemoteRuntime:
    """A device of an account; satisfies Runtime.

    Args:
        service: QiskitRuntimeService, or what looks like it.
        config: device and mode.
        sampler: class of the sampler; default: what the configuration asks for.
        open_mode: ``Session`` and ``Batch`` by mode name; default: the client's.
        resume_session: session or batch of an earlier start that may still accept jobs.
        read_timeout_s: longest wait for an answer.
    """

    def __init__(
        self,
        service: Any,
        config: IBMConfig,
        *,
        sampler: Any | None = None,
        modes: dict[str, Any] | None = None,
        resume_session: str | None = None,
        read_timeout_s: float = _READ_TIMEOUT_S,
    ) -> None:
        self._service = service
        self._config = config
        self._read_timeout_s = read_timeout_s
        self._sampler = sampler or sampler_class(config.sampler)
        self._modes = modes or _client_modes()
        self._unavailable: set[str] = set()
        self._device = self._choose_device()
        self._mode: Any | None = None
        self._sessions: dict[str, Any | None] = {}
        """Those that are charged by the clock, open or not, by id; None for batches."""
        self._resume_session = resume_session

    @property
    def device_name(self) -> str:
        """The device's name."""
        return str(self._device.name)

    def target_of(self, device_name: str) -> Any:
        """Target of a device as the service reports it now."""
        device = self._device if device_name == self.device_name else self._find_device(device_name)
        return device.target

    @property
    def repetition_delay_s(self) -> float:
        """What was asked for, else the device's default."""
        default = getattr(self._device, "default_rep_delay", None)
        return self._config.repetition_delay_s if self._config.repetition_delay_s is not None else default or 250e-6

    @property
    def is_billed(self) -> bool:
        """Real devices cost."""
        return True

    @property
    def poll_interval_s(self) -> float:
        """The service answers about a job in a few hundred milliseconds."""
        return 1.0

    @property
    def session_id(self) -> str | None:
        """Session or batch that is open now."""
        return None if self._mode is None else self._mode.session_id

    def prepare(self, qubits: Sequence[int]) -> None:
        """A device needs no preparation."""

    def submit(
        self, circuits: Sequence[Any], *, shots: int, tags: Sequence[str], seed: int, max_execution_s: int | None
    ) -> "RemoteJob":
        """Send a job, in a session or batch if that is the mode."""
        del seed  # a device has none
        mode = self._device if self._config.mode == "job" else self._open(max_execution_s)
        sampler = make_sampler(self._sampler, mode)
        sampler.options.environment.job_tags = list(tags)
        if max_execution_s is not None:
            sampler.options.max_execution_time = max_execution_s
        if self._config.repetition_delay_s is not None:
            sampler.options.execution.rep_delay = self._config.repetition_delay_s
        job = bounded(lambda: sampler.run(as_pubs(circuits), shots=shots), _SUBMIT_TIMEOUT_S, "run a job")
        return RemoteJob(job, shots, self._read_timeout_s)

    def find(self, tags: Sequence[str]) -> list["RemoteJob"]:
        """Jobs of the account with all of these tags, newest first."""
        jobs = self._ask(lambda: self._service.jobs(limit=10, job_tags=list(tags)), "list jobs")
        return [RemoteJob(job, None, self._read_timeout_s) for job in jobs]

    def job(self, job_id: str) -> "RemoteJob | None":
        """A job by its id; None if the service does not know it (any more)."""
        try:
            job = self._ask(lambda: self._service.job(job_id), "find a job")
        except Exception as error:
            if type(error).__name__ == "RuntimeJobNotFound":
                return None
            raise
        return RemoteJob(job, None, self._read_timeout_s)

    def session_usage_s(self, session_id: str | None) -> float | None:
        """Wall-clock seconds of a session; batches are charged job by job."""
        if session_id is None:
            return None
        if session_id not in self._sessions:
            try:
                self._sessions[session_id] = self._mode_of("session", session_id)
            except (ValueError, LookupError):
                self._sessions[session_id] = None  # a batch, or nothing that the service remembers
        session = self._sessions[session_id]
        if session is None:
            return None
        usage = self._ask(session.usage, "ask for a session's usage")
        if usage is None:
            raise LookupError(f"the service does not say yet what session {session_id} has cost")
        return float(usage)

    def reopen(self) -> None:
        """Open a new session for the next job."""
        self._mode, self._resume_session = None, None

    def switch_device(self) -> bool:
        """Take the least busy device that has not failed, if none was asked for by name."""
        if self._config.device is not None:
            return False
        self._unavailable.add(self.device_name)
        self.close()
        self._device = self._choose_device()
        return True

    def close(self) -> None:
        """Close the session or batch; jobs in it run to their end."""
        mode, self._mode = self._mode, None
        if mode is None:
            return
        try:
            self._ask(mode.close, "close a session")
        except Exception as error:
            logger.warning("session %s could not be closed (%s); it ends when it idles", mode.session_id, error)

    def _choose_device(self) -> Any:
        if self._config.device is not None:
            return self._find_device(self._config.device)
        fractional = self._config.use_fractional_gates
        unavailable = self._unavailable
        filters = {"filters": lambda device: device.name not in unavailable} if unavailable else {}
        return self._ask(
            lambda: self._service.least_busy(
                min_num_qubits=_LARGEST_CIRCUIT, use_fractional_gates=fractional, **filters
            ),
            "find the least busy device",
        )

    def _find_device(self, name: str) -> Any:
        fractional = self._config.use_fractional_gates
        return self._ask(lambda: self._service.backend(name, use_fractional_gates=fractional), "find the device")

    def _open(self, max_time_s: int | None) -> Any:
        if self._mode is None and self._resume_session is not None:
            self._mode, self._resume_session = self._resume(self._resume_session), None
        if self._mode is None:
            kind = self._modes[self._config.mode]
            self._mode = self._ask(lambda: kind(backend=self._device, max_time=max_time_s), "open a session")
        self._sessions[self._mode.session_id] = self._mode if self._config.mode == "session" else None
        return self._mode

    def _resume(self, session_id: str) -> Any | None:
        """The session of an earlier start, so that it is not paid for twice; None if it takes no jobs any more."""
        try:
            mode = self._mode_of(self._config.mode, session_id)
            details = self._ask(mode.details, "ask about a session") or {}
        except (ValueError, LookupError):
            return None
        same_device = details.get("backend_name") == self.device_name
        return mode if details.get("accepting_jobs") and same_device else None

    def _mode_of(self, kind: str, session_id: str) -> Any:
        """A session or batch by its id; ValueError or LookupError if it is none of this kind."""
        make, fractional = self._modes[kind].from_id, self._config.use_fractional_gates
        return self._ask(
            lambda: make(session_id, service=self._service, use_fractional_gates=fractional), "find a session"
        )

    def _ask(self, call: Callable[[], _T], what: str) -> _T:
        return bounded(call, self._read_timeout_s, what)


class RemoteJob:
    """A job at the service; satisfies DeviceJob."""

    def __init__(self, job: Any, shots: int | None, read_timeout_s: float) -> None:
        self._job = job
        self._shots = shots
        self._read_timeout_s = read_timeout_s

    @property
    def job_id(self) -> str:
        """The service's id."""
        return str(self._job.job_id())

    def session_id(self) -> str | None:
        """Session or batch."""
        return self._ask(lambda: self._job.session_id, "ask for a job's session") or None

    def status(self) -> str:
        """Present status."""
        return str(self._ask(self._job.status, "ask for a job's status")).upper()

    def failure(self) -> str:
        """The service's words."""
        return str(self._ask(self._job.error_message, "ask why a job failed") or "")

    def bits(self) -> list[UInt8[np.ndarray, "S N"]]:
        """Bits of every circuit."""
        result = self._ask(self._job.result, "fetch a job's result")
        if self._shots is None:
            self._shots = _shots_of(result)
        return read_bits(result, self._shots)

    def usage_s(self) -> float | None:
        """What the service has charged; None while it is still counting."""
        usage = self._ask(self._job.metrics, "ask for a job's usage").get("usage") or {}
        if str(usage.get("status", "pending")) == "pending":
            return None
        charged = usage.get("qpu_charge_time_seconds")
        return None if charged is None else float(charged)

    def cancel(self) -> None:
        """Ask the service to stop it."""
        self._ask(self._job.cancel, "cancel a job")

    def _ask(self, call: Callable[[], _T], what: str) -> _T:
        return bounded(call, self._read_timeout_s, what)


def _shots_of(result: Any) -> int:
    from qpu_service.isa import MEASURED_REGISTER

    return int(result[0].data[MEASURED_REGISTER].num_shots) if len(result) else 0


def _client_modes() -> dict[str, Any]:
    from qiskit_ibm_runtime import Batch, Session

    return {"batch": Batch, "session": Session}
