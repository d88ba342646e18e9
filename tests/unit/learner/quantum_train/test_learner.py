"""Objectives against hand-made numbers, Adam against torch's, averages of states."""

import dataclasses

import numpy as np
import pytest
import torch

from learner.errors import LearnerDivergedError
from learner.quantum_train.config import GeneratorConfig, LearningConfig, PolicyShape
from learner.quantum_train.learner import OnPolicyLearner
from learner.quantum_train.objectives import (
    EpisodeBatch,
    generalised_advantages,
    ppo_loss,
    standardised_returns,
)
from learner.quantum_train.optimiser import adam_step, average_states, initial_state
from learner.quantum_train.policy import Policy, entropy, log_probability

SHAPE = PolicyShape(observation_size=3, num_outputs=2, is_discrete=True, hidden_sizes=(4,))
CONTINUOUS = PolicyShape(
    observation_size=3,
    num_outputs=2,
    is_discrete=False,
    hidden_sizes=(4,),
    action_low=(-1.0, -1.0),
    action_high=(1.0, 1.0),
)


def episodes(rewards, lengths, is_terminated, *, is_discrete=True):
    count = sum(lengths)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 2, count) if is_discrete else rng.normal(size=(count, 2)).astype(np.float32)
    return EpisodeBatch(
        observations=rng.normal(size=(count, 3)).astype(np.float32),
        actions=actions,
        log_probabilities=np.full(count, -0.7, np.float32),
        rewards=np.array(rewards, np.float32),
        lengths=np.array(lengths),
        is_terminated=np.array(is_terminated),
        last_observations=rng.normal(size=(len(lengths), 3)).astype(np.float32),
    )


def learner(algorithm="ppo", shape=SHAPE, parametrisation="quantum_train", **fields):
    policy = Policy(shape, GeneratorConfig(depth=1, mapping_hidden=(4,)), parametrisation, seed=0)
    return OnPolicyLearner(policy, LearningConfig(algorithm=algorithm, **fields), seed=0)


def test_returns_are_standardised_within_each_episode():
    weights = standardised_returns(episodes([1, 2, 5, 1, 1], [2, 1, 2], [True, True, False]), 0.5)
    returns = np.array([2.0, 2.0])  # 1 + 0.5·2, 2: equal, so no spread
    assert returns.std() == 0
    np.testing.assert_allclose(weights, [0, 0, 0, 1, -1], atol=1e-6)


def test_a_truncated_episode_is_bootstrapped_and_a_terminated_one_is_not():
    batch = episodes([1, 1, 1, 1], [2, 2], [True, False])
    values, last = np.array([0.5, 0.25, 0.5, 0.25], np.float32), np.array([10.0, 2.0], np.float32)
    advantages, targets = generalised_advantages(batch, values, last, 0.5, 0.5)
    ended, cut = 1 - 0.25, 1 + 0.5 * 2 - 0.25
    first = 1 + 0.5 * 0.25 - 0.5
    np.testing.assert_allclose(advantages, [first + 0.25 * ended, ended, first + 0.25 * cut, cut])
    np.testing.assert_allclose(targets, advantages + values)


