"""Takes what the service charged into the budget; charges come late, and for jobs that nobody asks about any more."""

import logging

from qpu_service.budget import Budget
from qpu_service.ibm.interfaces import FINAL_STATES, DeviceJob, Runtime
from qpu_service.ibm.trouble import Timing
from qpu_service.job_journal import JobEntry, JobJournal

logger = logging.getLogger(__name__)

_PERIOD_S = 60.0


class Charges:
    """Charges of the jobs of one runtime; arguments as of JobRunner."""

    def __init__(self, runtime: Runtime, journal: JobJournal, budget: Budget, timing: Timing) -> None:
        self._runtime = runtime
        self._journal = journal
        self._budget = budget
        self._timing = timing
        self._next_reconciliation_s = timing.clock()

    def reconcile(self, *, now: bool = False) -> None:
        """Charge what has ended meanwhile: usage comes late, and some jobs are never asked for again.

        Args:
            now: do it even if it was done a moment ago.
        """
        if not self._runtime.is_billed or not (now or self._timing.clock() >= self._next_reconciliation_s):
            return
        self._next_reconciliation_s = self._timing.clock() + _PERIOD_S
        self._journal.refresh()
        for tag in self._budget.spending().reserved:
            entry = self._journal.entry(tag)
            if entry is None:
                self._budget.settle(tag, None)  # forgotten long ago, so long over
            elif entry.job_id is not None:
                try:
                    job = self._runtime.job(entry.job_id)
                    if job is None or job.status() in FINAL_STATES:
                        self.settle(entry, job)
                except Exception as error:
                    logger.info("usage of job %s is not known yet: %s", entry.job_id, error)
        self.charge_session(self._runtime.session_id)

    def settle(self, entry: JobEntry, job: DeviceJob | None) -> float | None:
        """Charge what the service charged, if it knows; returns it. Without the job, its estimate counts as spent.

        A job in a session is charged what the session has cost since it was charged last.
        """
        try:
            total_s = self._runtime.session_usage_s(entry.session_id)
            if entry.session_id is not None and total_s is not None:
                return self._budget.settle_session(entry.session_id, total_s, entry.tag)
            usage_s = None if job is None else job.usage_s()
        except Exception as error:
            logger.info("usage of job %s is not known yet: %s", entry.job_id, error)
            return None
        if job is None or usage_s is not None:
            self._budget.settle(entry.tag, usage_s)
        return usage_s

    def charge_session(self, session_id: str | None) -> None:
        """Charge what a session has cost, also while no job ran in it; nothing for None and for batches."""
        try:
            total_s = self._runtime.session_usage_s(session_id)
            if session_id is not None and total_s is not None:
                self._budget.settle_session(session_id, total_s)
        except Exception as error:
            logger.info("usage of session %s is not known yet: %s", session_id, error)
