"""Test rounds: the policy with the real circuit, no exploration noise, seeds apart from training's.

Source: arXiv:2503.09119, Fig. 4 ("Each test round has 10 testing episode").
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from actors.environment import check_finite, make_environment
from actors.errors import InvalidEnvironmentError
from actors.policy import ActingPolicy
from actors.trajectories import TrajectoryRecorder

_MAX_STEPS = 1_000_000
"""Guard against an environment that never ends its episode."""


def evaluate(
    policy: ActingPolicy,
    env_id: str,
    *,
    num_episodes: int,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
    recorder: TrajectoryRecorder | None = None,
) -> list[float]:
    """Returns of ``num_episodes`` episodes, stepped together so that their circuits share requests.

    Args:
        policy: acts without noise.
        env_id: Gymnasium id.
        num_episodes: one environment each.
        seed: root of the episode seeds; the same root gives the same start states.
        on_step: called before each step, for whoever watches whether there are any.
        recorder: is given every transition.

    Raises:
        InvalidEnvironmentError: if an observation or a reward is not finite, or an episode does not end.
    """
    environments = [make_environment(env_id) for _ in range(num_episodes)]
    try:
        return _run_episodes(policy, env_id, environments, seed, on_step, recorder)
    finally:
        for environment in environments:
            environment.close()


def _run_episodes(
    policy: ActingPolicy,
    env_id: str,
    environments: Sequence[Any],
    seed: int,
    on_step: Callable[[], None],
    recorder: TrajectoryRecorder | None,
) -> list[float]:
    seeds = np.random.SeedSequence(seed).generate_state(len(environments))
    observation = np.stack([env.reset(seed=int(s))[0] for env, s in zip(environments, seeds, strict=True)])
    check_finite(env_id, "observation", observation)
    observation = observation.astype(np.float32)
    returns = np.zeros(len(environments))
    running = np.arange(len(environments))
    for _ in range(_MAX_STEPS):
        on_step()
        acted_on = observation[running]
        action = policy.finish(policy.begin(acted_on)).action
        rewards = np.zeros(len(running))
        still_running = []
        for row, index in enumerate(running):
            next_observation, reward, terminated, truncated, _ = environments[int(index)].step(action[row])
            check_finite(env_id, "observation", next_observation)
            check_finite(env_id, "reward", np.asarray(reward))
            observation[index] = next_observation
            rewards[row] = float(reward)
            returns[index] += rewards[row]
            if not (terminated or truncated):
                still_running.append(index)
        if recorder is not None:
            recorder(running, acted_on, action, rewards)
        running = np.array(still_running, dtype=np.int64)
        if len(running) == 0:
            return [float(value) for value in returns]
    raise InvalidEnvironmentError(
        f"{env_id} ended {len(returns) - len(running)} of {len(returns)} test episodes within {_MAX_STEPS:,} steps; "
        "expected every episode to end: give the environment a time limit (gymnasium.wrappers.TimeLimit)"
    )
