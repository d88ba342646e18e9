"""Configuration → agents. The only place that decides which implementation a setting of these runs means."""

import os

import torch

from actors.on_policy_agent import OnPolicyAgent
from actors.tasks import Task, TaskSpec
from cluster.errors import ConfigError
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.seeding import Stream, derive_seed
from learner.quantum_train.config import PolicyShape
from learner.quantum_train.generator import generator_shape
from learner.quantum_train.learner import OnPolicyLearner
from learner.quantum_train.policy import Policy, make_network, num_weights
from learner.quantum_train.shots import ShotSource
from learner.quantum_train.sources import ProbabilitySource
from qpu_service.generator.backends import make_generator_backend
from qpu_service.generator.types import GeneratorBackend
from qpu_service.places import worker_places

LEADER = -1
"""Number of the agent that the leading process keeps for itself: test rounds, averages, exports."""


def make_learner(config: QuantumTrainRunConfig, spec: TaskSpec, agent_id: int) -> OnPolicyLearner:
    """Policy and gradients of one agent, with its own QPU; all agents start from the same parameters.

    Raises:
        QPUError: if the agent's backend cannot be made.
    """
    shape = policy_shape(config, spec)
    seed = derive_seed(config.seed, Stream.LEARNER)
    policy = Policy(
        shape,
        config.generator,
        config.parametrisation,
        seed=seed,
        source=_make_source(config, shape, agent_id),
        latency_s=config.gradient.latency_s,
    )
    return OnPolicyLearner(policy, config.learning, seed=seed)


def make_agent(config: QuantumTrainRunConfig, agent_id: int) -> OnPolicyAgent:
    """One agent with its environments.

    Raises:
        ActorError: if the task does not fit.
        QPUError: if the agent's backend cannot be made.
    """
    tasks = [Task(config.env_id, config.num_actions) for _ in range(config.episodes_per_round)]
    return OnPolicyAgent(tasks, make_learner(config, tasks[0].spec, agent_id), config.observation_scale)


def task_spec(config: QuantumTrainRunConfig) -> TaskSpec:
    """What the policy must know of the task, after checking that there is one.

    Raises:
        ActorError: if the task does not fit.
    """
    task = Task(config.env_id, config.num_actions)
    try:
        task.reset(0)
        return task.spec
    finally:
        task.close()


def policy_shape(config: QuantumTrainRunConfig, spec: TaskSpec) -> PolicyShape:
    """Sizes of the policy network."""
    return PolicyShape(
        observation_size=spec.observation_size,
        num_outputs=spec.num_outputs,
        is_discrete=spec.is_discrete,
        hidden_sizes=config.hidden_sizes,
        action_low=spec.action_low,
        action_high=spec.action_high,
    )


def check_backend(config: QuantumTrainRunConfig) -> None:
    """Refuse a gradient that the backend cannot give, before anything starts.

    Raises:
        ConfigError: if exact probabilities are asked from a backend that only has shots.
        QPUError: if a backend cannot be made.
    """
    if config.parametrisation == "classical" or config.backend is None:
        return
    if config.gradient.method == "exact":
        if config.backend != "statevector":
            raise ConfigError(
                f"gradient.method exact needs the statevector backend, got backend {config.backend!r}; measure with "
                "--gradient.method spsa or parameter_shift"
            )
        make_generator_backend("statevector", device=os.environ.get("QPU_DEVICE")).close()
        return
    for agent_id in range(config.num_agents):
        _make_backend(config, agent_id).close()


def _make_source(config: QuantumTrainRunConfig, shape: PolicyShape, agent_id: int) -> ProbabilitySource | None:
    if config.parametrisation == "classical" or config.gradient.method == "exact":
        return None
    circuit, _ = generator_shape(num_weights(make_network(shape, torch.Generator())), config.generator)
    return ShotSource(
        circuit,
        _make_backend(config, agent_id),
        config.gradient,
        seed=derive_seed(config.seed, Stream.AGENT_CIRCUITS, agent_id + 1),
    )


def _make_backend(config: QuantumTrainRunConfig, agent_id: int) -> GeneratorBackend:
    places = worker_places(config.backend or "statevector", os.environ.get("QPU_DEVICE"), config.num_agents)
    place = places[max(agent_id, 0) % len(places)]
    return make_generator_backend(place.backend, device=place.device)
