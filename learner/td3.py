"""The learner: one call of ``update`` is steps B1 to B4 of the paper's Algorithm 1.

It must never step an environment, wait, or ask a QPU: circuits appear here only as the stored pairs
(circuit parameters, bits) and as the surrogate fitted to them.

Axis legend: B batch, O observation, A action, P circuit parameters, N bits.
Source: arXiv:2503.09119, Algorithm 1 (Table 1) and Table 2; TD3 parts arXiv:1802.09477.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learner.blocks import differentiable_output, uses_circuit
from learner.config import AgentSpec, BlockName, PolicyConfig, SurrogateConfig, TD3Config
from learner.errors import LearnerDivergedError
from learner.losses import critic_loss, critic_target, polyak_update_, smoothed_action
from learner.networks import PolicyNetwork, QuantumSurrogate, TwinCritic
from learner.surrogate_training import SurrogateTrainer
from replay.types import TransitionBatch


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """A TransitionBatch on the learner's device."""

    observation: Float[Tensor, "B O"]
    action: Float[Tensor, "B A"]
    reward: Float[Tensor, "B"]
    discount: Float[Tensor, "B"]
    next_observation: Float[Tensor, "B O"]
    circuit_parameters: Float[Tensor, "B P"]
    bits: Float[Tensor, "B N"]


class TD3Learner:
    """Networks, optimisers and counters of one training run.

    Args:
        spec: environment sizes and action bounds.
        block: what stands between PreDNN and PostDNN.
        policy_config: sizes of the policy network.
        surrogate_config: surrogate and its tiny-batches; unused without a circuit.
        config: learning rule.
        seed: of the initial weights and of all noise inside updates.
        device: where the networks live.
    """

    def __init__(
        self,
        spec: AgentSpec,
        *,
        block: BlockName,
        policy_config: PolicyConfig,
        surrogate_config: SurrogateConfig,
        config: TD3Config,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.block = block
        self.config = config
        self.surrogate_config = surrogate_config
        self.device = torch.device(device)
        self.update_step = 0
        circuit = policy_config.circuit
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = PolicyNetwork(spec, policy_config, block).to(self.device)
            self.critic = TwinCritic(spec, config.critic_hidden_size).to(self.device)
            self.target_policy = PolicyNetwork(spec, policy_config, block).to(self.device)
            self.target_critic = TwinCritic(spec, config.critic_hidden_size).to(self.device)
            self.surrogate: QuantumSurrogate | None = None
            if uses_circuit(block):
                self.surrogate = QuantumSurrogate(
                    circuit.num_parameters, circuit.num_qubits, surrogate_config.hidden_size
                ).to(self.device)
        self.target_policy.load_state_dict(self.policy.state_dict())
        self.target_critic.load_state_dict(self.critic.state_dict())
        self.policy_optimizer = _adam(self.policy, config.policy_learning_rate)
        self.critic_optimizer = _adam(self.critic, config.critic_learning_rate)
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        self.surrogate_trainer = (
            SurrogateTrainer(self.surrogate, surrogate_config, self.generator) if self.surrogate is not None else None
        )
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def update(self, batch: TransitionBatch) -> None:
        """One iteration of B1 to B4 on one sampled batch."""
        tensors = self._to_device(batch)
        self.update_step += 1
        self._update_surrogate(tensors)
        self._update_critic(tensors)
        if self.update_step % self.config.policy_delay == 0:
            self._update_policy(tensors)
            self._update_targets()

    def _update_surrogate(self, batch: TensorBatch) -> None:
        """B1: fit the surrogate to the batch (learner/surrogate_training.py)."""
        if self.surrogate_trainer is not None:
            self._record("surrogate_loss", self.surrogate_trainer.fit(batch.circuit_parameters, batch.bits))

    def _update_critic(self, batch: TensorBatch) -> None:
        """B2: TD targets through the surrogate target policy, twin minimum, target smoothing."""
        with torch.no_grad():
            noise = torch.randn(batch.action.shape, generator=self.generator, device=self.device)
            next_action = smoothed_action(
                self._surrogate_action(self.target_policy, batch.next_observation),
                noise,
                action_scale=self.policy.action_scale,
                action_center=self.policy.action_center,
                noise_std=self.config.target_noise_std,
                noise_clip=self.config.target_noise_clip,
            )
            target_q = self.target_critic(batch.next_observation, next_action)
            target = critic_target(batch.reward, batch.discount, target_q, self.config.discount_factor)
        q = self.critic(batch.observation, batch.action)
        loss = critic_loss(q, target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        self._record("critic_loss", loss)
        self._record("q_value", q.detach().mean())

    def _update_policy(self, batch: TensorBatch) -> None:
        """B3: climb the first critic through the surrogate; only PreDNN and PostDNN move."""
        action = self._surrogate_action(self.policy, batch.observation)
        loss = -self.critic.first(batch.observation, action).mean()
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        # Asking for these gradients alone spares the weight gradients of critic and surrogate. A block
        # that ignores its input leaves the rows of PreDNN that feed it with a gradient of zero.
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.policy_optimizer.step()
        self._record("policy_loss", loss)

    def _update_targets(self) -> None:
        """B4: soft updates of target critics and target policy."""
        for target, source in ((self.target_critic, self.critic), (self.target_policy, self.policy)):
            with torch.no_grad():
                polyak_update_(list(target.parameters()), list(source.parameters()), self.config.polyak_coefficient)

    def _surrogate_action(self, policy: PolicyNetwork, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B A"]:
        """A_qt(s): the policy with the circuit replaced by its surrogate."""
        circuit_parameters, links = policy.encode(observation)
        output = differentiable_output(self.block, policy, self.surrogate, circuit_parameters, self.generator)
        return policy.decode(output, links)

    def metrics(self) -> dict[str, float]:
        """Means since the last call (docs: learner/README.md); the only place that waits for the device.

        Raises:
            LearnerDivergedError: if one of them is not finite.
        """
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        bad = [f"{name}={value}" for name, value in means.items() if not math.isfinite(value)]
        if bad:
            raise LearnerDivergedError(
                f"training diverged at update {self.update_step}: {', '.join(bad)}; expected finite losses. "
                "Resume from the last checkpoint with a lower learning rate, or check the environment's rewards"
            )
        return means

    def policy_parameters(self) -> dict[str, np.ndarray]:
        """Copies of the acting parameters (PreDNN, PostDNN, block weights, frozen ones too), by name.

        Raises:
            LearnerDivergedError: if one is not finite; such parameters are never published.
        """
        arrays = {name: tensor.detach().cpu().numpy().copy() for name, tensor in self.policy.named_parameters()}
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise LearnerDivergedError(f"policy parameters are not finite at update {self.update_step}: {bad}")
        return arrays

    def _record(self, name: str, value: Tensor) -> None:
        value = value.detach()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def _to_device(self, batch: TransitionBatch) -> TensorBatch:
        return TensorBatch(
            *(
                torch.from_numpy(column).to(self.device)
                for column in (
                    batch.observation,
                    batch.action,
                    batch.reward,
                    batch.discount,
                    batch.next_observation,
                    batch.circuit_parameters,
                    batch.bits,
                )
            )
        )


def _adam(module: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=learning_rate, fused=True)
