"""Named starting points of Quantum-Train runs. Sizes are the source's (released code of arXiv:2407.06103)."""

from cluster.quantum_train.config import QuantumTrainRunConfig, TestConfig
from learner.quantum_train.config import GeneratorConfig, LearningConfig

PRESETS: dict[str, QuantumTrainRunConfig] = {
    "qtrl-cartpole": QuantumTrainRunConfig(
        env_id="CartPole-v1",
        total_steps=400_000,
        stop_return=495.0,
        # Rates from a search on this task: the source's 1e-3 with REINFORCE also solves it, ten times as slowly.
        learning=LearningConfig(
            num_epochs=10, circuit_learning_rate=1e-2, mapping_learning_rate=3e-3, value_learning_rate=3e-3
        ),
    ),
    "qtrl-cartpole-source": QuantumTrainRunConfig(
        env_id="CartPole-v1",
        total_steps=400_000,
        stop_return=495.0,
        episodes_per_round=1,
        learning=LearningConfig(algorithm="reinforce"),
        tests=TestConfig(period_rounds=50),
    ),
    "qtrl-minigrid": QuantumTrainRunConfig(
        env_id="MiniGrid-Empty-5x5-v0",
        num_actions=3,
        observation_scale=0.1,
        hidden_sizes=(32,),
        total_steps=300_000,
        stop_return=0.94,
        episodes_per_round=16,
        generator=GeneratorConfig(depth=13, mapping_hidden=(10, 64, 10)),
        learning=LearningConfig(
            num_epochs=4,
            circuit_learning_rate=3e-3,
            mapping_learning_rate=1e-3,
            value_learning_rate=3e-3,
            entropy_coefficient=0.01,
            max_gradient_norm=0.5,
            # Without these the policy reaches 0.95 and then, with all episodes alike, collapses for good: one of five
            # seeds with max_kl alone, every one that was tried without.
            max_kl=0.02,
            advantage_floor=0.1,
        ),
        # Drawn actions, as in the source: the most probable one stands in front of a wall for ever while it learns.
        tests=TestConfig(period_rounds=5, explore=True),
    ),
    "qtrl-minigrid-source": QuantumTrainRunConfig(
        env_id="MiniGrid-Empty-5x5-v0",
        num_actions=3,
        hidden_sizes=(32,),
        total_steps=400_000,
        stop_return=0.94,
        episodes_per_round=1,
        generator=GeneratorConfig(depth=13, mapping_hidden=(10, 64, 10)),
        learning=LearningConfig(
            algorithm="reinforce",
            circuit_learning_rate=1e-4,
            mapping_learning_rate=1e-4,
            entropy_coefficient=0.05,
            max_gradient_norm=10.0,
        ),
        tests=TestConfig(period_rounds=50, explore=True),
    ),
}

DESCRIPTIONS: dict[str, str] = {
    "qtrl-cartpole": "CartPole-v1, 898 weights from 10 qubits (Quantum-Train) with PPO; about a minute",
    "qtrl-cartpole-source": "the same with REINFORCE and rates of arXiv:2407.06103",
    "qtrl-minigrid": "MiniGrid-Empty-5x5, 4,835 weights from 13 qubits with PPO",
    "qtrl-minigrid-source": "the same with REINFORCE and rates of arXiv:2407.06103",
}
