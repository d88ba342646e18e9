"""Whole episodes for on-policy learning: several environments side by side, from start to end, with one policy.

Nothing is kept between calls: episodes depend on the policy and the seed alone. That is why an agent can die and
another can take its place, and why a run resumes without replaying anything.

Axis legend: E environments, O observation, A action.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from actors.errors import InvalidEnvironmentError
from actors.tasks import Task
from learner.quantum_train.objectives import EpisodeBatch
from learner.quantum_train.policy import Policy

_MAX_STEPS = 100_000
"""Guard against an environment that never ends its episode."""


def run_episodes(
    tasks: Sequence[Task], policy: Policy, *, seed: int, explore: bool, observation_scale: float = 1.0
) -> EpisodeBatch:
    """One episode in every task, with the weights that ``policy.network`` holds.

    Args:
        tasks: environments, stepped side by side.
        policy: acts through its plain network; nothing is generated here.
        seed: of start states and actions.
        explore: draw actions from the policy; else take the most probable one.
        observation_scale: factor on observations.

    Raises:
        InvalidEnvironmentError: if an episode does not end.
    """
    seeds = np.random.SeedSequence(seed)
    rng = np.random.default_rng(seeds.spawn(1)[0])
    starts = seeds.generate_state(len(tasks))
    current = np.stack([task.reset(int(start)) for task, start in zip(tasks, starts, strict=True)])
    episodes: list[_Episode] = [_Episode() for _ in tasks]
    running = np.arange(len(tasks))
    for _ in range(_MAX_STEPS):
        observation = current[running] * np.float32(observation_scale)
        outputs = policy.act(observation)
        actions, log_probabilities = choose(policy, outputs, rng, explore=explore)
        still_running = []
        for row, index in enumerate(running.tolist()):
            task, episode = tasks[index], episodes[index]
            after, reward, terminated, truncated = task.step(to_environment(policy, actions[row]))
            episode.observations.append(observation[row])
            episode.actions.append(actions[row])
            episode.log_probabilities.append(log_probabilities[row])
            episode.rewards.append(reward)
            current[index] = after
            if terminated or truncated:
                episode.is_terminated = terminated
            else:
                still_running.append(index)
        running = np.array(still_running, dtype=np.int64)
        if len(running) == 0:
            return _join(episodes, current * np.float32(observation_scale))
    raise InvalidEnvironmentError(
        f"{tasks[0].env_id} ended {len(tasks) - len(running)} of {len(tasks)} episodes within {_MAX_STEPS:,} steps; "
        "expected every episode to end: give the environment a time limit (gymnasium.wrappers.TimeLimit)"
    )


def choose(
    policy: Policy, outputs: Float64[np.ndarray, "E A"], rng: np.random.Generator, *, explore: bool
) -> tuple[np.ndarray, Float64[np.ndarray, "E"]]:
    """Actions and their log-probabilities; discrete ones as int64 (E,), continuous ones as float32 (E, A)."""
    if policy.log_std is None:
        log_p = outputs - np.maximum.reduce(outputs, axis=1, keepdims=True)
        log_p -= np.log(np.add.reduce(np.exp(log_p), axis=1, keepdims=True))
        # The largest of log p + Gumbel noise is a draw from p.
        noisy = log_p + rng.gumbel(size=log_p.shape) if explore else log_p
        action = noisy.argmax(axis=1)
        return action, log_p[np.arange(len(action)), action]
    log_std = policy.log_std.detach().numpy().astype(np.float64)
    noise = rng.standard_normal(outputs.shape) if explore else np.zeros_like(outputs)
    continuous = (outputs + np.exp(log_std) * noise).astype(np.float32)
    log_density = -(0.5 * noise**2 + log_std + 0.5 * np.log(2 * np.pi)).sum(axis=1)
    return continuous, log_density


def to_environment(policy: Policy, action: Any) -> Any:
    """What the environment gets: a discrete action's number, or a continuous one inside its bounds."""
    if policy.shape.is_discrete:
        return int(action)
    return np.clip(action, policy.shape.action_low, policy.shape.action_high).astype(np.float32)


class _Episode:
    """Columns of one episode while it runs."""

    def __init__(self) -> None:
        self.observations: list[np.ndarray] = []
        self.actions: list[Any] = []
        self.log_probabilities: list[float] = []
        self.rewards: list[float] = []
        self.is_terminated = False


def _join(episodes: Sequence[_Episode], last_observations: Float32[np.ndarray, "E O"]) -> EpisodeBatch:
    return EpisodeBatch(
        observations=np.stack([row for episode in episodes for row in episode.observations]),
        actions=np.array([row for episode in episodes for row in episode.actions]),
        log_probabilities=np.array([x for episode in episodes for x in episode.log_probabilities], np.float32),
        rewards=np.array([x for episode in episodes for x in episode.rewards], np.float32),
        lengths=np.array([len(episode.rewards) for episode in episodes], np.int64),
        is_terminated=np.array([episode.is_terminated for episode in episodes]),
        last_observations=last_observations,
    )
