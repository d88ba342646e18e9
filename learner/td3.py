"""The learner: one call of ``update`` is steps B1 to B4 of the paper's Algorithm 1.

It must never step an environment, wait, or ask a QPU: circuits appear here only as the stored pairs
(circuit parameters, bits) and as the surrogate fitted to them.

Axis legend: B batch, O observation, A action, P circuit parameters, N bits.
Source: arXiv:2503.09119, Algorithm 1 (Table 1) and Table 2; TD3 parts arXiv:1802.09477.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learner.blocks import differentiable_output, uses_circuit
from learner.circuit_model import CircuitModel
from learner.config import AgentSpec, BlockName, PolicyConfig, SurrogateConfig, TD3Config
from learner.critic_config import CriticConfig
from learner.critics import make_critic, normalise_rows_
from learner.errors import LearnerDivergedError
from learner.losses import polyak_update_, smoothed_action
from learner.networks import PolicyNetwork, QuantumSurrogate
from learner.normalisation import ReturnMoments, ReturnScale
from learner.surrogate_training import SurrogateTrainer
from learner.tensor_batch import TensorBatch
from learner.value_heads import make_head
from replay.types import TransitionBatch


class TD3Learner:
    """Networks, optimisers and counters of one training run.

    Args:
        spec: environment sizes and action bounds.
        block: what stands between PreDNN and PostDNN.
        policy_config: sizes of the policy network.
        surrogate_config: surrogate and its tiny-batches; unused without a circuit.
        config: learning rule.
        critic_config: networks, normalisation and value head of the critics; default: the paper's.
        decay_updates: updates over which the learning rates fall to ``config.final_learning_rate_share``.
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
        critic_config: CriticConfig | None = None,
        decay_updates: int | None = None,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self.block = block
        self.config = config
        self.critic_config = critic_config = critic_config or CriticConfig()
        self.surrogate_config = surrogate_config
        self.device = torch.device(device)
        self.update_step = 0
        circuit = policy_config.circuit
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = PolicyNetwork(spec, policy_config, block).to(self.device)
            self.critic = make_critic(spec, critic_config).to(self.device)
            self.target_policy = PolicyNetwork(spec, policy_config, block).to(self.device)
            # Without a soft copy the critics are their own targets.
            self.target_critic = make_critic(spec, critic_config).to(self.device) if critic_config.has_target else None
            self.surrogate: QuantumSurrogate | None = None
            if uses_circuit(block):
                self.surrogate = QuantumSurrogate(
                    circuit.num_parameters, circuit.num_qubits, surrogate_config.hidden_size
                ).to(self.device)
        self.target_policy.load_state_dict(self.policy.state_dict())
        # One normaliser: what the statistics say now holds for both.
        self.target_policy.normaliser = self.policy.normaliser
        if self.target_critic is not None:
            self.target_critic.load_state_dict(self.critic.state_dict())
        self.head = make_head(critic_config)
        self.return_scale = ReturnScale(critic_config.max_value if config.scale_rewards else math.inf)
        self._decay_updates = decay_updates
        self.policy_optimizer = _adam(self.policy, config.policy_learning_rate)
        self.critic_optimizer = _adam(self.critic, config.critic_learning_rate)
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        self.surrogate_trainer = (
            SurrogateTrainer(self.surrogate, surrogate_config, self.generator) if self.surrogate is not None else None
        )
        self.circuit_model = (
            CircuitModel(block, circuit, self.surrogate_trainer, self.generator) if self.surrogate_trainer else None
        )
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def update(self, batch: TransitionBatch) -> None:
        """One iteration of B1 to B4 on one sampled batch."""
        tensors = self._to_device(batch)
        self.update_step += 1
        self._decay_learning_rates()
        if self.policy.normaliser is not None:
            self.policy.normaliser.update(tensors.observation)
        self._update_surrogate(tensors)
        self._update_critic(tensors)
        if self.update_step % self.config.policy_delay == 0:
            self._update_policy(tensors)
            self._update_targets()
        self._measure_surrogate(tensors)

    def observe_returns(self, moments: ReturnMoments) -> None:
        """Take in the discounted returns of a finished training episode, from which rewards get their scale."""
        if self.config.scale_rewards:
            self.return_scale.add(moments)

    def _update_surrogate(self, batch: TensorBatch) -> None:
        """B1: fit the surrogate to the batch (learner/surrogate_training.py)."""
        if self.circuit_model is not None:
            self._record_all(self.circuit_model.fit(batch, self.policy, self.target_policy))

    def _measure_surrogate(self, batch: TensorBatch) -> None:
        """Compare the surrogate with the exact circuit, now and then."""
        if self.circuit_model is not None and self.circuit_model.is_measured(self.update_step):
            self._record_all(self.circuit_model.measure(batch, self.policy, self._climbed_value))

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
        with self._precision():
            outputs, next_outputs = self._critic_outputs(batch, next_action)
        with torch.no_grad():
            reward = batch.reward / self.return_scale.scale if self.config.scale_rewards else batch.reward
            target = self.head.target(next_outputs, reward, self.config.discount_factor * batch.discount)
        loss = self.head.loss(outputs, target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        if self.critic_config.unit_rows:
            normalise_rows_(self.critic)
        self._record("critic_loss", loss)
        self._record("q_value", self.head.values(outputs.detach()).mean())

    def _critic_outputs(self, batch: TensorBatch, next_action: Float[Tensor, "B A"]) -> tuple[Tensor, Tensor]:
        """Outputs of the critics at (s, a), and without gradient those of the targets at (s', ã)."""
        observation = self.policy.normalise(batch.observation)
        next_observation = self.policy.normalise(batch.next_observation)
        target_critic = self.target_critic if self.target_critic is not None else self.critic
        if self.critic_config.normalisation == "batch":
            # Both pairs pass together, so that one set of batch statistics holds for both (arXiv:1902.05605).
            pairs = torch.cat([observation, next_observation]), torch.cat([batch.action, next_action])
            outputs, next_outputs = self.critic(*pairs).chunk(2, dim=1)
            if self.target_critic is not None:
                with torch.no_grad():
                    next_outputs = target_critic(*pairs).chunk(2, dim=1)[1]
        else:
            with torch.no_grad():
                next_outputs = target_critic(next_observation, next_action)
            outputs = self.critic(observation, batch.action)
        num_targets = self.critic_config.num_target_critics
        if num_targets is not None and num_targets < self.critic_config.num_critics:
            order = torch.randperm(self.critic_config.num_critics, generator=self.generator, device=self.device)
            next_outputs = next_outputs[order[:num_targets]]
        return outputs, next_outputs.detach()

    def _update_policy(self, batch: TensorBatch) -> None:
        """B3: climb the critic through the surrogate; only PreDNN and PostDNN move."""
        action = self._surrogate_action(self.policy, batch.observation)
        with self._precision():
            loss = -self._climbed_value(self.policy.normalise(batch.observation), action)
        parameters = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        # Asking for these gradients alone spares the weight gradients of critic and surrogate. A block
        # that ignores its input leaves the rows of PreDNN that feed it with a gradient of zero.
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        self.policy_optimizer.step()
        self._record("policy_loss", loss)

    def _climbed_value(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, ""]:
        """Mean Q that the policy climbs; normalisations by their running statistics, no dropout."""
        self.critic.eval()
        climbs = self.critic_config.climbs
        values = self.head.values(
            self.critic.first(observation, action) if climbs == "first" else self.critic(observation, action)
        )
        self.critic.train()
        return values.amin(dim=0).mean() if climbs == "min" else values.mean()

    def _update_targets(self) -> None:
        """B4: soft updates of target critics and target policy."""
        pairs: list[tuple[torch.nn.Module, torch.nn.Module]] = [(self.target_policy, self.policy)]
        if self.target_critic is not None:
            pairs.append((self.target_critic, self.critic))
        for target, source in pairs:
            with torch.no_grad():
                polyak_update_(list(target.parameters()), list(source.parameters()), self.config.polyak_coefficient)

    def _precision(self) -> torch.autocast:
        """The critics are nearly all of an update's products; policy, surrogate and losses stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    def _decay_learning_rates(self) -> None:
        """Linear from the configured rates of policy and critics to their final share."""
        if self._decay_updates is None:
            return
        progress = min(self.update_step / self._decay_updates, 1.0)
        share = 1 - (1 - self.config.final_learning_rate_share) * progress
        self.policy_optimizer.param_groups[0]["lr"] = self.config.policy_learning_rate * share
        self.critic_optimizer.param_groups[0]["lr"] = self.config.critic_learning_rate * share

    def _surrogate_action(self, policy: PolicyNetwork, observation: Float[Tensor, "B O"]) -> Float[Tensor, "B A"]:
        """A_qt(s): the policy with the circuit replaced by its surrogate."""
        circuit_parameters, links = policy.encode(observation)
        output = differentiable_output(self.block, policy, self.circuit_model, circuit_parameters, self.generator)
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
        """Copies of the acting parameters (PreDNN, PostDNN, block, frozen weights, observation statistics), by name.

        Raises:
            LearnerDivergedError: if one is not finite; such parameters are never published.
        """
        arrays = {name: tensor.cpu().numpy().copy() for name, tensor in self.policy.state_dict().items()}
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise LearnerDivergedError(f"policy parameters are not finite at update {self.update_step}: {bad}")
        return arrays

    def _record_all(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self._record(name, value)

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
