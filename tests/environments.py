"""Small environments with known behaviour; ``gymnasium.make("tests.environments:Counting-v0")`` finds them.

They live in an importable module because actors run in processes of their own.
"""

import time

import gymnasium
import numpy as np
from gymnasium import spaces

PREFIX = "tests.environments:"
ACTION_BOUND = 2.0


class Counting(gymnasium.Env):
    """Observation (episode, step) and reward 100·episode + step, so that every number says where it belongs.

    Even episodes terminate at step ``terminate_at``, odd ones are truncated at step ``truncate_at``.
    """

    def __init__(self, terminate_at=3, truncate_at=5):
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-ACTION_BOUND, ACTION_BOUND, (2,), np.float32)
        self._terminate_at, self._truncate_at = terminate_at, truncate_at
        self._episode, self._step = -1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._episode, self._step = self._episode + 1, 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self._step += 1
        is_even = self._episode % 2 == 0
        terminated = is_even and self._step == self._terminate_at
        truncated = not is_even and self._step == self._truncate_at
        return self._observation(), 100.0 * self._episode + self._step, terminated, truncated, {}

    def _observation(self):
        return np.array([self._episode, self._step], np.float32)


class Seeded(gymnasium.Env):
    """Starts at a number drawn from the seed; the reward is what the action did, so returns are easy sums.

    With ``sleep_s`` its pace does not depend on the machine, so that a test has time to break something.
    """

    def __init__(self, num_steps=4, sleep_s=0.0):
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self._num_steps, self._sleep_s = num_steps, sleep_s

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._value, self._steps_left = self.np_random.uniform(-1, 1), self._num_steps
        return np.array([self._value], np.float32), {}

    def step(self, action):
        time.sleep(self._sleep_s)
        self._value += float(action[0])
        self._steps_left -= 1
        return np.array([self._value], np.float32), float(action[0]) + 1.0, self._steps_left == 0, False, {}


class Spaces(gymnasium.Env):
    """Has whatever spaces it is given; nobody should get as far as resetting it."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


class Failing(gymnasium.Env):
    """Works until step ``after`` (0: at reset), counted over all episodes, then returns ``bad`` in one place."""

    def __init__(self, where="observation", after=0, bad=np.nan):
        self.observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self._where, self._after, self._bad = where, after, bad
        self._steps = self._in_episode = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._in_episode = 0
        return self._observation(), {}

    def step(self, action):
        self._steps += 1
        self._in_episode += 1
        is_bad = self._where == "reward" and self._steps >= self._after
        return self._observation(), self._bad if is_bad else 1.0, False, self._in_episode == 20, {}

    def _observation(self):
        is_bad = self._where == "observation" and self._steps >= self._after
        return np.array([0.0, self._bad if is_bad else 0.5, 1.0])


def _box(*shape, high=1.0):
    return spaces.Box(-high, high, shape, np.float32)


def _register(name, cls, **kwargs):
    gymnasium.register(f"{name}-v0", entry_point=cls, kwargs=kwargs, disable_env_checker=True, order_enforce=False)


_register("Counting", Counting)
_register("Seeded", Seeded)
_register("Slow", Seeded, num_steps=20, sleep_s=0.005)
_register("DiscreteAction", Spaces, observation_space=_box(3), action_space=spaces.Discrete(4))
_register("DictObservation", Spaces, observation_space=spaces.Dict({"x": _box(3)}), action_space=_box(1))
_register("UnboundedAction", Spaces, observation_space=_box(3), action_space=_box(1, high=np.inf))
_register("ImageObservation", Spaces, observation_space=_box(8, 8, 3), action_space=_box(1))
_register("NaNAtReset", Failing)
_register("NaNReward", Failing, where="reward")
_register("InfinityLater", Failing, after=150, bad=np.inf)
_register("NaNLater", Failing, where="reward", after=150)
_register("InfinitySoon", Failing, after=5, bad=np.inf)
_register("NaNSoon", Failing, where="reward", after=5)
_register("TooLargeReward", Failing, where="reward", bad=1e300)
