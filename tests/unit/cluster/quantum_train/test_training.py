"""What a round does to the agents' states: sharing of gradients and parameters, federations, failing agents."""

import numpy as np
import pytest

from actors.on_policy_agent import RolloutReport
from cluster.errors import RunFailedError
from cluster.quantum_train.build import LEADER, make_learner, task_spec
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.quantum_train.team import LocalTeam
from cluster.quantum_train.training import TeamTraining
from learner.quantum_train.config import GeneratorConfig, LearningConfig
from learner.quantum_train.optimiser import TrainingState, adam_step

SMALL = GeneratorConfig(depth=1, mapping_hidden=(4,))


def config_of(**fields):
    return QuantumTrainRunConfig(
        **{"hidden_sizes": (8,), "episodes_per_round": 2, "generator": SMALL, "synchronous": True, **fields}
    )


def training_of(config):
    learner = make_learner(config, task_spec(config), LEADER)
    return TeamTraining(config, learner), learner


class ScriptedTeam:
    """Agents whose gradients and steps are known; ``silent`` ones never answer."""

    num_restarts = 0

    def __init__(self, size, silent=()):
        self.size, self.silent, self.seeds, self.following = size, set(silent), [], []

    def begin(self, vector, seeds):
        self.seeds.append(dict(seeds))
        report = RolloutReport(returns=(1.0,), env_steps=1, seconds=0.1)
        answering = [i for i in seeds if i not in self.silent]
        return {i: (report, gradient) for i, gradient in self.gradients(vector, answering).items()}

    def gradients(self, vector, agents):
        return {i: np.full(self.size, i + 1.0, np.float32) for i in agents}

    def train(self, states, seeds, following=()):
        self.seeds.append(dict(seeds))
        self.following.append([dict(later) for later in following])
        report = RolloutReport(returns=(1.0,), env_steps=1, seconds=0.1)
        return {
            i: (report, TrainingState(**{**fields_of(state), "vector": state.vector + (i + 1)}))
            for i, state in states.items()
            if i not in self.silent
        }

    def close(self):
        pass


def fields_of(state):
    return {name: getattr(state, name) for name in ("vector", "first_moment", "second_moment", "num_steps")}


def test_gradients_are_averaged_over_those_who_answer():
    training, learner = training_of(config_of(num_agents=4, learning=LearningConfig(num_epochs=2)))
    start = training.states[0]
    expected = start
    for _ in range(2):
        expected = adam_step(expected, np.full(len(start.vector), 2.0, np.float32), learner.learning_rates())
    report = training.run_round(ScriptedTeam(len(start.vector), silent=[3]))
    assert sorted(report.agents) == [0, 1, 2]
    np.testing.assert_allclose(training.states[0].vector, expected.vector)
    assert training.round == 1


@pytest.mark.parametrize("period", [1, 2])
def test_parameters_are_averaged_every_so_many_rounds(period):
    training, _ = training_of(config_of(num_agents=2, sharing="parameters", sync_period_rounds=period))
    start = training.states[0].vector
    team = ScriptedTeam(len(start))
    training.run_round(team)
    after_one = [float((state.vector - start).mean()) for state in training.states]
    assert after_one == pytest.approx([1.5, 1.5] if period == 1 else [1, 2], abs=1e-5)
    training.run_round(team)
    assert [float((state.vector - start).mean()) for state in training.states] == pytest.approx([3, 3], abs=1e-5)


def test_agents_are_told_the_seeds_of_the_rounds_until_the_next_average():
    training, _ = training_of(config_of(num_agents=2, sharing="parameters", sync_period_rounds=3))
    team = ScriptedTeam(len(training.states[0].vector))
    for _ in range(6):
        training.run_round(team)
    assert [len(later) for later in team.following] == [2, 1, 0, 2, 1, 0]
    for number, later in enumerate(team.following):
        assert later == team.seeds[number + 1 : number + 1 + len(later)]


def test_a_federation_keeps_mapping_models_local():
    training, learner = training_of(config_of(num_agents=2, sharing="federated"))
    start, mapping = training.states[0].vector, learner.mask("policy.weights.mapping")
    training.run_round(ScriptedTeam(len(start)))
    first, second = (state.vector - start for state in training.states)
    np.testing.assert_allclose(first[~mapping], 1.5, atol=1e-5)
    np.testing.assert_allclose(second[~mapping], 1.5, atol=1e-5)
    np.testing.assert_allclose(first[mapping], 1, atol=1e-5)
    np.testing.assert_allclose(second[mapping], 2, atol=1e-5)
    assert len(training.policies()) == 2


def test_an_agent_that_missed_the_round_takes_the_average():
    training, _ = training_of(config_of(num_agents=3, sharing="parameters"))
    start = training.states[0].vector
    report = training.run_round(ScriptedTeam(len(start), silent=[2]))
    assert sorted(report.agents) == [0, 1]
    for state in training.states:
        np.testing.assert_allclose(state.vector - start, 1.5, atol=1e-5)


def test_a_round_without_answers_ends_the_run():
    training, _ = training_of(config_of(num_agents=2))
    with pytest.raises(RunFailedError, match="no agent answered"):
        training.run_round(ScriptedTeam(len(training.states[0].vector), silent=[0, 1]))


def test_every_agent_and_round_has_its_own_seed():
    training, _ = training_of(config_of(num_agents=3))
    team = ScriptedTeam(len(training.states[0].vector))
    for _ in range(3):
        training.run_round(team)
    seeds = [seed for row in team.seeds for seed in row.values()]
    assert len(set(seeds)) == 9


@pytest.mark.parametrize("sharing", ["gradients", "parameters", "federated"])
def test_one_agent_is_centralised_training_whatever_is_shared(sharing):
    config = config_of(num_agents=1, sharing=sharing, learning=LearningConfig(num_epochs=2))
    training, _ = training_of(config)
    reference, _ = training_of(config_of(num_agents=1, learning=LearningConfig(num_epochs=2)))
    for one in (training, reference):
        team = LocalTeam(config)
        one.run_round(team)
        one.run_round(team)
        team.close()
    np.testing.assert_allclose(training.policies()[0], reference.policies()[0], atol=1e-6)


def test_two_agents_with_averaged_gradients_see_different_episodes():
    config = config_of(num_agents=2)
    training, _ = training_of(config)
    team = LocalTeam(config)
    report = training.run_round(team)
    assert report.agents[0].returns != report.agents[1].returns
    gradients = team.gradients(training.states[0].vector, [0, 1])
    assert not np.array_equal(gradients[0], gradients[1])
    team.close()
