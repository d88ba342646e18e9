"""Where a run's time goes: shares of the actors' and of the learner's time."""

import time
from collections.abc import Sequence

from cluster.rollout_worker import ActorReport


class Timings:
    """What the reports of actors and the learner's turns add up to."""

    def __init__(self) -> None:
        self._busy_s = self._blocked_s = 0.0
        self._learn_s = 0.0
        self._started_s = time.monotonic()
        self._is_idle = False

    @property
    def waiting(self) -> str:
        """Who waits for whom."""
        if self._is_idle:
            return "learner waits for actors"
        return "actors wait for the learner" if self._blocked_s > self._busy_s else ""

    def add(self, reports: Sequence[ActorReport]) -> None:
        """Reports of actors."""
        for report in reports:
            self._busy_s = 0.9 * self._busy_s + 0.1 * report.busy_s
            self._blocked_s = 0.9 * self._blocked_s + 0.1 * report.blocked_s

    def learned(self, seconds: float, *, is_idle: bool) -> None:
        """Time spent in updates."""
        self._learn_s += seconds
        self._is_idle = is_idle

    def row(self, num_restarts: int) -> dict[str, float]:
        """Values for a row of metrics."""
        total = self._busy_s + self._blocked_s
        return {
            "time/learner_busy_share": self._learn_s / max(time.monotonic() - self._started_s, 1e-9),
            "time/actor_busy_share": self._busy_s / total if total else 0.0,
            "time/actor_restarts": float(num_restarts),
        }
