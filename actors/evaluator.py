"""Test rounds: the policy with the real circuit, no exploration noise, seeds apart from training's.

Source: arXiv:2503.09119, Fig. 4 ("Each test round has 10 testing episode").
"""

import numpy as np

from actors.environment import check_finite, make_environment
from actors.policy import ActingPolicy

_MAX_STEPS = 1_000_000
"""Guard against an environment that never ends its episode."""


def evaluate(policy: ActingPolicy, env_id: str, *, num_episodes: int, seed: int) -> list[float]:
    """Returns of ``num_episodes`` episodes, stepped together so that their circuits share requests.

    Args:
        policy: acts without noise.
        env_id: Gymnasium id.
        num_episodes: one environment each.
        seed: root of the episode seeds; the same root gives the same start states.

    Raises:
        InvalidEnvironmentError: if an observation or a reward is not finite.
    """
    environments = [make_environment(env_id) for _ in range(num_episodes)]
    seeds = np.random.SeedSequence(seed).generate_state(num_episodes)
    observation = np.stack([env.reset(seed=int(s))[0] for env, s in zip(environments, seeds, strict=True)])
    observation = observation.astype(np.float32)
    returns = np.zeros(num_episodes)
    running = np.arange(num_episodes)
    for _ in range(_MAX_STEPS):
        action = policy.finish(policy.begin(observation[running])).action
        still_running = []
        for row, index in enumerate(running):
            next_observation, reward, terminated, truncated, _ = environments[index].step(action[row])
            check_finite(env_id, "observation", next_observation)
            check_finite(env_id, "reward", np.asarray(reward))
            observation[index] = next_observation
            returns[index] += float(reward)
            if not (terminated or truncated):
                still_running.append(index)
        running = np.array(still_running, dtype=np.int64)
        if len(running) == 0:
            break
    for environment in environments:
        environment.close()
    return [float(value) for value in returns]
