"""One run of K agents from its first round to its last: counters, test rounds, rows, checkpoints, progress."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from actors.episodes import run_episodes
from actors.tasks import Task
from cluster.checkpoint import Checkpoint, save_checkpoint
from cluster.metrics import MetricsWriter
from cluster.progress import Progress, Status
from cluster.quantum_train.build import LEADER, make_learner, task_spec
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.quantum_train.team import Team
from cluster.quantum_train.training import RoundReport, TeamTraining
from cluster.run_directory import RunDirectory
from cluster.seeding import Stream, derive_seed
from learner.quantum_train.learner import OnPolicyLearner
from learner.quantum_train.optimiser import TrainingState

_log = logging.getLogger(__name__)
_STATE_ARRAYS = ("vector", "first_moment", "second_moment")


@dataclass(slots=True)
class Counters:
    """Clocks of a run."""

    env_step: int = 0
    """Environment steps of all agents."""
    episodes: int = 0
    """Training episodes of all agents."""
    update_step: int = 0
    """Steps of the optimiser."""


class TeamSession:
    """Training of K agents, looked after.

    Args:
        config: the run's configuration.
        run: where it is kept.
        team: the agents.
        metrics: writes rows.
        progress: tells a person.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: QuantumTrainRunConfig,
        run: RunDirectory,
        *,
        team: Team,
        metrics: MetricsWriter,
        progress: Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.run = config, run
        self.counters = Counters()
        self.test_returns: list[float] = []
        self.learner = make_learner(config, task_spec(config), LEADER)
        self.training = TeamTraining(config, self.learner)
        self._team, self._metrics, self._progress, self._clock = team, metrics, progress, clock
        self._recent: deque[float] = deque(maxlen=100)
        self._tested_round = -1
        self._last_save_s = self._started_s = clock()
        self._next_save = config.checkpoint.period_steps

    @property
    def is_done(self) -> bool:
        """Whether enough steps or rounds were made, or the return asked for was reached twice in a row."""
        goal = self.config.stop_return
        reached = goal is not None and len(self.test_returns) >= 2 and min(self.test_returns[-2:]) >= goal
        is_last = self.config.total_rounds is not None and self.training.round >= self.config.total_rounds
        return reached or is_last or self.counters.env_step >= self.config.total_steps

    def train(self, should_stop: Callable[[], bool]) -> None:
        """Rounds until the run is done, or somebody asks to stop; saves at the end.

        Raises:
            RunFailedError: if no agent answers any more.
        """
        while not self.is_done and not should_stop():
            started_s = self._clock()
            report = self.training.run_round(self._team)
            self._count(report)
            if self.training.round % self.config.tests.period_rounds == 0:
                self._test()
            self._write_row(report, self._clock() - started_s)
            self._tell()
            if self._save_is_due():
                self.save()
        if self.is_done and self._tested_round != self.training.round:
            self._test()
        self.save()

    def save(self) -> None:
        """Write a checkpoint; a full disk is reported and training goes on."""
        tensors: dict[str, torch.Tensor] = {}
        for index, state in enumerate(self.training.states):
            for name in _STATE_ARRAYS:
                tensors[f"{index}.{name}"] = torch.from_numpy(np.array(getattr(state, name)))
        self.learner.load(self.training.policies()[0])
        self.learner.policy.fill()
        scalars: dict[str, Any] = {
            "env_step": self.counters.env_step,
            "total_steps": self.config.total_steps,
            "episodes": self.counters.episodes,
            "update_step": self.counters.update_step,
            "round": self.training.round,
            "num_steps": [state.num_steps for state in self.training.states],
            "tested_round": self._tested_round,
            "test_returns": self.test_returns[-2:],
            "recent": list(self._recent),
        }
        groups = {"agents": tensors, "policy": self.learner.policy.export()}
        try:
            save_checkpoint(self.run.checkpoints, self.counters.env_step, groups, scalars, self.config.checkpoint.keep)
        except OSError as error:
            _log.error("checkpoint at step %d failed (%s); older ones are kept", self.counters.env_step, error)
        self._last_save_s = self._clock()
        period = self.config.checkpoint.period_steps
        self._next_save = None if period is None else (self.counters.env_step // period + 1) * period

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on where a checkpoint was written."""
        saved, tensors = checkpoint.scalars, checkpoint.tensors["agents"]
        self.training.states = load_states(tensors, saved["num_steps"])
        self.training.round = int(saved["round"])
        self.counters = Counters(int(saved["env_step"]), int(saved["episodes"]), int(saved["update_step"]))
        self._tested_round = int(saved["tested_round"])
        # Whoever makes a run longer does not want it to end at once: its goal counts anew.
        is_longer = saved["total_steps"] != self.config.total_steps
        self.test_returns = [] if is_longer else [float(value) for value in saved["test_returns"]]
        self._recent.extend(float(value) for value in saved["recent"])
        period = self.config.checkpoint.period_steps
        self._next_save = None if period is None else (self.counters.env_step // period + 1) * period

    def close(self) -> None:
        """Close the files of rows."""
        self._metrics.close()

    def _count(self, report: RoundReport) -> None:
        for agent in report.agents.values():
            self.counters.env_step += agent.env_steps
            self.counters.episodes += len(agent.returns)
            self._recent.extend(agent.returns)
        self.counters.update_step += self.config.learning.num_epochs

    def _test(self) -> None:
        self._tested_round = self.training.round
        returns = run_test_round(
            self.config, self.learner, self.training.policies(), self.config.tests.num_episodes, self.config.seed
        )
        mean = float(np.mean(returns))
        self.test_returns.append(mean)
        step = self.counters.env_step
        self._metrics.evaluation(
            env_step=step, update_step=self.counters.update_step, version=self.training.round, returns=returns
        )
        self._progress.say(
            f"test round at step {step:,} (round {self.training.round}): mean return {mean:.2f} over {len(returns)} "
            f"episodes (lowest {min(returns):.2f}, highest {max(returns):.2f})"
        )

    def _write_row(self, report: RoundReport, seconds: float) -> None:
        returns = [value for agent in report.agents.values() for value in agent.returns]
        values: dict[str, float] = {
            "rollout/episode_return": float(np.mean(returns)),
            "team/round": float(self.training.round),
            "team/episodes": float(self.counters.episodes),
            "team/answering": float(len(report.agents)),
            **{f"agent/{number}/episode_return": float(np.mean(a.returns)) for number, a in report.agents.items()},
        }
        if report.gradient_norm is not None:
            values["learner/gradient_norm"] = report.gradient_norm
        values["time/elapsed_s"] = self._clock() - self._started_s
        values["time/round_s"] = seconds
        values["time/env_steps_per_s"] = sum(a.env_steps for a in report.agents.values()) / max(seconds, 1e-9)
        values["time/agent_restarts"] = float(self._team.num_restarts)
        self._metrics.metrics(env_step=self.counters.env_step, update_step=self.counters.update_step, values=values)

    def _tell(self) -> None:
        recent = list(self._recent)[-10:]
        self._progress.update(
            Status(
                env_step=self.counters.env_step,
                total_steps=self.config.total_steps,
                update_step=self.counters.update_step,
                training_return=float(np.mean(recent)) if recent else None,
                evaluation_return=self.test_returns[-1] if self.test_returns else None,
            )
        )

    def _save_is_due(self) -> bool:
        if self._next_save is not None:
            return self.counters.env_step >= self._next_save
        return self._clock() - self._last_save_s >= self.config.checkpoint.period_s


def load_states(tensors: Mapping[str, torch.Tensor], num_steps: Sequence[int]) -> list[TrainingState]:
    """States of the agents in a checkpoint."""
    return [
        TrainingState(**{name: tensors[f"{i}.{name}"].numpy() for name in _STATE_ARRAYS}, num_steps=int(count))
        for i, count in enumerate(num_steps)
    ]


def run_test_round(
    config: QuantumTrainRunConfig, learner: OnPolicyLearner, policies: Sequence[np.ndarray], episodes: int, seed: int
) -> list[float]:
    """Returns of test episodes with the most probable actions, dealt out evenly over policies that differ.

    Args:
        config: task.
        learner: gets the parameters; one generation per policy.
        policies: parameters, as of ``TeamTraining.policies``.
        episodes: how many in all; at least one per policy.
        seed: run's seed, from which start states derive.
    """
    share = max(1, -(-episodes // len(policies)))
    tasks = [Task(config.env_id, config.num_actions) for _ in range(share)]
    returns: list[float] = []
    try:
        for index, vector in enumerate(policies):
            learner.load(vector)
            learner.policy.seek(derive_seed(seed, Stream.EVALUATION_CIRCUITS, index))
            learner.policy.fill()
            batch = run_episodes(
                tasks,
                learner.policy,
                seed=derive_seed(seed, Stream.EVALUATION_EPISODES, index),
                explore=config.tests.explore,
                observation_scale=config.observation_scale,
            )
            returns += batch.episode_returns
    finally:
        for task in tasks:
            task.close()
    return returns
