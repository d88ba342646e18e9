"""One on-policy agent: its environments, its policy, its way to a QPU. Whoever leads it holds all of its state.

The leader sends parameters with every call and gets parameters or gradients back, so an agent that dies takes nothing
with it. Must never know how agents are distributed.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from actors.episodes import run_episodes
from actors.tasks import Task
from learner.quantum_train.learner import OnPolicyLearner
from learner.quantum_train.optimiser import TrainingState, adam_step


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutReport:
    """What one agent's round was like."""

    returns: tuple[float, ...]
    """Return of every episode."""
    env_steps: int
    """Environment steps of all of them."""
    seconds: float
    """From the parameters' arrival to the end of the last episode."""


class OnPolicyAgent:
    """Collects episodes and learns from them.

    Args:
        tasks: its environments; one episode in each per round.
        learner: policy and gradients.
        observation_scale: factor on observations.
    """

    def __init__(self, tasks: Sequence[Task], learner: OnPolicyLearner, observation_scale: float = 1.0) -> None:
        self.learner = learner
        self._tasks = tasks
        self._observation_scale = observation_scale

    def collect(self, vector: Float32[np.ndarray, "P"], seed: int) -> RolloutReport:
        """One episode in every environment with these parameters; the weights are generated once.

        Args:
            vector: all trainable parameters.
            seed: of start states and actions.
        """
        started_s = time.monotonic()
        self.learner.load(vector)
        self.learner.policy.seek(seed)
        self.learner.fill()
        batch = run_episodes(
            self._tasks,
            self.learner.policy,
            seed=seed,
            explore=True,
            observation_scale=self._observation_scale,
        )
        self.learner.prepare(batch)
        return RolloutReport(
            returns=tuple(batch.episode_returns),
            env_steps=len(batch.rewards),
            seconds=time.monotonic() - started_s,
        )

    def begin(self, vector: Float32[np.ndarray, "P"], seed: int) -> tuple[RolloutReport, Float32[np.ndarray, "P"]]:
        """Collect, and the first gradient of the round: one call where two would wait for the slowest agent twice."""
        report = self.collect(vector, seed)
        return report, self.gradient(vector)

    def gradient(self, vector: Float32[np.ndarray, "P"]) -> Float32[np.ndarray, "P"]:
        """Gradient on the newest episodes at these parameters."""
        self.learner.load(vector)
        return self.learner.gradient()

    def train(self, state: TrainingState, seed: int) -> tuple[RolloutReport, TrainingState]:
        """A round on one's own: collect, then every epoch's step."""
        report = self.collect(state.vector, seed)
        rates = self.learner.learning_rates()
        for _ in range(self.learner.config.num_epochs):
            gradient = self.gradient(state.vector)
            if not gradient.any():
                break  # the policy has moved as far as one round may move it
            state = adam_step(state, self.learner.clip(gradient), rates)
        return report, state

    def close(self) -> None:
        """Close the environments."""
        for task in self._tasks:
            task.close()
