"""The test rounds of a run as its learner sees them: asked for, told, written, and when the goal was reached."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cluster.metrics import MetricsWriter
from cluster.progress import Progress
from cluster.rounds import TestRunner
from learner.parameters import VersionedParameters


class RoundLog:
    """Counts and tells test rounds.

    Args:
        runner: runs them.
        goal: mean return that two rounds in a row must reach; None for no goal.
        metrics: writes them.
        progress: tells a person.
    """

    def __init__(self, runner: TestRunner, goal: float | None, metrics: MetricsWriter, progress: Progress) -> None:
        self._runner, self._goal, self._metrics, self._progress = runner, goal, metrics, progress
        self.returns: list[float] = []
        """Mean returns so far, the last two of those before a resume."""
        self.num_under_way = 0
        """Asked for and neither finished nor left out."""
        self.is_goal_reached = False
        """Stays so, whatever rounds that were under way then say."""
        self._tested_update, self._num_left_out = -1, 0

    def has_tested(self, update_step: int) -> bool:
        """Whether the newest round is of these parameters."""
        return self._tested_update == update_step

    def request(self, parameters: VersionedParameters) -> None:
        """Ask for a round."""
        self._tested_update = parameters.update_step
        left_out = self._runner.request(parameters)
        self.num_under_way += 1 - len(left_out)
        self._num_left_out += len(left_out)
        for one in left_out:
            self._progress.say(
                f"test round at step {one.env_step:,} left out: rounds take longer than the steps between them "
                "(evaluation.period_steps)"
            )

    def collect(self) -> None:
        """Take the rounds that have finished."""
        for test in self._runner.collect():
            parameters = test.parameters
            self.num_under_way -= 1
            self.returns.append(float(np.mean(test.returns)))
            if self._goal is not None and len(self.returns) >= 2 and min(self.returns[-2:]) >= self._goal:
                self.is_goal_reached = True
            self._metrics.evaluation(
                env_step=parameters.env_step,
                update_step=parameters.update_step,
                version=parameters.version,
                returns=test.returns,
            )
            self._progress.say(
                f"test round at step {parameters.env_step:,}: mean return {self.returns[-1]:.1f} over "
                f"{len(test.returns)} episodes (lowest {min(test.returns):.1f}, highest {max(test.returns):.1f})"
            )

    def row(self) -> dict[str, float]:
        """Values for a row of metrics; empty while every round was run."""
        return {"evaluation/left_out": float(self._num_left_out)} if self._num_left_out else {}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            # A round under way is lost with its process, so it does not count.
            "tested_update": -1 if self.num_under_way else self._tested_update,
            "test_returns": self.returns[-2:],
            "is_goal_reached": self.is_goal_reached,
        }

    def restore(self, state: Mapping[str, Any], *, goal_counts_anew: bool) -> None:
        """Go on from what ``state`` returned; the rounds before count for the goal or not."""
        self._tested_update = int(state["tested_update"])
        self.returns = [] if goal_counts_anew else [float(value) for value in state["test_returns"]]
        self.is_goal_reached = bool(state["is_goal_reached"]) and not goal_counts_anew
