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

    def settle(self, entry: JobEntry, job: DeviceJob | None) -> float | None:
        """Charge what the service charged, if it knows; returns it. Without the job, its estimate counts as spent."""
        if job is None:
            self._budget.settle(entry.tag, None)
            return None
        try:
            usage_s = self._session_share_s(entry)
            usage_s = job.usage_s() if usage_s is None else usage_s
        except Exception as error:
            logger.info("usage of job %s is not known yet: %s", job.job_id, error)
            return None
        if usage_s is not None:
            self._budget.settle(entry.tag, usage_s)
        return usage_s

    def _session_share_s(self, entry: JobEntry) -> float | None:
        """What a session has cost since its earlier jobs were charged; None outside sessions."""
        total_s = self._runtime.session_usage_s(entry.session_id)
        if total_s is None:
            return None
        charged = (job.usage_s or 0.0 for job in self._journal.jobs if job.session_id == entry.session_id)
        return max(0.0, total_s - sum(charged))