def test_ppo_is_clipped_only_where_it_would_gain():
    old = torch.zeros(4)
    new = torch.log(torch.tensor([1.5, 1.5, 0.5, 0.5]))
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    expected = -(1.2 - 1.5 + 0.5 - 0.8) / 4
    assert float(ppo_loss(new, old, advantage, 0.2)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [SHAPE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("algorithm", ["reinforce", "ppo"])
@pytest.mark.parametrize("parametrisation", ["quantum_train", "classical"])
def test_a_step_downhill_lowers_the_loss_of_its_episodes(shape, algorithm, parametrisation):
    own = learner(algorithm, shape, parametrisation, circuit_learning_rate=1e-4, mapping_learning_rate=1e-4)
    batch = episodes([1, 0, 2, 0, 1, 3], [3, 3], [True, False], is_discrete=shape.is_discrete)
    with torch.no_grad():
        outputs = own.policy.outputs(own.policy.generate(), torch.from_numpy(batch.observations))
        chosen = log_probability(own.policy, outputs, torch.from_numpy(batch.actions)).numpy()
    own.prepare(dataclasses.replace(batch, log_probabilities=chosen))
    before, vector = own_objective(own), own.vector()
    own.load(adam_step(initial_state(vector), own.gradient(), own.learning_rates()).vector)
    assert own_objective(own) < before


def own_objective(own):
    data = own._tensors
    outputs = own.policy.outputs(own.policy.generate(), data["observations"])
    return -float((log_probability(own.policy, outputs, data["actions"]) * data["weights"]).mean().detach())


def test_log_probability_and_entropy_are_those_of_torch():
    discrete, continuous = learner(shape=SHAPE).policy, learner(shape=CONTINUOUS).policy
    outputs = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    categorical = torch.distributions.Categorical(logits=outputs)
    actions = torch.tensor([0, 1, 1, 0, 1])
    torch.testing.assert_close(log_probability(discrete, outputs, actions), categorical.log_prob(actions))
    torch.testing.assert_close(entropy(discrete, outputs), categorical.entropy())
    normal = torch.distributions.Normal(outputs, continuous.log_std.exp())
    torch.testing.assert_close(
        log_probability(continuous, outputs, outputs + 0.3), normal.log_prob(outputs + 0.3).sum(1)
    )
    torch.testing.assert_close(entropy(continuous, outputs), normal.entropy().sum(1))


def test_adam_is_torchs():
    rng = np.random.default_rng(0)
    vector = rng.normal(size=7).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(vector.copy()))
    optimizer = torch.optim.Adam([theirs], lr=1e-2)
    state = initial_state(vector)
    for _ in range(5):
        gradient = rng.normal(size=7).astype(np.float32)
        theirs.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        state = adam_step(state, gradient, np.full(7, 1e-2, np.float32))
    np.testing.assert_allclose(state.vector, theirs.detach().numpy(), rtol=1e-5)


def test_averaging_leaves_what_is_not_shared():
    states = [initial_state(np.array([float(i), 10.0 * i], np.float32)) for i in (1, 3)]
    first, second = average_states(states, np.array([True, False]))
    np.testing.assert_array_equal(first.vector, [2, 10])
    np.testing.assert_array_equal(second.vector, [2, 30])


def test_masks_name_the_parts():
    own = learner()
    angles, mapping, value = (own.mask(p) for p in ("policy.weights.angles", "policy.weights.mapping", "value."))
    assert angles.sum() == own.policy.weights.angles.numel()
    assert (angles.astype(int) + mapping + value == 1).all()
    rates = learner(circuit_learning_rate=1.0, mapping_learning_rate=2.0, value_learning_rate=3.0).learning_rates()
    assert set(rates[angles]) == {1}
    assert set(rates[mapping]) == {2}
    assert set(rates[value]) == {3}


def test_clipping_scales_the_policys_part_alone():
    own = learner(max_gradient_norm=1.0)
    gradient = np.ones(len(own.vector()), np.float32)
    clipped, policy = own.clip(gradient), own.mask("policy.")
    assert np.linalg.norm(clipped[policy]) == pytest.approx(1, rel=1e-5)
    np.testing.assert_array_equal(clipped[~policy], 1)


def test_bad_parameters_are_refused():
    own = learner()
    vector = own.vector()
    with pytest.raises(ValueError, match=f"expected {len(vector)} parameters"):
        own.load(vector[:-1])
    vector[0] = np.nan
    with pytest.raises(LearnerDivergedError, match="lower the learning rates"):
        own.load(vector)
    with pytest.raises(ValueError, match="1 for reinforce, got 3"):
        LearningConfig(algorithm="reinforce", num_epochs=3)


def test_a_policy_that_moved_too_far_in_a_round_stops_learning():
    own = learner(max_kl=0.05)
    own.prepare(episodes([1, 0, 2, 0, 1, 3], [3, 3], [True, True]))  # stored log-probabilities of -0.7, near log 1/2
    assert own.gradient().any()
    own._tensors["old"] = own._tensors["old"] - 1.0
    assert not own.gradient().any()
    with pytest.raises(ValueError, match="max_kl must be positive"):
        LearningConfig(max_kl=0.0)
