"""The training of K agents as arithmetic: what one round does to their states, whoever the team is."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from actors.on_policy_agent import RolloutReport
from cluster.errors import RunFailedError
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.quantum_train.team import Team
from cluster.seeding import Stream, derive_seed
from learner.quantum_train.learner import OnPolicyLearner
from learner.quantum_train.optimiser import TrainingState, adam_step, average_states, initial_state


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round of the team."""

    agents: dict[int, RolloutReport]
    """By agent; one that failed is missing."""
    gradient_norm: float | None
    """Of the policy's averaged gradient at the round's last step; None where agents step on their own."""


class TeamTraining:
    """States of the agents and the rounds that change them.

    With ``gradients`` there is one state, shared by all; else one per agent.

    Args:
        config: the run's configuration.
        learner: of the leading process; its present parameters are everybody's start.
    """

    def __init__(self, config: QuantumTrainRunConfig, learner: OnPolicyLearner) -> None:
        self._config, self._learner = config, learner
        num_states = 1 if config.sharing == "gradients" else config.num_agents
        self.states: list[TrainingState] = [initial_state(learner.vector())] * num_states
        self.round = 0
        self._rates = learner.learning_rates()
        self._is_shared = ~learner.mask("policy.weights.mapping") if config.sharing == "federated" else learner.mask("")
        self._of_policy = learner.mask("policy.")

    def run_round(self, team: Team) -> RoundReport:
        """Episodes by every agent, then learning from them.

        Raises:
            RunFailedError: if no agent answered.
        """
        report = (
            self._share_gradients(team, self._seeds(self.round))
            if self._config.sharing == "gradients"
            else self._share_parameters(team, self._seeds(self.round))
        )
        self.round += 1
        return report

    def policies(self) -> list[np.ndarray]:
        """Parameters that differ: the shared ones, or every agent's own in a federation."""
        if self._config.sharing == "federated":
            return [state.vector for state in self.states]
        return [_mean([state.vector for state in self.states])]

    def _seeds(self, number: int) -> dict[int, int]:
        """Of every agent's episodes in a round."""
        return {
            agent_id: derive_seed(self._config.seed, Stream.AGENT_EPISODES, agent_id, number)
            for agent_id in range(self._config.num_agents)
        }

    def _share_gradients(self, team: Team, seeds: dict[int, int]) -> RoundReport:
        answers = team.begin(self.states[0].vector, seeds)
        answering = _somebody(sorted(answers))
        gradients = {agent_id: gradient for agent_id, (_, gradient) in answers.items()}
        norm = 0.0
        for epoch in range(self._config.learning.num_epochs):
            if epoch > 0:
                gradients = team.gradients(self.states[0].vector, answering)
                answering = _somebody(sorted(gradients))
            gradient = self._learner.clip(_mean([gradients[agent_id] for agent_id in answering]))
            if not gradient.any():
                break  # the policy has moved as far as one round may move it
            norm = float(np.linalg.norm(gradient[self._of_policy]))
            self.states[0] = adam_step(self.states[0], gradient, self._rates)
        return RoundReport({agent_id: report for agent_id, (report, _) in answers.items()}, norm)

    def _share_parameters(self, team: Team, seeds: dict[int, int]) -> RoundReport:
        period = self._config.sync_period_rounds
        to_sync = period - 1 - self.round % period
        following = [self._seeds(self.round + number) for number in range(1, to_sync + 1)]
        answers = team.train(dict(enumerate(self.states)), seeds, following)
        answering = _somebody(sorted(answers))
        for agent_id in answering:
            self.states[agent_id] = answers[agent_id][1]
        if to_sync == 0:
            averaged = average_states([self.states[agent_id] for agent_id in answering], self._is_shared)
            for agent_id, state in zip(answering, averaged, strict=True):
                self.states[agent_id] = state
            # Whoever missed the round joins the others where they are, with what it keeps to itself.
            for agent_id in set(range(len(self.states))) - set(answering):
                own = self.states[agent_id]
                vector = np.where(self._is_shared, averaged[0].vector, own.vector)
                self.states[agent_id] = dataclasses.replace(own, vector=vector)
        return RoundReport({agent_id: answers[agent_id][0] for agent_id in answering}, None)


def _mean(vectors: list[np.ndarray]) -> Float32[np.ndarray, "P"]:
    mean = np.asarray(np.mean(np.stack(vectors), axis=0, dtype=np.float64))
    return mean.astype(np.float32)


def _somebody(answering: list[int]) -> list[int]:
    if not answering:
        raise RunFailedError(
            "no agent answered in this round; their causes are logged above. Mend them and go on with `hdqnn resume`"
        )
    return answering
