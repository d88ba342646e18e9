"""Networks of the agent: policy (PreDNN, PostDNN), twin critics, quantum surrogate.

Axis legend: B batch, O observation, A action, P circuit parameters, N qubits, C classical links.
Sizes follow from the environment and the circuit; at Humanoid-v4 they are those of
arXiv:2503.09119, Table 2.
"""

import copy
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from learner.config import AgentSpec, BlockName, PolicyConfig
from learner.critic_kernel import CriticKernel
from learner.matching import matched_sizes
from learner.normalisation import ObservationNormaliser
from learner.policy_families import make_action_head
from learner.precision import in_float32
from learner.surrogate_kernel import SurrogateKernel
from qpu_service.circuit import CircuitShape


class PolicyNetwork(nn.Module):
    """PreDNN → block T → PostDNN with classical links around the block (Fig. 2 of the paper).

    The block itself is not in here except for ``linear`` and ``mlp``, whose weights are trained with the
    policy: callers ask for ``encode``, run the block, and hand its output to ``decode``.
    """

    def __init__(self, spec: AgentSpec, config: PolicyConfig, block: BlockName) -> None:
        super().__init__()
        self.num_parameters = config.circuit.num_parameters
        self.num_bits = config.circuit.num_qubits
        self.family = make_action_head(config, spec.action_size)
        sizes = matched_sizes(spec, config, self.family.num_outputs) if block == "mlp" else None
        hidden_size = config.hidden_size if sizes is None else sizes.policy
        norm = config.hidden_normalisation
        self.pre = _mlp(spec.observation_size, hidden_size, self.num_parameters + config.num_links, norm)
        self.post = _mlp(self.num_bits + config.num_links, hidden_size, self.family.num_outputs, norm)
        self.normaliser = ObservationNormaliser(spec.observation_size) if config.normalise_observations else None
        self.angle_limit = config.angle_limit_rad
        self.register_buffer("is_angle", _is_angle(config.circuit), persistent=False)
        self.is_angle: Tensor
        self.parameter_norm = nn.RMSNorm(self.num_parameters) if config.normalise_parameters else None
        self.linear_block = nn.Linear(self.num_parameters, self.num_bits) if block == "linear" else None
        self.mlp_block = None if sizes is None else _mlp(self.num_parameters, sizes.block, self.num_bits)
        # A copy and not a draw of its own: with the same seed this policy starts as the pqc's does.
        self.frozen_pre = copy.deepcopy(self.pre).requires_grad_(False) if block == "frozen_pqc" else None
        if self.frozen_pre is not None and self.parameter_norm is not None:
            self.parameter_norm.requires_grad_(False)
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        self.register_buffer("action_scale", (high - low) / 2, persistent=False)
        self.register_buffer("action_center", (high + low) / 2, persistent=False)
        self.action_scale: Tensor
        self.action_center: Tensor

    def freeze_copy(self) -> None:
        """``frozen_pqc``: take the frozen copy of PreDNN anew, after its start was replaced."""
        if self.frozen_pre is not None:
            self.frozen_pre.load_state_dict(self.pre.state_dict())

    def encode(self, observation: Float[Tensor, "B O"]) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B C"]]:
        """PreDNN: circuit parameters q_i (rad and real-valued qubit indices) and classical links."""
        observation = self.normalise(observation)
        output = self.pre(observation)
        # One split and not two slices: the gradient of each slice is a matrix of zeros around it.
        parameters, links = output.split([self.num_parameters, output.shape[1] - self.num_parameters], dim=1)
        if self.frozen_pre is not None:
            parameters = self.frozen_pre(observation)[:, : self.num_parameters]
        if self.parameter_norm is not None:
            parameters = self.parameter_norm(parameters)
        if self.angle_limit is not None:
            bounded = self.angle_limit * torch.tanh(parameters / self.angle_limit)
            parameters = torch.where(self.is_angle, bounded, parameters)
        return parameters, links

    def normalise(self, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B O"]:
        """What PreDNN sees of an observation; the critics see the same."""
        if self.normaliser is None:
            return observation
        normalised: Tensor = self.normaliser(observation)
        return normalised

    def decode(
        self,
        block_output: Float[Tensor, "B N"],
        links: Float[Tensor, "B C"],
        noise: Float[Tensor, "B E"] | None = None,
    ) -> Float[Tensor, "B A"]:
        """PostDNN: action inside the environment's bounds; without noise that of test rounds."""
        return self.sample(block_output, links, noise)[0]

    def sample(
        self, block_output: Float[Tensor, "B N"], links: Float[Tensor, "B C"], noise: Float[Tensor, "B E"] | None
    ) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B"] | None]:
        """Action, and log π of it in units of (-1, 1) where the family has a density (learner/policy_families.py)."""
        if noise is None:
            noise = block_output.new_zeros(len(block_output), self.family.num_noise)
        squashed, log_prob = self.family(self.post(torch.cat([block_output, links], dim=1)), noise)
        return squashed * self.action_scale + self.action_center, log_prob


class TwinCritic(nn.Module):
    """Two segmented critics, evaluated as one batched product: [[O, H], [H + A, H, 1]].

    The observation passes the first segment alone; the action joins before the second.
    Source: arXiv:2503.09119, Table 2, footnote 9.
    """

    def __init__(self, spec: AgentSpec, hidden_size: int) -> None:
        super().__init__()
        self.observation_layer = TwinLinear(spec.observation_size, hidden_size)
        self.joint_layer = TwinLinear(hidden_size + spec.action_size, hidden_size)
        self.value_layer = TwinLinear(hidden_size, 1)
        self.kernel: CriticKernel | None = None
        """Computes where set (make_critic_kernel); weights then get their gradients in its ``step`` alone."""

    def forward(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, "2 B"]:
        """Q-values of both critics."""
        if self.kernel is not None and not torch.is_autocast_enabled("cpu") and not action.requires_grad:
            return self.kernel.values(observation, action)
        features = functional.leaky_relu(self.observation_layer(observation.expand(2, -1, -1)))
        joint = torch.cat([features, action.expand(2, -1, -1)], dim=2)
        return in_float32(self.value_layer, functional.leaky_relu(self.joint_layer(joint))).squeeze(2)

    def first(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B"]:
        """Q-values of the first critic alone, which is what TD3's policy climbs."""
        if self.kernel is not None and not torch.is_autocast_enabled("cpu"):
            return self.kernel.first(observation, action)
        features = functional.leaky_relu(self.observation_layer.first(observation))
        joint = functional.leaky_relu(self.joint_layer.first(torch.cat([features, action], dim=1)))
        return in_float32(self.value_layer.first, joint).squeeze(1)


class TwinLinear(nn.Module):
    """Two independent linear layers in one tensor, initialised as ``torch.nn.Linear`` would."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(2, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(2, 1, out_features).uniform_(-bound, bound))

    def forward(self, inputs: Float[Tensor, "2 B I"]) -> Float[Tensor, "2 B J"]:
        """Both layers, each on its own inputs."""
        return torch.baddbmm(self.bias, inputs, self.weight)

    def first(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B J"]:
        """The first layer alone."""
        return torch.addmm(self.bias[0], inputs, self.weight[0])


class QuantumSurrogate(nn.Module):
    """Classical stand-in for a circuit: circuit parameters → logits of the expected bits.

    The paper calls it qtDNN, [220, 2048, 10] with LeakyReLU; trained with BCE against sampled bits,
    it approximates the circuit only near the batch at hand, which is all an update needs.
    Source: arXiv:2503.09119, Section 2 and Table 2.
    """

    def __init__(self, num_parameters: int, num_qubits: int, hidden_size: int | None = None) -> None:
        super().__init__()
        self.network = _mlp(num_parameters, hidden_size or 2 ** (num_qubits + 1), num_qubits)
        self.kernel: SurrogateKernel | None = None
        """Computes ``forward`` where set (make_surrogate_kernel); its weights then get no gradient from there."""

    def logits(self, circuit_parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
        """Logits of P(bit = 1)."""
        output: Tensor = self.network(circuit_parameters)
        return output

    def forward(self, circuit_parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
        """Expected bits in 0..1, differentiable in the circuit parameters."""
        if self.kernel is not None and circuit_parameters.dtype == torch.float32:
            return self.kernel.expected_bits(circuit_parameters)
        return torch.sigmoid(self.logits(circuit_parameters))


def _is_angle(circuit: CircuitShape) -> Bool[Tensor, "P"]:
    """Which circuit parameters are angles; the others are qubit indices."""
    layer = [True] * (2 * circuit.num_qubits) + [False, False]
    return torch.tensor(layer * circuit.num_layers)


def _mlp(num_inputs: int, hidden_size: int, num_outputs: int, normalisation: str = "none") -> nn.Sequential:
    norm = [nn.LayerNorm(hidden_size)] if normalisation == "layer" else []
    return nn.Sequential(nn.Linear(num_inputs, hidden_size), *norm, nn.LeakyReLU(), nn.Linear(hidden_size, num_outputs))
