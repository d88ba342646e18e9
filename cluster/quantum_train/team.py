"""A team of agents: who answers a call, in this process one after the other, or elsewhere all at once."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from actors.on_policy_agent import OnPolicyAgent, RolloutReport
from cluster.quantum_train.build import make_agent
from cluster.quantum_train.config import QuantumTrainRunConfig
from learner.quantum_train.optimiser import TrainingState


class Team(Protocol):
    """K agents. An agent that fails is missing from the answer; the next round finds it replaced."""

    @property
    def num_restarts(self) -> int:
        """Agents that were replaced so far."""
        ...

    def begin(self, vector: np.ndarray, seeds: Mapping[int, int]) -> dict[int, tuple[RolloutReport, np.ndarray]]:
        """A round of episodes by every agent with the same parameters, and their first gradients."""
        ...

    def gradients(self, vector: np.ndarray, agents: list[int]) -> dict[int, np.ndarray]:
        """Gradients of these agents' newest episodes."""
        ...

    def train(
        self,
        states: Mapping[int, TrainingState],
        seeds: Mapping[int, int],
        following: Sequence[Mapping[int, int]] = (),
    ) -> dict[int, tuple[RolloutReport, TrainingState]]:
        """A round of every agent on its own, from its own state.

        ``following`` has the seeds of the rounds that will come before the states are next mixed: agents may go on to
        them without waiting for each other.
        """
        ...

    def close(self) -> None:
        """End the agents; calling it twice is fine."""
        ...


class LocalTeam:
    """All agents in this process, one after the other: the same numbers every time."""

    num_restarts = 0

    def __init__(self, config: QuantumTrainRunConfig) -> None:
        self._agents: list[OnPolicyAgent] = [make_agent(config, agent_id) for agent_id in range(config.num_agents)]

    def begin(self, vector: np.ndarray, seeds: Mapping[int, int]) -> dict[int, tuple[RolloutReport, np.ndarray]]:
        """See Team."""
        return {agent_id: self._agents[agent_id].begin(vector, seed) for agent_id, seed in seeds.items()}

    def gradients(self, vector: np.ndarray, agents: list[int]) -> dict[int, np.ndarray]:
        """See Team."""
        return {agent_id: self._agents[agent_id].gradient(vector) for agent_id in agents}

    def train(
        self,
        states: Mapping[int, TrainingState],
        seeds: Mapping[int, int],
        following: Sequence[Mapping[int, int]] = (),
    ) -> dict[int, tuple[RolloutReport, TrainingState]]:
        """See Team; one after the other there is nobody to wait for."""
        del following
        return {agent_id: self._agents[agent_id].train(state, seeds[agent_id]) for agent_id, state in states.items()}

    def close(self) -> None:
        """See Team."""
        for agent in self._agents:
            agent.close()
