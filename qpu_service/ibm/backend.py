"""The IBM backend: circuits in, bits out, each circuit paid once however often its request is repeated.

A circuit with a seed is one measurement: asking for it again, also from another process, gives the bits of the job that
was already paid for, whatever other circuits it is asked together with.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import UInt8

from qpu_service.budget import Budget, Spending
from qpu_service.device_health import Breaker, DeviceHealth
from qpu_service.errors import BackendUnavailableError, JobFailedError
from qpu_service.ibm.charges import Charges
from qpu_service.ibm.config import IBMConfig
from qpu_service.ibm.interfaces import Runtime
from qpu_service.ibm.jobs import JobRunner, SentJob
from qpu_service.ibm.trouble import Interruption, JobTroubleError, Timing
from qpu_service.ibm.usage import UsageModel, split_into_jobs
from qpu_service.job_journal import AlreadyIntendedError, JobJournal, circuit_digests
from qpu_service.readout import ReadoutErrors, correct_bits, read_errors
from qpu_service.retry import Action, pause_s
from qpu_service.types import CircuitBatch, MeasurementBatch

logger = logging.getLogger(__name__)

_MAX_JOB_FAILURES = 3
"""Jobs of one request that may fail in a way that is worth another try."""
_STOP_S = 3.0
"""Longest wait for a run that is told to stop."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Bits of one circuit."""

    bits: UInt8[np.ndarray, "S N"]
    device: str
    readout_errors: tuple[float, ...] | None
    """Of its qubits when the job was sent; the device may be calibrated anew before the bits are read."""


