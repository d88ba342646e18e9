"""Settings of the agent and of its learning rule. Defaults are the paper's; each field names its source.

Paper = arXiv:2503.09119, Table 2. TD3 = the TD3 settings that the paper's Table 2 points to
(learning rate 3e-4, γ 0.99 and the noises of Fujimoto et al. 2018, arXiv:1802.09477).
"""

from dataclasses import dataclass, field
from typing import Literal

from learner.quantum_train.config import GeneratorConfig
from qpu_service.circuit import CircuitShape

BlockName = Literal["pqc", "linear", "random_bits", "zeros", "mlp", "frozen_pqc", "unentangled_pqc"]
Precision = Literal["float32", "bfloat16", "auto"]
PolicyWeights = Literal["trained", "generated"]
PolicyFamily = Literal["deterministic", "gaussian", "flow", "variational"]

BLOCKS: dict[BlockName, str] = {
    "pqc": "parameterised quantum circuit, trained through its surrogate (paper: hDQNN)",
    "linear": "fully connected linear map, trained by backpropagation (paper: FC)",
    "random_bits": "uniform random bits, whatever the input (paper: RBG)",
    "zeros": "constant zeros (paper: 0L)",
    "mlp": "control: one hidden layer and a sigmoid, as many trained parameters as pqc",
    "frozen_pqc": "control: the circuit's inputs come from a frozen random PreDNN",
    "unentangled_pqc": "control: the circuit without its CZ gates, a product state",
}
_CIRCUIT_BLOCKS: tuple[BlockName, ...] = ("pqc", "frozen_pqc", "unentangled_pqc")


