"""Tasks and episodes of on-policy agents, on real environments."""

import gymnasium
import numpy as np
import pytest
import torch

from actors.episodes import choose, run_episodes, to_environment
from actors.errors import UnsupportedEnvironmentError
from actors.tasks import Task
from learner.quantum_train.config import GeneratorConfig, PolicyShape
from learner.quantum_train.policy import Policy, log_probability


def policy_of(spec, hidden=(8,)):
    shape = PolicyShape(
        observation_size=spec.observation_size,
        num_outputs=spec.num_outputs,
        is_discrete=spec.is_discrete,
        hidden_sizes=hidden,
        action_low=spec.action_low,
        action_high=spec.action_high,
    )
    policy = Policy(shape, GeneratorConfig(depth=1), "quantum_train", seed=0)
    policy.fill()
    return policy


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_episodes_are_whole_and_repeatable(env_id):
    tasks = [Task(env_id) for _ in range(3)]
    policy = policy_of(tasks[0].spec)
    first = run_episodes(tasks, policy, seed=3, explore=True)
    second = run_episodes(tasks, policy, seed=3, explore=True)
    np.testing.assert_array_equal(first.observations, second.observations)
    np.testing.assert_array_equal(first.actions, second.actions)
    assert len(first.rewards) == first.lengths.sum() == len(first.actions)
    assert len(first.episode_returns) == 3
    if env_id == "CartPole-v1":
        assert first.is_terminated.all()
        assert first.episode_returns == [float(length) for length in first.lengths]
    else:
        assert not first.is_terminated.any()
        assert set(first.lengths) == {200}


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_stored_log_probabilities_are_those_of_the_learner(env_id):
    tasks = [Task(env_id)]
    policy = policy_of(tasks[0].spec)
    batch = run_episodes(tasks, policy, seed=1, explore=True, observation_scale=0.5)
    outputs = policy.outputs(policy.generate(), torch.from_numpy(batch.observations))
    expected = log_probability(policy, outputs, torch.from_numpy(batch.actions)).detach().numpy()
    np.testing.assert_allclose(batch.log_probabilities, expected, atol=1e-4)


def test_actions_are_drawn_with_the_policys_probabilities():
    policy = policy_of(Task("CartPole-v1").spec)
    outputs = np.tile(np.log([[0.2, 0.8]]), (20_000, 1))
    drawn, _ = choose(policy, outputs, np.random.default_rng(0), explore=True)
    # 5 standard deviations of a proportion of 20,000: false-alarm rate 6e-7
    assert abs(drawn.mean() - 0.8) < 5 * np.sqrt(0.16 / 20_000)
    best, log_p = choose(policy, outputs[:2], np.random.default_rng(0), explore=False)
    assert best.tolist() == [1, 1]
    np.testing.assert_allclose(log_p, np.log(0.8))


def test_continuous_actions_stay_inside_the_bounds():
    policy = policy_of(Task("Pendulum-v1").spec)
    assert to_environment(policy, np.array([7.0])).tolist() == [2.0]


def test_only_the_first_actions_are_kept():
    assert Task("CartPole-v1", 1).spec.num_outputs == 1
    with pytest.raises(UnsupportedEnvironmentError, match=r"num_actions must be in 1\.\.2"):
        Task("CartPole-v1", 3)


def test_minigrids_image_is_flattened():
    pytest.importorskip("minigrid")
    task = Task("MiniGrid-Empty-5x5-v0", 3)
    assert (task.spec.observation_size, task.spec.num_outputs) == (147, 3)
    assert task.reset(0).shape == (147,)
    task.close()


def test_unknown_and_unfit_tasks_are_refused():
    with pytest.raises(UnsupportedEnvironmentError, match="cannot make environment 'Nope-v0'"):
        Task("Nope-v0")

    class Pairs(gymnasium.Env):
        observation_space = gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(2)])
        action_space = gymnasium.spaces.Discrete(2)

    gymnasium.register("Pairs-v0", entry_point=Pairs)
    try:
        with pytest.raises(UnsupportedEnvironmentError, match="observation space Tuple"):
            Task("Pairs-v0")
    finally:
        del gymnasium.registry["Pairs-v0"]