class IBMBackend:
    """CircuitBackend on an IBM device.

    Args:
        runtime: the device.
        journal: jobs of this and earlier processes.
        budget: what was spent and may be spent.
        config: execution mode and deadline.
        timing: clock, sleep and random numbers.
        clean_up: called once when the backend is closed.
    """

    def __init__(
        self,
        runtime: Runtime,
        journal: JobJournal,
        budget: Budget,
        config: IBMConfig,
        timing: Timing | None = None,
        *,
        clean_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._budget = budget
        self._config = config
        self._interruption = Interruption(timing or Timing())
        self._timing = self._interruption.timing
        self._breaker = Breaker(self._timing.clock)
        self._charges = Charges(runtime, journal, budget, self._timing)
        self._runner = JobRunner(
            runtime,
            journal,
            budget,
            devices=config.accepted_devices,
            charges=self._charges,
            timing=self._timing,
            breaker=self._breaker,
        )
        self._assemblers: dict[tuple[str, int], Any] = {}
        self._lock = Lock()
        self._is_closed = False
        self._clean_up = clean_up

    @property
    def name(self) -> str:
        """``ibm:`` and the device that circuits go to; bits are stored with the name of the one that measured them."""
        return f"ibm:{self._runtime.device_name}"

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Measure every circuit ``shots`` times, or take up the job that already does.

        Raises:
            InvalidCircuitError: if the circuits do not fit the device or a job.
            BudgetExceededError: if the budget does not cover them; nothing of the uncovered part is sent.
            BackendUnavailableError: if credentials or device are wrong.
            BackendFailedError: if the service failed or was late; asking again takes up what is already paid.
            JobFailedError: if a job ended in a way that a repetition would only be paid again.
        """
        started_s = self._timing.clock()
        digests = circuit_digests(circuits)
        with self._lock:
            if self._is_closed:
                raise BackendUnavailableError(f"backend {self.name} is closed; make a new one")
            self._interruption.check()
            self._charges.reconcile()
            found: dict[str, _Measured] = {}
            job_ids: list[str] = []
            self._measure_all(circuits, digests, found, job_ids)
            empty = np.zeros((0, circuits.shots, circuits.angles.shape[2]), np.uint8)
            bits = np.stack([found[digest].bits for digest in digests]) if digests else empty
            devices = [found[digest].device for digest in digests]
            if self._config.corrects_readout and digests:
                errors = self._errors_of(circuits, [found[digest] for digest in digests])
                bits = correct_bits(bits, errors, circuits.seeds)
        return MeasurementBatch(
            bits=bits,
            request_id=circuits.request_id,
            backend_name=f"ibm:{','.join(dict.fromkeys(devices))}" if devices else self.name,
            execution_s=self._timing.clock() - started_s,
            job_id=",".join(dict.fromkeys(job_ids)) or None,
        )

    def spending(self) -> Spending:
        """What was spent and is set aside, over all workers."""
        return self._budget.spending()

    def health(self) -> DeviceHealth:
        """State of the service and of the budget; does not wait for a job."""
        left_s, left_jobs = self._budget.left()
        return DeviceHealth(
            failures_in_a_row=self._breaker.failures_in_a_row,
            paused_s=self._breaker.paused_s,
            devices_given_up=self._breaker.devices_given_up,
            budget_left_s=left_s,
            budget_left_jobs=left_jobs,
        )

    def readout_errors(self, circuits: CircuitBatch) -> ReadoutErrors:
        """Readout errors of the physical qubits that hold each qubit of each circuit, as the device reports them."""
        return self._readout_errors(circuits, self._runtime.device_name)

    def stop(self) -> None:
        """End the run under way, see StopsMidRun; the job that it waits for is taken up by the next start."""
        self._interruption.interrupt()
        if self._lock.acquire(timeout=_STOP_S):
            self._lock.release()
        else:
            # It is in a call to the service, which may hang for minutes: a session costs meanwhile.
            self._runtime.close()

    def close(self) -> None:
        """Close sessions and files; calling it twice is fine. Jobs that run are taken up by the next start."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                session_id = self._runtime.session_id
                self._runtime.close()
                self._charges.reconcile(now=True)
                self._charges.charge_session(session_id)
                self._journal.close()
                self._clean_up()

    def _measure_all(
        self, asked: CircuitBatch, digests: Sequence[str], found: dict[str, _Measured], job_ids: list[str]
    ) -> None:
        """Fill ``found`` for every digest; tries again what the error table allows."""
        deadline_s = self._timing.clock() + self._config.deadline_s
        row_of = {digest: row for row, digest in reversed(list(enumerate(digests)))}
        failures = 0
        while missing := [digest for digest in row_of if digest not in found]:
            try:
                self._measure(asked, row_of, missing, found, job_ids, deadline_s)
            except AlreadyIntendedError:
                continue  # another worker was asked for the same: its job is in the journal and is taken up
            except JobTroubleError as trouble:
                failures += 1
                self._react(trouble, failures, deadline_s)

    def _measure(
        self,
        asked: CircuitBatch,
        row_of: dict[str, int],
        missing: list[str],
        found: dict[str, _Measured],
        job_ids: list[str],
        deadline_s: float,
    ) -> None:
        self._journal.refresh()
        devices = self._config.accepted_devices
        known = {hit[0].tag: hit[0] for digest in missing if (hit := self._journal.find(digest, devices)) is not None}
        for entry in known.values():
            sent = self._runner.reattach(entry, deadline_s)
            if sent is not None:
                self._collect(asked, sent, found, job_ids, deadline_s)
        new = [digest for digest in missing if digest not in found]
        if not new:
            return
        part = asked.take([row_of[digest] for digest in new])
        assembler = self._assembler(part.angles.shape[2], self._runtime.device_name)
        jobs = split_into_jobs(assembler.loads(part), assembler.sizes(part), part.shots)
        at_once = len(jobs) if self._config.mode == "batch" else 1
        for first in range(0, len(jobs), at_once):
            sent_jobs = [
                self._send(assembler, part, new, job, deadline_s=deadline_s) for job in jobs[first : first + at_once]
            ]
            for sent in sent_jobs:
                self._collect(asked, sent, found, job_ids, deadline_s)

    def _send(
        self, assembler: Any, part: CircuitBatch, digests: list[str], job: slice, *, deadline_s: float
    ) -> SentJob:
        self._interruption.check()
        chosen = part.take(job)
        model = UsageModel(repetition_delay_s=self._runtime.repetition_delay_s)
        length_s = max(model.circuit_s, float(assembler.durations_s(chosen).max()))
        estimate_s = replace(model, circuit_s=length_s).seconds(executions=len(chosen) * chosen.shots)
        errors = self.readout_errors(chosen).one_given_zero if self._config.corrects_readout else None
        return self._runner.send(
            digests[job],
            assembler.assemble(chosen),
            shots=chosen.shots,
            estimate_s=estimate_s if self._runtime.is_billed else 0.0,
            deadline_s=deadline_s,
            readout_errors=None if errors is None else errors.round(6).tolist(),  # far finer than they are known
        )

    def _collect(
        self,
        asked: CircuitBatch,
        sent: SentJob,
        found: dict[str, _Measured],
        job_ids: list[str],
        deadline_s: float,
    ) -> None:
        bits = self._runner.collect(sent, deadline_s)
        expected = (asked.shots, asked.angles.shape[2])
        if len(bits) != len(sent.entry.digests) or any(circuit.shape != expected for circuit in bits):
            shapes = sorted({circuit.shape for circuit in bits})
            raise JobFailedError(
                f"job {sent.job.job_id} returned {len(bits)} circuits with bits of shapes {shapes}, expected "
                f"{len(sent.entry.digests)} of {expected}; its bits are not used"
            )
        errors = sent.entry.readout_errors or [None] * len(bits)
        measured = (_Measured(c, sent.entry.device, reported) for c, reported in zip(bits, errors, strict=True))
        found.update(zip(sent.entry.digests, measured, strict=True))
        job_ids.append(sent.job.job_id)

    def _react(self, trouble: JobTroubleError, failures: int, deadline_s: float) -> None:
        """Prepare another try, or raise what the caller gets to see."""
        action = trouble.rule.action
        logger.warning("%s", trouble)
        pause = pause_s(trouble.rule, failures, self._timing.draw)
        if (
            action is Action.FAIL
            or failures >= _MAX_JOB_FAILURES
            or self._timing.clock() + pause > deadline_s
            or (action is Action.OTHER_DEVICE and not self._runtime.switch_device())
        ):
            raise trouble.as_qpu_error() from None
        if action is Action.NEW_SESSION:
            self._runtime.reopen()
        elif action is Action.OTHER_DEVICE:
            logger.warning("circuits go to %s from now on", self.name)
            self._breaker.give_up_device()
        else:
            self._breaker.pause(pause)
            self._timing.sleep(pause)

    def _errors_of(self, circuits: CircuitBatch, measured: Sequence[_Measured]) -> ReadoutErrors:
        """Readout errors of the qubits that measured each circuit, where unknown today's."""
        errors = np.array(
            [
                each.readout_errors or self._readout_errors(circuits.take([row]), each.device).one_given_zero[0]
                for row, each in enumerate(measured)
            ]
        )
        return ReadoutErrors(errors, errors)

    def _readout_errors(self, circuits: CircuitBatch, device: str) -> ReadoutErrors:
        assembler = self._assembler(circuits.angles.shape[2], device)
        target = self._runtime.target_of(device)
        return read_errors(target, np.array(assembler.region.qubits)[assembler.places(circuits)])

    def _assembler(self, num_qubits: int, device: str) -> Any:
        from qpu_service.isa import CircuitAssembler

        key = (device, num_qubits)
        if key not in self._assemblers:
            self._assemblers[key] = CircuitAssembler(self._runtime.target_of(device), num_qubits)
            if device == self._runtime.device_name:
                self._runtime.prepare(self._assemblers[key].region.qubits)
        return self._assemblers[key]