def uses_circuit(block: BlockName) -> bool:
    """Whether acting needs the QPU service and learning needs a surrogate."""
    return block in _CIRCUIT_BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Policy network: PreDNN → block T → PostDNN, with classical links around the block."""

    hidden_size: int = 256
    """Hidden units of PreDNN and of PostDNN. Source: paper."""
    num_links: int = 10
    """Classical links c from PreDNN straight to PostDNN. Source: paper, d_c-link."""
    circuit: CircuitShape = field(default_factory=CircuitShape)
    """Size of the circuit. Source: paper, N and M."""
    normalise_observations: bool = False
    """Bring observations to mean 0 and variance 1 by running statistics, for policy and critics."""
    hidden_normalisation: Literal["none", "layer"] = "none"
    """LayerNorm before the activations of PreDNN and PostDNN."""
    family: PolicyFamily = "deterministic"
    """What PostDNN's outputs mean: deterministic (TD3), gaussian (SACLite's squashed Gaussian), flow (conditional
    RealNVP) or variational (VQL). Source: thesis (learner/critic_config.py), 2.1.2."""
    weights: PolicyWeights = "trained"
    """trained: the weights themselves (paper); generated: angles of a circuit and a mapping model that make them
    (Quantum-Train, docs/dist-qtrl.md), for every block. Both act, publish and export plain weights."""
    generator: GeneratorConfig = field(
        default_factory=lambda: GeneratorConfig(max_qubits=13, probability_gain=1.0, probability_scale=10.0)
    )
    """Circuit and mapping model of generated weights. Registers of 13 qubits, and a stretch that gives
    probabilities a say beside the binary digits, which would decide nearly alone with the source's."""
    num_flow_layers: int = 2
    """Affine couplings of the flow family."""
    latent_size: int = 32
    """Latent components of the variational family."""
    angle_limit_rad: float | None = None
    """Keep every angle within plus and minus this, by limit · tanh(x / limit). A circuit whose angles are small is
    smooth, and its surrogate's gradient is right (docs/gradients.md); with M layers a qubit still turns by M times
    the limit, so that π / M leaves every bit in reach. None leaves them unbounded, as the paper does."""
    normalise_parameters: bool = False
    """RMSNorm with learned gains on the circuit parameters: angles that stay bounded whatever the critic asks for."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.hidden_size >= 1, "hidden_size", self.hidden_size, "at least 1")
        _require(self.num_links >= 0, "num_links", self.num_links, "0 or more")
        limit = self.angle_limit_rad
        _require(limit is None or limit > 0, "angle_limit_rad", limit, "positive")
        _require(self.num_flow_layers >= 1, "num_flow_layers", self.num_flow_layers, "at least 1")
        _require(self.latent_size >= 1, "latent_size", self.latent_size, "at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateConfig:
    """Quantum surrogate (paper: qtDNN) and its training inside one update."""

    hidden_size: int | None = None
    """Hidden units; the default is 2^(N+1), which is the paper's 2048 at its N = 10."""
    learning_rate: float = 3e-4
    """Source: paper, α of qtDNN."""
    num_tiny_batches: int = 8
    """Tiny-batches per update, N_qt. The paper leaves it open; 8 × 32 reads each sampled batch once."""
    tiny_batch_size: int = 32
    """Transitions in a tiny-batch. The paper leaves it open."""
    targets: Literal["bits", "bit_means"] = "bits"
    """What the surrogate is fitted to: measured bits (paper), or their exact means; simulators alone have those."""
    fit_on: Literal["replay", "policy"] = "replay"
    """Whose circuit parameters it is fitted at: those stored with the transitions (paper), or those that policy and
    target policy have now at the sampled states, which is where steps B2 and B3 ask it. Needs ``bit_means``."""
    jitter_rad: float = 0.0
    """Std of the noise on the circuit parameters that ``fit_on=policy`` fits at: states may span few directions of the
    circuit's parameters, and across them a surrogate that never left the policy has no gradient to speak of."""
    tolerance: float | None = None
    """Stop at the first tiny-batch that shows, before it is trained on, a BCE less than this above the entropy of its
    exact bits, nats per bit; N_qt is then the most. None always takes N_qt. Needs a simulator."""
    gradient: Literal["surrogate", "exact"] = "surrogate"
    """Through what steps B2 and B3 see the circuit: its surrogate (paper), or its exact expectations and their
    gradient by a simulator, without step B1: the upper bound of what a surrogate can be worth."""
    quality_period_updates: int | None = 100
    """Updates between two comparisons of the surrogate with the exact circuit, which metrics show; None makes none."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.hidden_size is None or self.hidden_size >= 1, "hidden_size", self.hidden_size, "at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        _require(self.num_tiny_batches >= 1, "num_tiny_batches", self.num_tiny_batches, "at least 1")
        _require(self.tiny_batch_size >= 1, "tiny_batch_size", self.tiny_batch_size, "at least 1")
        period = self.quality_period_updates
        _require(period is None or period >= 1, "quality_period_updates", period, "at least 1, or None")
        _require(self.jitter_rad >= 0, "jitter_rad", self.jitter_rad, "0 or more")
        _require(self.tolerance is None or self.tolerance > 0, "tolerance", self.tolerance, "positive, or None")
        if self.jitter_rad and self.fit_on == "replay":
            raise ValueError(
                "surrogate.jitter_rad moves the circuits of fit_on=policy, got fit_on=replay; set that too"
            )
        if self.fit_on == "policy" and self.targets == "bits":
            raise ValueError(
                "surrogate.fit_on=policy needs targets that can be computed: the replay holds no bits of circuits "
                "that the policy would run now; set surrogate.targets=bit_means, or fit_on=replay"
            )

    @property
    def needs_simulator(self) -> bool:
        """Whether training asks for exact means or gradients, which a device has not."""
        return self.targets == "bit_means" or self.gradient == "exact" or self.tolerance is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class TD3Config:
    """Learning rule: steps B2 to B4 of the paper's Algorithm 1."""

    batch_size: int = 256
    """Transitions per update, N_b. Source: paper, Section 1; TD3."""
    discount_factor: float = 0.99
    """γ. Source: paper."""
    polyak_coefficient: float = 5e-3
    """τ of both soft targets. Source: paper."""
    policy_learning_rate: float = 3e-4
    """α of PreDNN and PostDNN. Source: paper."""
    circuit_learning_rate: float = 3e-4
    """Adam's rate of the angles that generate the policy's weights (policy.weights=generated), rad. An angle moves all
    weights at once: with this rate actions move about as fast as where Adam moves the weights themselves."""
    mapping_learning_rate: float = 1e-4
    """The same of their mapping model; what is not generated keeps policy_learning_rate."""
    critic_learning_rate: float = 3e-4
    """α of the critics. Source: paper."""
    policy_delay: int = 2
    """Updates per policy and target update, N_A. Source: TD3."""
    target_noise_std: float = 0.2
    """Std of target policy smoothing, fraction of the action half-range. Source: TD3, Section 5.3."""
    target_noise_clip: float = 0.5
    """Bound of that noise, fraction of the action half-range. Source: TD3, Section 5.3."""
    updates_per_step: float = 1.0
    """Update-to-data ratio: updates per environment step once learning has started. Source: TD3."""
    learning_starts: int = 25_000
    """Environment steps with uniform random actions before the first update. Source: TD3."""
    n_step: int = 1
    """Environment steps that a return looks ahead before it bootstraps. MR.Q (arXiv:2501.16142): 3."""
    prioritised: bool = False
    """Draw transitions by their last temporal-difference error (LAP, arXiv:2007.06049) instead of uniformly, and fit
    a scalar head with the Huber loss that belongs to it."""
    initial_entropy_coefficient: float = 0.1
    """β at the first update, for families with a density; tuned from there on. Source: thesis, eq. 2.1.2."""
    target_entropy: float | None = None
    """Entropy that β aims at, nats in units of (-1, 1); default: minus the number of action components (SAC)."""
    critic_entropy: bool = False
    """Whether targets count the entropy bonus too: SAC (arXiv:1812.05905); without it SACLite (thesis, 2.1.1)."""
    scale_rewards: bool = False
    """Divide rewards so that discounted returns have a standard deviation of at most 1 and stay within
    ``critic.max_value``. Source: SimbaV2 (arXiv:2502.15280)."""
    final_learning_rate_share: float = 1.0
    """Share of their learning rates that policy and critics keep in the end; they fall to it linearly."""
    learning_rate_decay_share: float = 1.0
    """Share of the run's updates over which they fall; what is left goes on with the final rates."""
    precision: Precision = "float32"
    """bfloat16: matrix products of the critics in bfloat16, weights and losses in float32; faster on GPUs and on CPUs
    with AMX, ten times slower on CPUs that have to imitate it. auto: on GPUs and on CPUs with AMX."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(0 <= self.discount_factor <= 1, "discount_factor", self.discount_factor, "in 0..1")
        _require(0 < self.polyak_coefficient <= 1, "polyak_coefficient", self.polyak_coefficient, "in (0, 1]")
        _require(self.policy_delay >= 1, "policy_delay", self.policy_delay, "at least 1")
        _require(self.target_noise_std >= 0, "target_noise_std", self.target_noise_std, "0 or more")
        _require(self.target_noise_clip >= 0, "target_noise_clip", self.target_noise_clip, "0 or more")
        _require(self.updates_per_step > 0, "updates_per_step", self.updates_per_step, "positive")
        _require(self.learning_starts >= 1, "learning_starts", self.learning_starts, "at least 1")
        _require(self.n_step >= 1, "n_step", self.n_step, "at least 1")
        coefficient = self.initial_entropy_coefficient
        _require(coefficient > 0, "initial_entropy_coefficient", coefficient, "positive")
        for name in ("final_learning_rate_share", "learning_rate_decay_share"):
            _require(0 < getattr(self, name) <= 1, name, getattr(self, name), "in (0, 1]")
        rates = ("policy_learning_rate", "circuit_learning_rate", "mapping_learning_rate", "critic_learning_rate")
        for name in rates:
            _require(getattr(self, name) > 0, name, getattr(self, name), "positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """What the networks must know of an environment: sizes and action bounds."""

    observation_size: int
    action_low: tuple[float, ...]
    """Lower bound of each action component, environment units."""
    action_high: tuple[float, ...]
    """Upper bound of each action component, environment units."""

    @property
    def action_size(self) -> int:
        """Number of action components."""
        return len(self.action_low)


def check_family(family: PolicyFamily, action_size: int) -> None:
    """Refuse a policy family that cannot make actions of this size.

    Raises:
        ValueError: if it is a flow of a single component.
    """
    if family == "flow" and action_size < 2:
        raise ValueError(
            "the flow family couples halves of the action, so it needs at least 2 components, "
            f"got {action_size}; choose gaussian or variational"
        )


def _require(is_valid: bool, name: str, value: object, expected: str) -> None:
    if not is_valid:
        raise ValueError(f"{name} must be {expected}, got {value}")
