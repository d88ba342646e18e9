"""Gymnasium tasks for on-policy agents: discrete or continuous actions, any observation that flattens to numbers."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float32

from actors.environment import check_finite
from actors.errors import UnsupportedEnvironmentError


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """What a policy must know of a task."""

    observation_size: int
    num_outputs: int
    """Actions to choose from, or components of a continuous action."""
    is_discrete: bool
    action_low: tuple[float, ...] = ()
    """Lower bounds of a continuous action, environment units."""
    action_high: tuple[float, ...] = ()
    """Upper bounds of a continuous action, environment units."""


class Task:
    """One environment that takes and gives flat arrays.

    Args:
        env_id: Gymnasium id; MiniGrid ids need the package minigrid.
        num_actions: keep only the first so many of discrete actions; None keeps all.

    Raises:
        UnsupportedEnvironmentError: if there is no such environment, or it does not fit.
    """

    def __init__(self, env_id: str, num_actions: int | None = None) -> None:
        self.env_id = env_id
        self._env = _make(env_id)
        self._observation_space = _observation_space(env_id, self._env.observation_space)
        self.spec = self._describe(num_actions)

    def reset(self, seed: int) -> Float32[np.ndarray, "O"]:
        """Start an episode."""
        observation, _ = self._env.reset(seed=seed)
        return self._flat(observation)

    def step(self, action: Any) -> tuple[Float32[np.ndarray, "O"], float, bool, bool]:
        """Next observation, reward, whether the episode terminated, whether it was truncated."""
        observation, reward, terminated, truncated, _ = self._env.step(action)
        return self._flat(observation), float(reward), bool(terminated), bool(truncated)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _flat(self, observation: Any) -> Float32[np.ndarray, "O"]:
        if isinstance(observation, dict):
            observation = observation["image"]
        flat = np.array(self._numbers(observation), np.float32).reshape(-1)
        check_finite(self.env_id, "observation", flat)
        return flat

    def _numbers(self, observation: Any) -> Any:
        # A box is numbers already; asking Gymnasium would take longer than a step of a small task.
        space = self._observation_space
        return observation if isinstance(space, gymnasium.spaces.Box) else gymnasium.spaces.flatten(space, observation)

    def _describe(self, num_actions: int | None) -> TaskSpec:
        size = int(gymnasium.spaces.flatdim(self._observation_space))
        space = self._env.action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            if num_actions is not None and not 1 <= num_actions <= space.n:
                raise UnsupportedEnvironmentError(
                    f"num_actions must be in 1..{space.n}, the actions of {self.env_id}, got {num_actions}"
                )
            return TaskSpec(observation_size=size, num_outputs=int(num_actions or space.n), is_discrete=True)
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise UnsupportedEnvironmentError(
                f"{self.env_id} has the action space {space}; expected Discrete or a flat Box: wrap the environment"
            )
        return TaskSpec(
            observation_size=size,
            num_outputs=int(space.shape[0]),
            is_discrete=False,
            action_low=tuple(float(x) for x in space.low),
            action_high=tuple(float(x) for x in space.high),
        )


def _make(env_id: str) -> gymnasium.Env[Any, Any]:
    try:
        if env_id.startswith("MiniGrid"):
            import minigrid  # noqa: F401 - registers its tasks
        # The checker looks at every step again; check_finite does what matters here.
        return gymnasium.make(env_id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnsupportedEnvironmentError(
            f"cannot make environment {env_id!r}: {error}. Expected a Gymnasium id such as CartPole-v1; MiniGrid's "
            "tasks need its package: python -m pip install minigrid"
        ) from error


def _observation_space(env_id: str, space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """The space that is flattened; of a dictionary with an image, as MiniGrid's, the image."""
    if isinstance(space, gymnasium.spaces.Dict) and "image" in space.spaces:
        return space.spaces["image"]
    if isinstance(space, gymnasium.spaces.Box | gymnasium.spaces.Discrete | gymnasium.spaces.MultiDiscrete):
        return space
    raise UnsupportedEnvironmentError(
        f"{env_id} has the observation space {space}; expected numbers: Box, Discrete, MultiDiscrete, or a dictionary "
        "with an image; wrap the environment (gymnasium.wrappers.FlattenObservation)"
    )
