"""A device service that does what its script says, checks whatever it is given, and keeps the ledger of what was paid.

It stands in for QiskitRuntimeService and the sampler; everything of this project above them is real.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit.quantum_info import Statevector
from qiskit_ibm_runtime.exceptions import IBMInputValueError, RuntimeJobNotFound
from qiskit_ibm_runtime.utils import validate_isa_circuits

from qpu_service.backends.fake_device import load_fake_device

SECONDS_PER_JOB = 3.0
"""What every job costs."""


class Killed(BaseException):
    """The process ends here; nothing of it may run on."""


@dataclass
class PaidJob:
    """A job as the service keeps it; satisfies what RemoteJob asks of a RuntimeJobV2."""

    service: "ScriptedService"
    identifier: str
    tags: list[str]
    circuits: list[QuantumCircuit]
    shots: int
    device: str
    max_execution_time: int | None
    session_id: str | None
    statuses: list[str] = field(default_factory=list)
    message: str = ""
    charge: Any = SECONDS_PER_JOB
    was_cancelled: bool = False

    def job_id(self) -> str:
        return self.identifier

    def status(self) -> str:
        self.service.happen("status")
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def error_message(self) -> str:
        return self.message

    def result(self) -> PrimitiveResult:
        self.service.happen("result")
        assert self.statuses[-1] == "DONE"
        bits = [measure(circuit, self.shots, seed) for seed, circuit in enumerate(self.circuits)]
        return PrimitiveResult([SamplerPubResult(DataBin(meas=BitArray.from_bool_array(b, "little"))) for b in bits])

    def metrics(self) -> dict[str, Any]:
        self.service.happen("metrics")
        charge = self.charge.pop(0) if isinstance(self.charge, list) else self.charge
        if charge is None:
            return {"usage": {"status": "pending"}}
        return {"usage": {"status": "complete", "qpu_charge_time_seconds": charge}}

    def cancel(self) -> None:
        self.service.happen("cancel")
        self.was_cancelled = True
        if self.statuses[0] not in ("DONE", "ERROR"):
            self.statuses = ["CANCELLED"]


class ScriptedService:
    """An account with devices; ``script[call]`` holds what the next calls do: an exception to raise, or None.

    Calls: connect, backend, submit, reply (after the job was accepted), status, result, metrics, cancel, jobs, job,
    usage.
    """

    def __init__(self, device: str = "fake_manila", names: tuple[str, ...] = ("ibm_test",)) -> None:
        template = load_fake_device(device)
        self.devices = [SimpleNamespace(name=n, target=template.target, default_rep_delay=250e-6) for n in names]
        self.paid: list[PaidJob] = []
        self.script: dict[str, list[Any]] = defaultdict(list)
        self.calls: dict[str, int] = defaultdict(int)
        self.next_statuses: list[list[str]] = []
        self.next_messages: list[str] = []
        self.next_charges: list[Any] = []
        self.sessions: list[ScriptedSession] = []
        self.session_elapsed_s = 0.0
        self._ids = itertools.count(1)
        self.sampler = sampler_of(self)
        by_id: dict[str, ScriptedSession] = {}
        self.modes = {
            kind: type(kind, (ScriptedSession,), {"service": self, "by_id": by_id, "kind": kind})
            for kind in ("session", "batch")
        }

    def happen(self, call: str) -> None:
        self.calls[call] += 1
        event = self.script[call].pop(0) if self.script[call] else None
        if event is not None:
            raise event

    def backend(self, name: str, use_fractional_gates: bool = False) -> Any:
        self.happen("backend")
        return next(device for device in self.devices if device.name == name)

    def least_busy(self, *, min_num_qubits: int, use_fractional_gates: bool = False, filters: Any = None) -> Any:
        self.happen("backend")
        assert min_num_qubits >= 1
        return next(device for device in self.devices if filters is None or filters(device))

    def jobs(self, *, limit: int, job_tags: list[str]) -> list[PaidJob]:
        self.happen("jobs")
        check_tags(job_tags)
        return [job for job in reversed(self.paid) if set(job_tags) <= set(job.tags)][:limit]

    def job(self, job_id: str) -> PaidJob:
        self.happen("job")
        for job in self.paid:
            if job.identifier == job_id:
                return job
        raise RuntimeJobNotFound(f"Job not found: {job_id}")

    def accept(self, sampler: Any, pubs: list[Any], shots: int) -> PaidJob:
        self.happen("submit")
        circuits = [circuit for (circuit,) in pubs]
        device = sampler.mode if sampler.session is None else sampler.session.device
        validate_isa_circuits(circuits, device.target)
        tags = check_tags(sampler.options.environment.job_tags)
        limit = sampler.options.max_execution_time
        assert limit is None or (isinstance(limit, int) and 1 <= limit <= 10_800)
        job = PaidJob(
            service=self,
            identifier=f"job-{next(self._ids)}",
            tags=tags,
            circuits=circuits,
            shots=shots,
            device=device.name,
            max_execution_time=limit,
            session_id=None if sampler.session is None else sampler.session.session_id,
            statuses=self.next_statuses.pop(0) if self.next_statuses else ["QUEUED", "RUNNING", "DONE"],
            message=self.next_messages.pop(0) if self.next_messages else "",
            charge=self.next_charges.pop(0) if self.next_charges else SECONDS_PER_JOB,
        )
        self.paid.append(job)
        self.happen("reply")
        return job

    def paid_circuits(self) -> list[str]:
        """What was executed, one entry per circuit of every job."""
        return [repr([(i.operation.name, i.operation.params) for i in c.data]) for j in self.paid for c in j.circuits]


class ScriptedSession:
    """Session or Batch."""

    service: ClassVar[ScriptedService]
    kind: ClassVar[str]
    by_id: ClassVar[dict[str, "ScriptedSession"]]

    def __init__(self, backend: Any, max_time: int | None) -> None:
        self.device = backend
        self.max_time = max_time
        self.session_id = f"session-{len(self.service.sessions) + 1}"
        self.is_open = True
        self.elapsed_s: float | None = None
        """Its own time, where that is not the service's ``session_elapsed_s``."""
        self.service.sessions.append(self)
        self.by_id[self.session_id] = self

    @classmethod
    def from_id(cls, session_id: str, service: Any, use_fractional_gates: bool = False) -> "ScriptedSession":
        session = cls.by_id[session_id]
        if session.kind != cls.kind:
            raise IBMInputValueError(f"Input ID {session_id} has execution mode {session.kind} instead of {cls.kind}.")
        return session

    def details(self) -> dict[str, Any]:
        return {"accepting_jobs": self.is_open, "backend_name": self.device.name}

    def usage(self) -> float:
        self.service.happen("usage")
        return self.service.session_elapsed_s if self.elapsed_s is None else self.elapsed_s

    def close(self) -> None:
        self.is_open = False


