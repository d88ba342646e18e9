"""Budget of paid QPU time and jobs, kept in a file that outlives the process and is shared by all workers.

A job's estimated seconds are reserved before it is sent and replaced by what the service charged once that is known,
so the limit can be overrun by the jobs in flight at most. Must never let work start that it cannot pay for.
"""

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qpu_service.errors import BackendUnavailableError, BudgetExceededError


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLimits:
    """What may be spent; None means no limit."""

    seconds: float | None = None
    """QPU seconds."""
    jobs: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("seconds", "jobs"):
            limit = getattr(self, name)
            if limit is not None and not (limit >= 0 and math.isfinite(limit)):
                raise ValueError(f"a budget of {name} must be finite and 0 or more, got {limit}")


@dataclass(slots=True)
class Spending:
    """What was spent so far, as it is in the file."""

    spent_s: float = 0.0
    """Seconds that the service charged for ended jobs and for sessions."""
    jobs: int = 0
    """Jobs that were sent."""
    estimated_s: float = 0.0
    """Seconds that had been estimated for those ended jobs, before any correction."""
    reserved: dict[str, float] = field(default_factory=dict)
    """Estimated seconds of jobs that may be running, by tag."""
    uncorrected: dict[str, float] = field(default_factory=dict)
    """The same before correction."""
    sessions: dict[str, float] = field(default_factory=dict)
    """Seconds charged so far for sessions that are charged by the clock, by id; they are part of ``spent_s``."""

    @property
    def reserved_s(self) -> float:
        """Seconds of jobs whose charge is not known yet."""
        return sum(self.reserved.values())

    @property
    def committed_s(self) -> float:
        """Seconds that are charged or set aside."""
        return self.spent_s + self.reserved_s

    @property
    def correction(self) -> float:
        """Charged ÷ estimated so far; never below 1, so that a lucky start makes nobody careless."""
        return max(1.0, self.spent_s / self.estimated_s) if self.estimated_s > 0 else 1.0


class Budget:
    """Spending against limits.

    Args:
        directory: where ``budget.json`` lives; created if missing.
        limits: what may be spent in all, over every start.
    """

    def __init__(self, directory: Path, limits: BudgetLimits) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.limits = limits
        self._path = directory / "budget.json"
        self._lock_path = directory / "budget.lock"
        self.spending()

    def spending(self) -> Spending:
        """What was spent, by all workers.

        Raises:
            BackendUnavailableError: if the file is damaged.
        """
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return Spending()
        try:
            return Spending(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise BackendUnavailableError(
                f"the budget file {self._path} is damaged ({error}); look up what was spent at the service, then "
                "correct or delete the file"
            ) from error

    def left(self) -> tuple[float | None, int | None]:
        """QPU seconds and jobs that are still free; None without a limit, 0 if the file is damaged."""
        limits = self.limits
        if limits.seconds is None and limits.jobs is None:
            return None, None
        try:
            spending = self.spending()
        except BackendUnavailableError:
            # The next job will say so; whoever only looks is not stopped.
            return None if limits.seconds is None else 0.0, None if limits.jobs is None else 0
        return (
            None if limits.seconds is None else limits.seconds - spending.committed_s,
            None if limits.jobs is None else limits.jobs - spending.jobs,
        )

    def reserve(self, tag: str, estimate_s: float) -> float | None:
        """Set a job's seconds aside before it is sent.

        Args:
            tag: names the job; reserving it again changes nothing.
            estimate_s: seconds by the model; corrected here by what earlier jobs really took.

        Returns:
            Seconds that this job may take at most, reservations of other jobs left untouched; None without a limit.

        Raises:
            BudgetExceededError: if the job does not fit; nothing is reserved then.
        """
        with self._changing() as spending:
            if tag not in spending.reserved:
                corrected = estimate_s * spending.correction
                self._check(spending, corrected)
                spending.jobs += 1
                spending.reserved[tag] = corrected
                spending.uncorrected[tag] = estimate_s
            if self.limits.seconds is None:
                return None
            others = spending.reserved_s - spending.reserved[tag]
            return self.limits.seconds - spending.spent_s - others

    def settle(self, tag: str, usage_s: float | None) -> None:
        """Replace a reservation by what was charged; a job that is settled already stays as it is.

        Args:
            tag: names the job.
            usage_s: seconds charged; None if that will never be known, so that the reservation counts as spent.
        """
        with self._changing() as spending:
            if tag in spending.reserved:
                reserved_s = spending.reserved.pop(tag)
                uncorrected_s = spending.uncorrected.pop(tag)
                spending.spent_s += reserved_s if usage_s is None else usage_s
                if usage_s is not None:
                    spending.estimated_s += uncorrected_s

    def settle_session(self, session_id: str, total_s: float, tag: str | None = None) -> float:
        """Charge what a session has cost beyond what was charged for it already, whichever worker did that.

        Args:
            session_id: the session.
            total_s: seconds that it has cost since it began.
            tag: a job in it that has ended; its reservation is dropped, because its time is the session's.

        Returns:
            Seconds charged now.
        """
        with self._changing() as spending:
            before_s = spending.sessions.get(session_id, 0.0)
            charged_s = max(0.0, total_s - before_s)
            spending.sessions[session_id] = before_s + charged_s
            spending.spent_s += charged_s
            if tag in spending.reserved:
                del spending.reserved[tag]
                spending.estimated_s += spending.uncorrected.pop(tag)
            return charged_s

    def release(self, tag: str) -> None:
        """Give back the reservation of a job that was never sent."""
        with self._changing() as spending:
            if tag in spending.reserved:
                del spending.reserved[tag], spending.uncorrected[tag]
                spending.jobs -= 1

    def _check(self, spending: Spending, estimate_s: float) -> None:
        limits = self.limits
        if limits.jobs is not None and spending.jobs + 1 > limits.jobs:
            raise BudgetExceededError(
                f"the budget of {limits.jobs} QPU jobs is used up ({spending.jobs} sent); "
                "raise QPU_BUDGET_JOBS to go on"
            )
        if limits.seconds is not None and spending.committed_s + estimate_s > limits.seconds:
            raise BudgetExceededError(
                f"the next job needs about {estimate_s:.1f} QPU seconds, but of the budget of {limits.seconds:g} s "
                f"{spending.spent_s:.1f} s are spent and {spending.reserved_s:.1f} s set aside for jobs in flight; "
                "raise QPU_BUDGET_SECONDS to go on"
            )

    @contextmanager
    def _changing(self) -> Iterator[Spending]:
        """Read, change, write, while no other worker can."""
        with self._lock_path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            spending = self.spending()
            yield spending
            _write_atomically(self._path, asdict(spending))


def _write_atomically(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
