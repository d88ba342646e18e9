"""Named starting points of a run; every field can be overridden on the command line."""

import dataclasses
from collections.abc import Sequence

from actors.config import ActorConfig, EvaluationConfig
from cluster.config import RunConfig
from cluster.errors import ConfigError
from learner.config import PolicyConfig, SurrogateConfig, TD3Config
from learner.critic_config import CriticConfig
from qpu_service.config import QPUConfig
from replay.config import ReplayConfig

_MUJOCO = RunConfig(
    env_id="Humanoid-v4",
    total_steps=1_000_000,
    log_period_steps=1_000,
    # Table 2 leaves the start of learning to TD3 implementations, whose 25,000 spend a fortieth of the run at random.
    td3=TD3Config(learning_starts=5_000),
    actors=ActorConfig(envs_per_actor=32, segment_length=16),
    evaluation=EvaluationConfig(period_steps=10_000),
)

# What FlashSAC, XQC and MR.Q gained, they gained in critic, normalisation and n-step returns (docs/strong.md). A step
# of the environment costs a fortieth of an update, so each update has four new ones. Noise of many strengths leads
# Humanoid's policy from standing to walking. The block alone tells the quantum policy from its classical twins
# (--block).
_STRONG = dataclasses.replace(
    _MUJOCO,
    policy=PolicyConfig(normalise_observations=True, hidden_normalisation="layer"),
    # A simulator has exact gradients, cheaper than a surrogate and right everywhere (docs/gradients.md); a device needs
    # --surrogate.gradient surrogate. Means of 100 shots keep the policy from shaking with every measurement.
    surrogate=SurrogateConfig(gradient="exact"),
    qpu=QPUConfig(shots=100, readout="mean"),
    critic=CriticConfig(
        architecture="mlp",
        num_layers=3,
        normalisation="batch",
        head="categorical",
        climbs="mean",
        has_target=False,
        unit_rows=True,
    ),
    td3=TD3Config(
        learning_starts=5_000,
        batch_size=128,
        updates_per_step=0.25,
        n_step=3,
        polyak_coefficient=1e-2,
        scale_rewards=True,
        final_learning_rate_share=0.1,
        precision="auto",
    ),
    actors=ActorConfig(
        envs_per_actor=32,
        segment_length=16,
        exploration_noise_std=0.2,
        exploration_noise_ratio=16.0,
        longest_noise_hold=16,
    ),
    evaluation=EvaluationConfig(period_steps=20_000),
)

_MUJOCO_TASKS = {
    "humanoid": "Humanoid-v4",
    "halfcheetah": "HalfCheetah-v4",
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}

PRESETS: dict[str, RunConfig] = {
    "pendulum": RunConfig(
        env_id="Pendulum-v1",
        total_steps=20_000,
        stop_return=-200.0,
        # The paper gives no rates for Pendulum. A faster critic spares steps; a faster policy too runs into
        # tanh's flat ends before the critic knows anything (block linear, seed 1: constant action for good).
        td3=TD3Config(learning_starts=1_000, critic_learning_rate=1e-3),
        surrogate=SurrogateConfig(learning_rate=1e-3),
        # Unbounded angles grow until the surrogate's gradient says nothing of the circuit's (docs/gradients.md).
        policy=PolicyConfig(angle_limit_rad=0.3),
        actors=ActorConfig(envs_per_actor=4, segment_length=10),
        evaluation=EvaluationConfig(period_steps=1_000),
        replay=ReplayConfig(capacity=100_000, slack_steps=200),
    ),
    **{
        f"{name}{suffix}": dataclasses.replace(config, env_id=env_id)
        for name, env_id in _MUJOCO_TASKS.items()
        for suffix, config in (("", _MUJOCO), ("-strong", _STRONG))
    },
    "smoke": RunConfig(
        env_id="Pendulum-v1",
        total_steps=600,
        td3=TD3Config(learning_starts=200, batch_size=64),
        actors=ActorConfig(envs_per_actor=4, segment_length=10),
        evaluation=EvaluationConfig(period_steps=200, num_episodes=2),
        replay=ReplayConfig(capacity=10_000, slack_steps=100),
        log_period_steps=100,
    ),
}

DESCRIPTIONS: dict[str, str] = {
    "pendulum": "Pendulum-v1 with the paper's circuit; minutes on two cores",
    "humanoid": "Humanoid-v4, Table 2 of arXiv:2503.09119",
    **{name: f"{env_id} with the same agent" for name, env_id in _MUJOCO_TASKS.items() if name != "humanoid"},
    **{
        f"{name}-strong": f"{env_id}, the same circuit, our strongest critic, exact gradients (simulator)"
        for name, env_id in _MUJOCO_TASKS.items()
    },
    "smoke": "Pendulum-v1 for 600 steps: every part once, in under a minute",
}


def get_preset(name: str, *, others: Sequence[str] = ()) -> RunConfig:
    """Configuration of a preset.

    Args:
        name: which.
        others: names that mean something else where this is asked, for the message.

    Raises:
        ConfigError: if there is no such preset.
    """
    if name not in PRESETS:
        known = ", ".join([*PRESETS, *others])
        raise ConfigError(f"unknown preset {name!r}; expected one of {known} (see `hdqnn train --help`)")
    return PRESETS[name]
