"""Configuration → learner and acting policy. The only place that decides which implementation a setting means."""

import math

import torch

from actors.policy import ActingPolicy
from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.seeding import Stream, derive_rng, derive_seed
from learner.acceleration import accelerate
from learner.config import AgentSpec
from learner.td3 import TD3Learner
from qpu_service.interfaces import CircuitSampler
from qpu_service.patience import patience


def make_learner(config: RunConfig, spec: AgentSpec) -> TD3Learner:
    """The learner on its device."""
    learner = TD3Learner(
        spec,
        block=config.block,
        policy_config=config.policy,
        surrogate_config=config.surrogate,
        config=config.td3,
        critic_config=config.critic,
        decay_updates=num_updates(config),
        seed=derive_seed(config.seed, Stream.LEARNER),
        device=learner_device(config.device),
    )
    if config.compile:
        accelerate(learner)
    return learner


def num_updates(config: RunConfig) -> int:
    """Updates of a whole run, over which schedules are stretched: none are made before ``learning_starts``."""
    learning_steps = config.total_steps - config.td3.learning_starts
    return max(1, math.ceil(learning_steps * config.td3.updates_per_step))


def learner_device(name: str) -> str:
    """Resolve ``auto`` and check that the device is there.

    Raises:
        ConfigError: if it is not.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used: {error}. Expected auto, cpu, or a device that is there"
        ) from error
    return name


def make_policy(
    config: RunConfig, spec: AgentSpec, sampler: CircuitSampler | None, stream: Stream, *indices: int
) -> ActingPolicy:
    """An acting policy with random circuits of its own stream."""
    return ActingPolicy(
        spec,
        config.policy,
        config.block,
        sampler,
        derive_rng(config.seed, stream, *indices),
        shots=config.qpu.shots,
        readout=config.qpu.readout,
        name="-".join([stream.name.lower(), *map(str, indices)]),
        timeout_s=patience(config.qpu, config.backend).timeout_s,
    )
