"""Settings of Quantum-Train policies.

Source = the authors' released notebooks of arXiv:2407.06103 (QTRL), which arXiv:2412.08845 (Dist-QTRL) distributes.
"""

from dataclasses import dataclass
from typing import Literal

from qpu_service.generator.circuit import CircuitFamily

Parametrisation = Literal["quantum_train", "classical"]
Activation = Literal["none", "relu", "tanh"]
GradientMethod = Literal["exact", "parameter_shift", "spsa"]
Algorithm = Literal["reinforce", "ppo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorConfig:
    """Circuit and mapping model that generate a policy's weights."""

    family: CircuitFamily = "u3_cu3"
    """Gates of a layer. Source: U3 and a ring of CU3."""
    depth: int = 5
    """Layers L. Source: 5 for CartPole, 13 for MiniGrid; Fig. 1 of arXiv:2412.08845 has 3, 7, 13."""
    max_qubits: int | None = None
    """Largest register; a policy with more than 2^max_qubits weights is generated in batches, one circuit each.
    Default: one register of ⌈log2 M⌉ qubits. Source: batched generation as in arXiv:2409.02763."""
    mapping_hidden: tuple[int, ...] = (10, 10, 10)
    """Hidden units of the mapping model. Source: CartPole; (10, 64, 10) for MiniGrid."""
    activation: Activation = "none"
    """Between the mapping's layers. Source: none, so the mapping is an affine chain."""
    probability_gain: float = 0.1
    """γ of x = (β·tanh(γ·2^(N−1)·p))^α − mean. Source."""
    probability_scale: float = 1.0
    """β of the same formula. Source."""
    probability_exponent: float = 1.0
    """α of the same formula. Source."""
    weight_scale: float = 1.0
    """Factor on the generated weights; 1 in the source."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if self.max_qubits is not None and self.max_qubits < 2:
            raise ValueError(f"max_qubits must be at least 2, got {self.max_qubits}")
        if any(size < 1 for size in self.mapping_hidden):
            raise ValueError(f"every size in mapping_hidden must be at least 1, got {self.mapping_hidden}")
        for name in ("probability_gain", "probability_scale", "probability_exponent", "weight_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientConfig:
    """How probabilities and their gradient are had from a circuit."""

    method: GradientMethod = "exact"
    """exact (simulated), or from measured shots: parameter_shift (every angle apart) or spsa (all at once)."""
    shots: int = 8_192
    """Measurements per circuit where the method measures."""
    spsa_step_rad: float = 0.1
    """Size of SPSA's simultaneous step."""
    spsa_samples: int = 8
    """Random directions that one SPSA gradient averages; two circuits each."""
    latency_s: float = 0.0
    """Every question to the circuit takes at least so long, as at a device; for measurements of scaling."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.shots < 1 or self.spsa_samples < 1 or self.spsa_step_rad <= 0:
            raise ValueError(f"shots and spsa_samples must be at least 1 and spsa_step_rad positive, got {self}")
        if self.latency_s < 0:
            raise ValueError(f"latency_s must be 0 or more, got {self.latency_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningConfig:
    """Learning rule of one agent."""

    algorithm: Algorithm = "ppo"
    """reinforce as in the source, or ppo (arXiv:1707.06347)."""
    circuit_learning_rate: float = 1e-3
    """Adam's rate of the circuit's angles. Source: 1e-3 for CartPole, 1e-4 for MiniGrid."""
    mapping_learning_rate: float = 1e-3
    """Adam's rate of the mapping model, and of the weights themselves where the policy is classical. Source: same."""
    value_learning_rate: float = 1e-3
    """Adam's rate of PPO's value network, which is classical and not part of the policy."""
    discount_factor: float = 0.99
    """γ. Source."""
    entropy_coefficient: float = 0.0
    """Weight of the policy's entropy. Source: 0 for CartPole, 0.05 for MiniGrid."""
    max_gradient_norm: float | None = None
    """Gradients of the policy's parameters are scaled down to this norm. Source: none for CartPole, 10 for MiniGrid."""
    num_epochs: int = 1
    """Steps of the optimiser on one round's episodes; REINFORCE takes one."""
    clip_range: float = 0.2
    """ε of PPO's clipped ratio. Source: PPO."""
    advantage_floor: float = 1e-8
    """Added to the standard deviation that PPO's advantages are divided by, reward units: where all episodes are alike,
    what is left of the advantages is the value network's error, and nothing should blow it up."""
    max_kl: float | None = None
    """PPO skips the rest of a round's epochs once the policy has moved so far (mean KL divergence, nat)."""
    gae_coefficient: float = 0.95
    """λ of generalised advantage estimation. Source: PPO."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("circuit_learning_rate", "mapping_learning_rate", "value_learning_rate", "clip_range"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("discount_factor", "gae_coefficient"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)}")
        if self.num_epochs < 1 or (self.algorithm == "reinforce" and self.num_epochs != 1):
            raise ValueError(f"num_epochs must be at least 1, and 1 for reinforce, got {self.num_epochs}")
        if self.advantage_floor <= 0:
            raise ValueError(f"advantage_floor must be positive, got {self.advantage_floor}")
        if self.max_kl is not None and self.max_kl <= 0:
            raise ValueError(f"max_kl must be positive, got {self.max_kl}")
        if self.entropy_coefficient < 0 or (self.max_gradient_norm is not None and self.max_gradient_norm <= 0):
            raise ValueError(
                "entropy_coefficient must be 0 or more and max_gradient_norm positive, got "
                f"{self.entropy_coefficient} and {self.max_gradient_norm}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyShape:
    """What a policy network must know of its environment, and its hidden layers."""

    observation_size: int
    num_outputs: int
    """Actions to choose from, or components of a continuous action."""
    is_discrete: bool
    hidden_sizes: tuple[int, ...] = (128,)
    """Source: 128 for CartPole, 32 for MiniGrid."""
    action_low: tuple[float, ...] = ()
    """Lower bounds of a continuous action, environment units."""
    action_high: tuple[float, ...] = ()
    """Upper bounds of a continuous action, environment units."""