def sampler_of(service: ScriptedService) -> type:
    """A sampler class with the options that both generations have."""

    class Sampler:
        def __init__(self, mode: Any) -> None:
            self.mode = mode
            self.session = mode if isinstance(mode, ScriptedSession) else None
            self.options = SimpleNamespace(
                environment=SimpleNamespace(job_tags=None),
                execution=SimpleNamespace(rep_delay=None),
                max_execution_time=None,
            )

        def run(self, pubs: list[Any], *, shots: int) -> PaidJob:
            return service.accept(self, pubs, shots)

    return Sampler


def check_tags(tags: Any) -> list[str]:
    """IBM takes at most eight tags; these must be those of a run and a request."""
    assert isinstance(tags, list)
    assert len(tags) <= 8
    assert all(isinstance(tag, str) and 0 < len(tag) <= 64 for tag in tags)
    assert tags[0].startswith("hdqnn-run-")
    assert tags[1].startswith("hdqnn-request-")
    return tags


def measure(circuit: QuantumCircuit, shots: int, seed: int) -> np.ndarray:
    """(S, N) bits of a measured circuit, by Qiskit's statevector of the qubits in use."""
    reduced, order = on_used_qubits(circuit)
    outcomes = Statevector(reduced).sample_memory(shots) if shots > 1 else [_most_probable(reduced, seed)]
    return np.array([[text[::-1][place] == "1" for place in order] for text in outcomes])


def on_used_qubits(circuit: QuantumCircuit) -> tuple[QuantumCircuit, list[int]]:
    """The circuit without measurements on the qubits it uses, and which of them each classical bit reads."""
    used = sorted({circuit.find_bit(q).index for i in circuit.data for q in i.qubits})
    place = {qubit: index for index, qubit in enumerate(used)}
    reduced, reads = QuantumCircuit(len(used)), {}
    for instruction in circuit.data:
        qubits = [place[circuit.find_bit(q).index] for q in instruction.qubits]
        if instruction.operation.name == "measure":
            reads[circuit.find_bit(instruction.clbits[0]).index] = qubits[0]
        else:
            reduced.append(instruction.operation, qubits)
    return reduced, [reads[bit] for bit in range(len(reads))]


def _most_probable(circuit: QuantumCircuit, seed: int) -> str:
    probabilities = Statevector(circuit).probabilities()
    outcome = int(np.random.default_rng(seed).choice(len(probabilities), p=probabilities / probabilities.sum()))
    return f"{outcome:0{circuit.num_qubits}b}"
