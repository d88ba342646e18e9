"""Gymnasium environments: what the agent can use, and a group of them whose state can be rebuilt.

Every episode is reset with its own seed, so an environment's state is its episode seed and the
actions since: that is how a synchronous run resumes bit for bit, whatever the simulator.

Axis legend: E environments, O observation, A action.
"""

import warnings
from dataclasses import dataclass

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from jaxtyping import Bool, Float32

from actors.errors import InvalidEnvironmentError, UnsupportedEnvironmentError
from learner.config import AgentSpec

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def make_environment(env_id: str) -> gymnasium.Env[np.ndarray, np.ndarray]:
    """Make one environment.

    Raises:
        UnsupportedEnvironmentError: if Gymnasium does not know the id or a package is missing.
    """
    try:
        # Each environment would advise every process to take the next version, whose scores no paper compares with.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*out of date.*", category=DeprecationWarning)
            return gymnasium.make(env_id)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnsupportedEnvironmentError(
            f"cannot make environment {env_id!r}: {error}. Expected a Gymnasium id such as Pendulum-v1 or "
            "Humanoid-v4, or module:Id-v0 for one of your own, whose module is here or installed; "
            "gymnasium.pprint_registry() lists the known ones"
        ) from error


def agent_spec(env_id: str) -> AgentSpec:
    """Sizes and bounds of an environment, after checking that the agent can use it and that it works.

    Raises:
        UnsupportedEnvironmentError: for spaces other than a flat Box of observations and a flat, bounded
            Box of actions.
        InvalidEnvironmentError: if the first observations or rewards are not finite.
    """
    environment = make_environment(env_id)
    try:
        observation_space, action_space = environment.observation_space, environment.action_space
        _check_space(env_id, "observation", observation_space)
        _check_space(env_id, "action", action_space)
        if not np.isfinite([action_space.low, action_space.high]).all():
            raise UnsupportedEnvironmentError(
                f"{env_id} has an unbounded action space ({action_space}); TD3 needs finite bounds, "
                "wrap the environment with gymnasium.wrappers.RescaleAction or give the space bounds"
            )
        spec = AgentSpec(
            observation_size=int(observation_space.shape[0]),
            action_low=tuple(float(x) for x in action_space.low),
            action_high=tuple(float(x) for x in action_space.high),
        )
        _try_out(env_id, environment, spec)
    finally:
        environment.close()
    return spec


def _check_space(env_id: str, role: str, space: gymnasium.Space[np.ndarray]) -> None:
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UnsupportedEnvironmentError(
            f"{env_id} has the {role} space {space}; expected a one-dimensional Box. Discrete, Dict, image and "
            "other spaces don't fit this agent: use a continuous task, or wrap the environment so that it is one. For "
            f"discrete actions there are policies that a circuit generates: hdqnn train qtrl-cartpole --env-id {env_id}"
        )


def _try_out(env_id: str, environment: gymnasium.Env[np.ndarray, np.ndarray], spec: AgentSpec) -> None:
    observation, _ = environment.reset(seed=0)
    check_finite(env_id, "observation", np.asarray(observation))
    middle = (np.asarray(spec.action_low) + np.asarray(spec.action_high)) / 2
    for _ in range(2):
        observation, reward, terminated, truncated, _ = environment.step(middle.astype(np.float32))
        check_finite(env_id, "observation", np.asarray(observation))
        check_finite(env_id, "reward", np.asarray(reward))
        if terminated or truncated:
            break


def check_finite(env_id: str, what: str, values: np.ndarray) -> None:
    """Refuse NaN, infinity, and what becomes infinity in float32, from an environment.

    Raises:
        InvalidEnvironmentError: with the first bad value and its index.
    """
    is_usable = np.abs(values) <= _FLOAT32_MAX
    if not is_usable.all():
        index = tuple(int(i) for i in np.argwhere(~is_usable)[0])
        raise InvalidEnvironmentError(
            f"{env_id} returned the {what} {values[index]} at index {list(index)}; expected finite numbers of float32. "
            "Nothing of this step was stored; fix the environment (its physics may have diverged)"
        )


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of every environment of a group, before any reset."""

    next_observation: Float32[np.ndarray, "E O"]
    """The true observation after the step, also where the episode ended."""
    reward: Float32[np.ndarray, "E"]
    terminated: Bool[np.ndarray, "E"]
    truncated: Bool[np.ndarray, "E"]


class EnvironmentGroup:
    """Environments that step together; resets are explicit and seeded per episode.

    Args:
        env_id: Gymnasium id.
        seeds: one root per environment; episode k of environment e uses a seed derived from (root e, k).
    """

    def __init__(self, env_id: str, seeds: list[int]) -> None:
        self.env_id = env_id
        self._roots = seeds
        self._envs = SyncVectorEnv(
            [lambda: make_environment(env_id)] * len(seeds), copy=False, autoreset_mode=AutoresetMode.DISABLED
        )
        self._episodes = [0] * len(seeds)
        self._actions: list[list[np.ndarray]] = [[] for _ in seeds]
        self.observation = self._reset(np.ones(len(seeds), dtype=np.bool_))

    def __len__(self) -> int:
        """Number of environments E."""
        return len(self._roots)

    def step(self, action: Float32[np.ndarray, "E A"]) -> StepResult:
        """Step every environment; call ``reset_finished`` before the next step.

        Raises:
            InvalidEnvironmentError: if an observation or a reward is not finite.
        """
        observation, reward, terminated, truncated, _ = self._envs.step(action)
        check_finite(self.env_id, "observation", observation)
        check_finite(self.env_id, "reward", reward)
        for row, actions in enumerate(self._actions):
            actions.append(action[row].copy())
        self.observation = observation.astype(np.float32)
        return StepResult(self.observation, reward.astype(np.float32), terminated, truncated)

    def reset_finished(self, finished: Bool[np.ndarray, "E"]) -> None:
        """Start the next episode where ``finished``; ``observation`` then holds the first observations."""
        if finished.any():
            for row in np.flatnonzero(finished):
                self._episodes[row] += 1
                self._actions[row] = []
            self.observation = np.where(finished[:, None], self._reset(finished), self.observation)

    def close(self) -> None:
        """Close the environments."""
        self._envs.close()

    def state(self) -> tuple[list[int], list[Float32[np.ndarray, "T A"]]]:
        """Episode number and actions since its reset, per environment."""
        size = self._envs.single_action_space.shape
        return list(self._episodes), [
            np.stack(actions) if actions else np.zeros((0, *size), np.float32) for actions in self._actions
        ]

    def restore(self, episodes: list[int], actions: list[Float32[np.ndarray, "T A"]]) -> None:
        """Rebuild the state by replaying each current episode from its seed."""
        self._episodes = list(episodes)
        self._actions = [list(rows) for rows in actions]
        self.observation = self._reset(np.ones(len(self), dtype=np.bool_))
        for row, environment in enumerate(self._envs.envs):
            for action in self._actions[row]:
                self.observation[row] = environment.step(action)[0]

    def _reset(self, mask: Bool[np.ndarray, "E"]) -> Float32[np.ndarray, "E O"]:
        seeds = [episode_seed(root, episode) for root, episode in zip(self._roots, self._episodes, strict=True)]
        observation, _ = self._envs.reset(seed=seeds, options={"reset_mask": mask.copy()})
        check_finite(self.env_id, "observation", observation)
        first: np.ndarray = observation.astype(np.float32)
        return first


def episode_seed(root: int, episode: int) -> int:
    """Seed of one episode: independent streams for every (root, episode)."""
    return int(np.random.SeedSequence([root, episode]).generate_state(1)[0])
