"""What the agent refuses, and that a group's state is its episode seeds and actions."""

import gymnasium
import numpy as np
import pytest

from actors.environment import EnvironmentGroup, agent_spec, episode_seed, make_environment
from actors.errors import ActorError, InvalidEnvironmentError, UnsupportedEnvironmentError
from tests.environments import PREFIX

REFUSED = [
    ("CartPole-v1", UnsupportedEnvironmentError, ["CartPole-v1", "action space Discrete(2)", "one-dimensional Box"]),
    (f"{PREFIX}DiscreteAction-v0", UnsupportedEnvironmentError, ["action space Discrete(4)", "continuous task"]),
    (f"{PREFIX}DictObservation-v0", UnsupportedEnvironmentError, ["observation space Dict", "wrap"]),
    (f"{PREFIX}ImageObservation-v0", UnsupportedEnvironmentError, ["observation space Box", "(8, 8, 3)", "image"]),
    (f"{PREFIX}UnboundedAction-v0", UnsupportedEnvironmentError, ["unbounded action space", "RescaleAction"]),
    (f"{PREFIX}NaNAtReset-v0", InvalidEnvironmentError, ["observation nan at index [1]", "expected finite"]),
    (f"{PREFIX}NaNReward-v0", InvalidEnvironmentError, ["reward nan", "expected finite"]),
    (f"{PREFIX}TooLargeReward-v0", InvalidEnvironmentError, ["reward 1e+300", "expected finite"]),
    ("Pendulum-v99", UnsupportedEnvironmentError, ["'Pendulum-v99'", "Expected a Gymnasium id", "registry"]),
    ("NoSuchTask-v0", UnsupportedEnvironmentError, ["'NoSuchTask-v0'", "module:Id-v0"]),
    ("not a name", UnsupportedEnvironmentError, ["'not a name'", "Expected a Gymnasium id"]),
    ("no_such_module:Task-v0", UnsupportedEnvironmentError, ["no_such_module", "module:Id-v0"]),
    ("", UnsupportedEnvironmentError, ["''", "Expected a Gymnasium id"]),
]


@pytest.mark.parametrize(("env_id", "error", "parts"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refuses_what_the_agent_cannot_use(env_id, error, parts):
    with pytest.raises(error) as raised:
        agent_spec(env_id)
    assert isinstance(raised.value, ActorError)
    assert not raised.value.retryable
    for part in parts:
        assert part in str(raised.value)


def test_spec_holds_sizes_and_the_bounds_of_each_action_component():
    spec = agent_spec(f"{PREFIX}Counting-v0")
    assert (spec.observation_size, spec.action_size) == (2, 2)
    assert (spec.action_low, spec.action_high) == ((-2.0, -2.0), (2.0, 2.0))


def test_step_keeps_the_true_last_observation_and_reset_starts_only_finished_episodes():
    group = EnvironmentGroup(f"{PREFIX}Counting-v0", [1, 2])
    group.reset_finished(np.array([False, True]))  # the second environment is in its odd, truncated episode now
    np.testing.assert_array_equal(group.observation, [[0, 0], [1, 0]])
    action = np.zeros((2, 2), np.float32)
    for step in range(1, 4):
        result = group.step(action)
        np.testing.assert_array_equal(result.reward, [step, 100 + step])
    np.testing.assert_array_equal(result.next_observation, [[0, 3], [1, 3]])
    assert result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [False, False]
    group.reset_finished(result.terminated | result.truncated)
    np.testing.assert_array_equal(group.observation, [[1, 0], [1, 3]])
    np.testing.assert_array_equal(result.next_observation, [[0, 3], [1, 3]])
    assert result.next_observation.dtype == result.reward.dtype == np.float32


def test_every_episode_starts_from_its_own_seed():
    group = EnvironmentGroup(f"{PREFIX}Seeded-v0", [7, 8])
    first = group.observation.copy()
    group.reset_finished(np.array([True, False]))
    assert group.observation[0, 0] != first[0, 0]
    assert group.observation[1, 0] == first[1, 0]
    environment = make_environment(f"{PREFIX}Seeded-v0")
    expected = [environment.reset(seed=episode_seed(root, episode))[0] for root, episode in ((7, 1), (8, 0))]
    np.testing.assert_array_equal(group.observation, expected)


def test_episode_seeds_are_distinct_and_never_change():
    seeds = {episode_seed(root, episode) for root in range(30) for episode in range(30)}
    assert len(seeds) == 900
    assert episode_seed(1, 2) == 1596810411


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "Hopper-v4"])
def test_state_is_rebuilt_bit_for_bit_by_replay(env_id):
    spec = agent_spec(env_id)
    rng = np.random.default_rng(3)

    def advance(group, rng):
        action = rng.uniform(spec.action_low, spec.action_high, (3, spec.action_size)).astype(np.float32)
        result = group.step(action)
        action.fill(np.nan)  # the caller may use its buffer again
        group.reset_finished(result.terminated | result.truncated)
        return result

    original = EnvironmentGroup(env_id, [11, 12, 13])
    for _ in range(40):
        advance(original, rng)
    copy = EnvironmentGroup(env_id, [11, 12, 13])
    copy.restore(*original.state())
    np.testing.assert_array_equal(copy.observation, original.observation)
    other_rng = np.random.default_rng()
    other_rng.bit_generator.state = rng.bit_generator.state
    for _ in range(250):  # long enough to finish episodes of every environment
        a, b = advance(original, rng), advance(copy, other_rng)
        np.testing.assert_array_equal(a.next_observation, b.next_observation)
        np.testing.assert_array_equal(a.reward, b.reward)
        np.testing.assert_array_equal(original.observation, copy.observation)
    assert min(original.state()[0]) > 0


def test_bad_numbers_stop_a_step_and_a_reset():
    group = EnvironmentGroup(f"{PREFIX}InfinityLater-v0", [1])
    for _ in range(149):
        result = group.step(np.zeros((1, 1), np.float32))
        group.reset_finished(result.truncated)
    with pytest.raises(
        InvalidEnvironmentError, match=r"InfinityLater-v0 returned the observation inf at index \[0, 1\]"
    ):
        group.step(np.zeros((1, 1), np.float32))
    with pytest.raises(InvalidEnvironmentError, match=r"observation nan at index \[0, 1\]"):
        EnvironmentGroup(f"{PREFIX}NaNAtReset-v0", [1])


def test_environments_of_a_group_are_closed():
    class Closing(gymnasium.Env):
        closed = 0
        observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            return np.zeros(1, np.float32), {}

        def close(self):
            Closing.closed += 1

    gymnasium.register("Closing-v0", entry_point=Closing, disable_env_checker=True)
    try:
        group = EnvironmentGroup("Closing-v0", [1, 2])
        assert Closing.closed == 0
        group.close()
        assert Closing.closed == 2
    finally:
        del gymnasium.registry["Closing-v0"]
