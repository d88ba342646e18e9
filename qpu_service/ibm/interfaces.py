"""What the job runner needs of a device service; real, offline and scripted ones all fit."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

FINAL_STATES = frozenset({"DONE", "CANCELLED", "ERROR"})


class DeviceJob(Protocol):
    """One job at the service. Every call may fail like any call to a remote service."""

    @property
    def job_id(self) -> str:
        """The service's name of the job."""
        ...

    def session_id(self) -> str | None:
        """Session or batch that the job is in."""
        ...

    def status(self) -> str:
        """INITIALIZING, QUEUED, RUNNING, DONE, CANCELLED or ERROR."""
        ...

    def failure(self) -> str:
        """What the service says about a job that ended as CANCELLED or ERROR."""
        ...

    def bits(self) -> list[UInt8[np.ndarray, "S N"]]:
        """Bits of every circuit of a DONE job, in its order; ``[..., q]`` is qubit q."""
        ...

    def usage_s(self) -> float | None:
        """QPU seconds charged; None while the service does not know yet."""
        ...

    def cancel(self) -> None:
        """Ask the service to stop the job."""
        ...


class Runtime(Protocol):
    """One device of a service, and its jobs."""

    @property
    def device_name(self) -> str:
        """The device's name at the service."""
        ...

    def target_of(self, device_name: str) -> Any:
        """Qiskit's Target of this device, or of another one of the service."""
        ...

    @property
    def repetition_delay_s(self) -> float:
        """Pause between two executions, seconds."""
        ...

    @property
    def is_billed(self) -> bool:
        """Whether jobs cost QPU time."""
        ...

    @property
    def poll_interval_s(self) -> float:
        """Pause between two questions about a job that runs, seconds."""
        ...

    @property
    def session_id(self) -> str | None:
        """Session or batch that jobs run in now."""
        ...

    def prepare(self, qubits: Sequence[int]) -> None:
        """Learn which physical qubits the circuits will use, before they are sent."""
        ...

    def submit(
        self, circuits: Sequence[Any], *, shots: int, tags: Sequence[str], seed: int, max_execution_s: int | None
    ) -> DeviceJob:
        """Send a job. When this raises, the job may have arrived or not."""
        ...

    def find(self, tags: Sequence[str]) -> Sequence[DeviceJob]:
        """Jobs that carry all of these tags."""
        ...

    def job(self, job_id: str) -> DeviceJob | None:
        """The job with this id; None if the service does not have it."""
        ...

    def session_usage_s(self, session_id: str | None) -> float | None:
        """Seconds charged for a whole session so far, open or not; None where jobs are charged one by one.

        Raises:
            LookupError: if the service does not know yet.
        """
        ...

    def reopen(self) -> None:
        """Forget a session that was closed; the next job opens a new one."""
        ...

    def switch_device(self) -> bool:
        """Leave a device that is not available for another; False if the device was asked for by name."""
        ...

    def close(self) -> None:
        """Close sessions and connections; calling it twice is fine."""
        ...
