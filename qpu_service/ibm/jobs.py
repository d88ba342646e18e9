"""The life of one paid job: noted, reserved, sent, waited for, read, charged. Survives its process at any point.

Order of the steps, and why a crash between any two costs nothing twice:

1. the journal notes the intent with a tag            crash: a new process looks the tag up, finds nothing, starts over
   and locks it until step 4                          slow:  whoever asks meanwhile waits for the lock, not for a time
2. the budget reserves the estimate                   crash: the same; the reservation is given back then
3. the job is sent with the tag                       crash: the new process finds it by its tag
4. the journal notes the job's id                     crash: the new process finds it by its id
5. the job is waited for and read                     crash: it is read again
6. the budget takes the charge, the journal the end   crash: taking the same charge twice changes nothing
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from qpu_service.budget import Budget
from qpu_service.device_health import Breaker
from qpu_service.errors import BackendFailedError, BudgetExceededError, QPUError
from qpu_service.ibm.charges import Charges
from qpu_service.ibm.interfaces import FINAL_STATES, DeviceJob, Runtime
from qpu_service.ibm.redaction import redact
from qpu_service.ibm.trouble import JobTroubleError, Timing
from qpu_service.ibm.usage import MAX_EXECUTION_S
from qpu_service.job_journal import JobEntry, JobJournal
from qpu_service.retry import Action, Rule, diagnose, pause_s, symptom_of, symptom_of_job

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_MAX_SUBMISSIONS = 6
"""Tries to get one job accepted."""
_LOOK_UP_PAUSES_S = (0.0, 2.0, 5.0, 10.0)
"""Waits before asking for a tag: a job may be accepted a moment after the connection that sent it has died."""
_CANCEL_PATIENCE_S = 60.0
_LONGEST_POLL_S = 10.0
_SUBMISSION_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class SentJob:
    """A job that the service has."""

    entry: JobEntry
    job: DeviceJob


class JobRunner:
    """Sends jobs of one runtime and brings their bits back.

    Args:
        runtime: the device.
        devices: those whose jobs are as good; None: any.
        journal: outlives this process.
        budget: outlives this process.
        charges: takes what was charged into the budget.
        timing: clock, sleep and random numbers.
        breaker: told of every answer, failure and pause.
    """

    def __init__(
        self,
        runtime: Runtime,
        journal: JobJournal,
        budget: Budget,
        *,
        devices: Collection[str] | None,
        charges: Charges,
        timing: Timing,
        breaker: Breaker,
    ) -> None:
        self._runtime = runtime
        self._journal = journal
        self._budget = budget
        self._devices = devices
        self._charges = charges
        self._timing = timing
        self._breaker = breaker

    def send(
        self,
        digests: Sequence[str],
        circuits: Sequence[Any],
        *,
        shots: int,
        estimate_s: float,
        deadline_s: float,
        readout_errors: Sequence[Sequence[float]] | None = None,
    ) -> SentJob:
        """Send new circuits as one job; the journal keeps the readout errors for whoever reads its bits.

        Raises:
            AlreadyIntendedError: if another worker is sending, or has sent, one of the circuits.
            BudgetExceededError: before anything is sent.
            JobTroubleError: if the service does not take the job.
        """
        entry = self._journal.intend(digests, self._runtime.device_name, self._devices, readout_errors)
        try:
            allowance_s = self._reserve(entry, estimate_s)
            limit_s = None if allowance_s is None else max(1, min(MAX_EXECUTION_S, int(allowance_s)))
            seed = int(digests[0][:8], 16) % (2**31 - 1) + 1
            job: DeviceJob | None = None
            failures = 0
            while job is None:
                try:
                    job = self._runtime.submit(
                        circuits, shots=shots, tags=self._tags(entry), seed=seed, max_execution_s=limit_s
                    )
                    self._breaker.answered()
                except Exception as error:
                    failures += 1
                    self._breaker.failed()
                    job = self._after_failed_submission(entry, error, failures, deadline_s)
            return SentJob(self._journal.submitted(entry.tag, job.job_id, self._runtime.session_id), job)
        finally:
            self._journal.end_submission(entry.tag)

    def reattach(self, entry: JobEntry, deadline_s: float) -> SentJob | None:
        """The job of an earlier process, or None if the service does not have it.

        Raises:
            JobTroubleError: if the service cannot be asked.
            BackendFailedError: if another worker is still submitting it at the deadline.
        """
        if entry.job_id is None:
            entry = self._after_submission(entry, deadline_s)
        if entry.state == "failed":
            return None
        if entry.job_id is None:
            job = self._find(entry, deadline_s)
            if job is None:
                self._void(entry, "it never reached the service")
                return None
            entry = self._journal.submitted(entry.tag, job.job_id, self._ask(job.session_id, deadline_s))
        else:
            job_id = entry.job_id
            job = self._ask(lambda: self._runtime.job(job_id), deadline_s)
            if job is None:
                self._journal.failed(entry.tag, "the service does not know it any more")
                self._charges.settle(entry, None)
                return None
        logger.info("re-attached to job %s instead of sending it again", job.job_id)
        return SentJob(entry, job)

    def collect(self, sent: SentJob, deadline_s: float) -> list[UInt8[np.ndarray, "S N"]]:
        """Wait for a job and read its bits; after the deadline it is cancelled.

        Raises:
            JobTroubleError: if it ends without bits.
            BackendFailedError: if it is late.
        """
        interval_s = self._runtime.poll_interval_s
        while True:
            status = self._ask(sent.job.status, deadline_s)
            if status in FINAL_STATES:
                return self._read(sent, status, deadline_s)
            if self._timing.clock() >= deadline_s:
                return self._cancel(sent)
            self._timing.sleep(interval_s)
            interval_s = min(1.2 * interval_s, _LONGEST_POLL_S)

    def _after_submission(self, entry: JobEntry, deadline_s: float) -> JobEntry:
        """The entry once no living worker submits it any more; until then nobody can say whether it will arrive."""
        while self._journal.is_being_submitted(entry.tag):
            if self._timing.clock() >= deadline_s:
                raise BackendFailedError(
                    f"another worker is still submitting the job {entry.tag} to {entry.device}, and sending it again "
                    "might be paid twice; ask again later, or end that worker"
                )
            self._timing.sleep(_SUBMISSION_POLL_S)
        self._journal.refresh()
        return self._journal.entry(entry.tag) or entry

    def _reserve(self, entry: JobEntry, estimate_s: float) -> float | None:
        try:
            return self._budget.reserve(entry.tag, estimate_s)
        except BudgetExceededError:
            self._charges.reconcile(now=True)
        try:
            return self._budget.reserve(entry.tag, estimate_s)
        except BudgetExceededError:
            self._journal.failed(entry.tag, "the budget does not cover it")
            raise

    def _after_failed_submission(
        self, entry: JobEntry, error: Exception, failures: int, deadline_s: float
    ) -> DeviceJob | None:
        """The job, if it arrived after all; None to send it again."""
        rule = _rule_of(error)
        logger.warning("job %s was not accepted: %s (%s)", entry.tag, rule.name, rule.action.value)
        if not rule.was_refused:
            found = self._find(entry, deadline_s)
            if found is not None:
                return found
        trouble = JobTroubleError(rule, f"device {self._runtime.device_name} did not take a job: {error}", error)
        if rule.action not in (Action.RETRY, Action.WAIT) or failures >= _MAX_SUBMISSIONS:
            self._void(entry, rule.name)
            raise trouble from None
        self._pause(rule, failures, deadline_s, trouble, lambda: self._void(entry, rule.name))
        return None

    def _find(self, entry: JobEntry, deadline_s: float) -> DeviceJob | None:
        for pause in _LOOK_UP_PAUSES_S:
            self._timing.sleep(pause)
            jobs = self._ask(lambda: self._runtime.find(self._tags(entry)), deadline_s)
            if jobs:
                return jobs[0]
        return None

    def _read(self, sent: SentJob, status: str, deadline_s: float) -> list[UInt8[np.ndarray, "S N"]]:
        if status == "DONE":
            bits = self._ask(sent.job.bits, deadline_s)
            if sent.entry.state != "done":
                self._journal.done(sent.entry.tag, self._charges.settle(sent.entry, sent.job))
            return bits
        message = self._ask(sent.job.failure, deadline_s)
        rule = diagnose(symptom_of_job(status, message))
        self._charges.settle(sent.entry, sent.job)
        self._journal.failed(sent.entry.tag, redact(f"{rule.name}: {message}"))
        raise JobTroubleError(rule, f"job {sent.job.job_id} on {sent.entry.device} ended as {status}: {message}")

    def _cancel(self, sent: SentJob) -> list[UInt8[np.ndarray, "S N"]]:
        """Stop a late job; if it ended meanwhile, its bits are paid for and are taken."""
        logger.warning("job %s is past the deadline and is cancelled", sent.job.job_id)
        try:
            sent.job.cancel()
        except Exception as error:
            logger.warning("job %s could not be cancelled: %s", sent.job.job_id, error)
        patience_s = self._timing.clock() + _CANCEL_PATIENCE_S
        status = self._ask(sent.job.status, patience_s)
        while status not in FINAL_STATES and self._timing.clock() < patience_s:
            self._timing.sleep(max(self._runtime.poll_interval_s, 0.1))
            status = self._ask(sent.job.status, patience_s)
        if status == "DONE":
            return self._read(sent, status, patience_s)
        if status in FINAL_STATES:
            self._charges.settle(sent.entry, sent.job)
            self._journal.failed(sent.entry.tag, "cancelled at the deadline")
            ending = "was cancelled"
        else:
            ending = "could not be cancelled; asking again takes its bits up"
        raise BackendFailedError(
            f"job {sent.job.job_id} on {sent.entry.device} was not done at its deadline and {ending}; "
            "raise QPU_DEADLINE_SECONDS if the queue is that long"
        )

    def _void(self, entry: JobEntry, reason: str) -> None:
        self._budget.release(entry.tag)
        self._journal.failed(entry.tag, reason)

    def _tags(self, entry: JobEntry) -> list[str]:
        return [f"hdqnn-run-{self._journal.run_id}", f"hdqnn-request-{entry.tag}"]

    def _ask(self, question: Callable[[], _T], deadline_s: float) -> _T:
        """Ask the service something that changes nothing, again and again while that may help."""
        failures = 0
        while True:
            try:
                answer = question()
                self._breaker.answered()
                return answer
            except QPUError:
                raise
            except Exception as error:
                failures += 1
                self._breaker.failed()
                rule = _rule_of(error)
                trouble = JobTroubleError(rule, f"device {self._runtime.device_name} cannot be asked: {error}", error)
                if rule.action not in (Action.RETRY, Action.WAIT):
                    raise trouble from None
                self._pause(rule, failures, deadline_s, trouble)

    def _pause(
        self,
        rule: Rule,
        failures: int,
        deadline_s: float,
        trouble: JobTroubleError,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        seconds = pause_s(rule, failures, self._timing.draw)
        if self._timing.clock() + seconds > deadline_s:
            give_up()
            raise trouble from None
        self._breaker.pause(seconds)
        self._timing.sleep(seconds)


def _rule_of(error: Exception) -> Rule:
    return diagnose(symptom_of(error))
