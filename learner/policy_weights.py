"""Who moves the policy's weights: Adam, or a generator that Adam moves (Quantum-Train), by ``PolicyConfig.weights``."""

from learner.config import PolicyConfig, TD3Config
from learner.networks import PolicyNetwork
from learner.optimizers import PolicyOptimizer, make_adam
from learner.quantum_train.generated_weights import GeneratedWeights


def make_policy_optimizer(
    policy: PolicyNetwork, policy_config: PolicyConfig, config: TD3Config, *, seed: int
) -> PolicyOptimizer:
    """The policy's optimiser; with generated weights the policy holds those of the generator's start from here on.

    Args:
        policy: freshly initialised.
        policy_config: whether its weights are generated, and by what.
        config: learning rates.
        seed: of the generator's start.
    """
    if policy_config.weights == "trained":
        return make_adam(policy, config.policy_learning_rate)
    optimizer = GeneratedWeights(
        policy,
        policy_config.generator,
        learning_rates=(config.circuit_learning_rate, config.mapping_learning_rate),
        direct_learning_rate=config.policy_learning_rate,
        seed=seed,
    )
    policy.freeze_copy()
    return optimizer


def describe(optimizer: PolicyOptimizer) -> str | None:
    """One line on what is generated from what; None where weights are trained as they are."""
    if not isinstance(optimizer, GeneratedWeights):
        return None
    shape, num_circuits = optimizer.generator.shape, optimizer.generator.num_circuits
    return (
        f"{optimizer.num_weights:,} policy weights from {optimizer.num_trained:,} trained numbers ({num_circuits} "
        f"circuit{'' if num_circuits == 1 else 's'} {shape.family}, {shape.num_qubits} qubits, depth {shape.depth}, "
        "simulated exactly in the learner)"
    )


def size_metrics(optimizer: PolicyOptimizer) -> dict[str, float]:
    """Generated and trained numbers, for rows of metrics; empty where weights are trained as they are."""
    if not isinstance(optimizer, GeneratedWeights):
        return {}
    return {
        "generated_weights": float(optimizer.num_weights),
        "trained_numbers": float(optimizer.num_trained),
    }
