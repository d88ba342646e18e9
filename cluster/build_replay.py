"""Configuration → what the replay holds and how often it is read. Without torch: checks start with it."""

from cluster.config import RunConfig
from learner.config import AgentSpec, uses_circuit
from replay.rate_limiter import SampleToInsertRatio
from replay.types import TransitionSpec


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
