"""Configuration → objects. The only place that decides which implementation a setting means."""

import math

import torch

from actors.policy import ActingPolicy
from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.seeding import Stream, derive_rng, derive_seed
from learner.acceleration import accelerate
from learner.config import AgentSpec, uses_circuit
from learner.td3 import TD3Learner
from qpu_service.interfaces import CircuitSampler
from qpu_service.patience import patience
from replay.rate_limiter import SampleToInsertRatio
from replay.types import TransitionSpec


def make_learner(config: RunConfig, spec: AgentSpec) -> TD3Learner:
    """The learner on its device."""
    learner = TD3Learner(
        spec,
        block=config.block,
        policy_config=config.policy,
        surrogate_config=config.surrogate,
        config=config.td3,
        critic_config=config.critic,
        decay_updates=math.ceil(config.total_steps * config.td3.updates_per_step),
        seed=derive_seed(config.seed, Stream.LEARNER),
        device=learner_device(config.device),
    )
    if config.compile:
        accelerate(learner)
    return learner


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


def transition_spec(config: RunConfig, spec: AgentSpec) -> TransitionSpec:
    """What one transition holds; circuit parameters and bits only where a surrogate learns from them."""
    circuit = config.policy.circuit
    has_circuit = uses_circuit(config.block)
    return TransitionSpec(
        observation_size=spec.observation_size,
        action_size=spec.action_size,
        circuit_parameters_size=circuit.num_parameters if has_circuit else 0,
        num_bits=circuit.num_qubits if has_circuit else 0,
    )


def make_limiter(config: RunConfig, num_servers: int = 1) -> SampleToInsertRatio:
    """The samples-per-insert law of this run, checked against deadlock with its segment sizes.

    Raises:
        ReplayConfigError: if the slack is too small; over several servers each one's part of it must do.
    """
    limiter = SampleToInsertRatio.from_update_ratio(
        updates_per_step=config.td3.updates_per_step,
        batch_size=config.td3.batch_size,
        learning_starts=config.td3.learning_starts,
        slack_steps=config.replay.slack_steps,
    )
    largest_insert = config.actors.envs_per_actor * config.actors.segment_length
    limiter.check_chunks(
        largest_insert=num_servers * largest_insert, largest_sample=num_servers * config.td3.batch_size
    )
    return limiter
