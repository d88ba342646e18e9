"""A process with an IBM backend over a scripted service, and circuits whose outcome is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qiskit_ibm_runtime.exceptions import IBMRuntimeError

from qpu_service.budget import Budget, BudgetLimits
from qpu_service.ibm.backend import IBMBackend
from qpu_service.ibm.config import IBMConfig
from qpu_service.ibm.remote import RemoteRuntime
from qpu_service.ibm.trouble import Timing
from qpu_service.job_journal import JobJournal
from qpu_service.types import CircuitBatch, circuit_seeds
from tests.unit.qpu_service.ibm_service import ScriptedService

NUM_QUBITS = 4


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep, draw=lambda: 1.0)


def make_backend(service: ScriptedService, directory: Path, clock: Clock | None = None, **settings: Any) -> IBMBackend:
    """A new process: nothing is carried over but the service and the directory."""
    config = IBMConfig(**({"device": "ibm_test", "budget": BudgetLimits(seconds=1_000.0)} | settings))
    journal = JobJournal(directory, new_id=lambda: "run1")
    sessions = [job.session_id for job in journal.jobs if job.session_id is not None]
    runtime = RemoteRuntime(
        service,
        config,
        sampler=service.sampler,
        modes=service.modes,
        resume_session=sessions[-1] if sessions else None,
        read_timeout_s=5.0,
    )
    return IBMBackend(runtime, journal, Budget(directory, config.budget), config, (clock or Clock()).timing)


def flips(numbers: list[int], *, seed: int = 0, request_id: str = "r", num_layers: int = 3) -> CircuitBatch:
    """Circuits that measure the binary digits of their numbers for certain, with CZs that do not show."""
    digits = np.array(numbers, np.int64)[:, None] >> np.arange(NUM_QUBITS) & 1
    angles = np.zeros((len(numbers), num_layers, NUM_QUBITS, 2), np.float32)
    angles[:, 0, :, 0] = np.pi * digits
    pairs = np.random.default_rng(5).integers(0, NUM_QUBITS, (len(numbers), num_layers, 2)).astype(np.int16)
    return CircuitBatch(
        angles=angles, entangler_pairs=pairs, seeds=circuit_seeds(seed, len(numbers)), request_id=request_id
    )


def assert_right(bits: np.ndarray, numbers: list[int]) -> None:
    assert (bits[:, 0] << np.arange(NUM_QUBITS)).sum(axis=1).tolist() == numbers


def ended_as(message: str, status: str = "ERROR") -> Callable[[ScriptedService], None]:
    """The next job runs and ends like this."""

    def script(service: ScriptedService) -> None:
        service.next_statuses.append(["RUNNING", status])
        service.next_messages.append(message)

    return script


def refused(error: Exception, call: str = "submit") -> Callable[[ScriptedService], None]:
    def script(service: ScriptedService) -> None:
        service.script[call].append(error)

    return script


def http(status: int, words: str = "") -> Exception:
    return IBMRuntimeError(f"Failed to run program: '{status} Client Error: {words} for url: https://x'")
