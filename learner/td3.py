"""The learner: one call of ``update`` is steps B1 to B4 of the paper's Algorithm 1.

It must never step an environment, wait, or ask a QPU: circuits appear here only as the stored pairs
(circuit parameters, bits) and as the surrogate fitted to them.

Axis legend: B batch, O observation, A action, P circuit parameters, N bits.
Source: arXiv:2503.09119, Algorithm 1 (Table 1) and Table 2; TD3 parts arXiv:1802.09477.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from learner.asymmetry import Asymmetry
from learner.blocks import differentiable_output
from learner.circuit_model import CircuitModel
from learner.config import AgentSpec, BlockName, PolicyConfig, SurrogateConfig, TD3Config, uses_circuit
from learner.critic_config import CriticConfig
from learner.critics import climbed_value, descend, make_critic, paired_outputs
from learner.errors import LearnerDivergedError
from learner.losses import polyak_update_, smoothed_action
from learner.networks import PolicyNetwork, QuantumSurrogate
from learner.normalisation import ReturnMoments, ReturnScale
from learner.optimizers import make_adam, scale_learning_rates
from learner.policy_families import EntropyCoefficient
from learner.policy_weights import make_policy_optimizer, size_metrics
from learner.precision import critic_autocast
from learner.running_means import RunningMeans
from learner.step_kind import StepKind
from learner.surrogate_training import SurrogateTrainer
from learner.tensor_batch import BatchLoader, TensorBatch, host_copies
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
        decay_updates: updates of the run, over ``config.learning_rate_decay_share`` of which the learning rates fall.
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
        self.generator = torch.Generator(self.device).manual_seed(seed + 1)
        circuit = policy_config.circuit
        new_critic = partial(make_critic, spec, critic_config, self.generator)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.policy = PolicyNetwork(spec, policy_config, block).to(self.device)
            self.critic = new_critic().to(self.device)
            self.target_policy = PolicyNetwork(spec, policy_config, block).to(self.device)
            # Without a soft copy the critics are their own targets.
            self.target_critic = new_critic().to(self.device) if critic_config.has_target else None
            self.surrogate: QuantumSurrogate | None = None
            if uses_circuit(block):
                self.surrogate = QuantumSurrogate(
                    circuit.num_parameters, circuit.num_qubits, surrogate_config.hidden_size
                ).to(self.device)
            self.policy_optimizer = make_policy_optimizer(self.policy, policy_config, config, seed=seed)
        self.target_policy.load_state_dict(self.policy.state_dict())
        # One normaliser: what the statistics say now holds for both.
        self.target_policy.normaliser = self.policy.normaliser
        if self.target_critic is not None:
            self.target_critic.load_state_dict(self.critic.state_dict())
        self.head = make_head(critic_config, is_huber=config.prioritised)
        self.return_scale = ReturnScale(critic_config.max_value if config.scale_rewards else math.inf)
        self.asymmetry = Asymmetry(critic_config, decay_updates, self.device)
        self._decay_updates = decay_updates
        self.loader = BatchLoader(self.device)
        self.critic_optimizer = make_adam(self.critic, config.critic_learning_rate)
        self.surrogate_trainer = (
            SurrogateTrainer(self.surrogate, surrogate_config, self.generator) if self.surrogate is not None else None
        )
        self.circuit_model = (
            CircuitModel(block, circuit, self.surrogate_trainer, self.generator) if self.surrogate_trainer else None
        )
        self.entropy: EntropyCoefficient | None = None
        self.entropy_optimizer: torch.optim.Optimizer | None = None
        if policy_config.family != "deterministic":
            target = -float(spec.action_size) if config.target_entropy is None else config.target_entropy
            self.entropy = EntropyCoefficient(config.initial_entropy_coefficient, target).to(self.device)
            self.entropy_optimizer = make_adam(self.entropy, config.policy_learning_rate)
        self.execute: Callable[[TensorBatch, StepKind], None] = self.run_step
        """Carries out ``run_step``; replaced where the device can replay it (learner/acceleration.py)."""
        self.critic_step: Callable[[], object] = self.critic_optimizer.step
        self.policy_step: Callable[[], object] = self.policy_optimizer.step
        self.blend: Callable[[Sequence[Tensor], Sequence[Tensor], float], None] = polyak_update_
        # Kept, because walking the modules for them takes as long as many an operation on them.
        self._moved = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self._blended = list(self.target_policy.parameters()), list(self.policy.parameters())
        if self.target_critic is not None:
            for side, critic in zip(self._blended, (self.target_critic, self.critic), strict=True):
                side.extend(critic.parameters())
        self.errors: Tensor | None = None
        self.means = RunningMeans(self.device)

    def update(self, batch: TransitionBatch) -> None:
        """One iteration of B1 to B4 on one sampled batch; ``td_errors`` then holds its errors if they are needed."""
        tensors = self._to_device(batch)
        self.update_step += 1
        self._decay_learning_rates()
        self.asymmetry.anneal(self.update_step)
        is_measured = self.circuit_model is not None and self.circuit_model.is_measured(self.update_step)
        self.execute(tensors, StepKind(self.update_step % self.config.policy_delay == 0, is_measured))

    def run_step(self, batch: TensorBatch, kind: StepKind) -> None:
        """B1 to B4; never waits for the device, nor reads a number of the host that changes between updates."""
        if self.policy.normaliser is not None:
            self.policy.normaliser.update(batch.observation)
        self._update_surrogate(batch)
        self._update_critic(batch)
        if kind.moves_policy:
            self._update_policy(batch)
            self._update_targets()
        if kind.measures_surrogate and self.circuit_model is not None:
            self._record_all(self.circuit_model.measure(batch, self.policy, self._climbed_value))

    def observe_returns(self, moments: ReturnMoments) -> None:
        """Take in running discounted returns of training, from which rewards get their scale."""
        if self.config.scale_rewards:
            self.return_scale.add(moments)

    def calibrate(self, batch: TransitionBatch) -> None:
        """Move the asymmetry by a batch of far-sighted returns (learner/asymmetry.py)."""
        tensors = self._to_device(batch)
        with torch.no_grad():
            next_action, _ = self._surrogate_sample(self.target_policy, tensors.next_observation)
            outputs, next_outputs = self._critic_outputs(tensors, next_action)
            discount = self.config.discount_factor * tensors.discount
            far_returns = tensors.reward + discount * self.head.values(next_outputs).mean(dim=0)
            gap = self.asymmetry.adapt(self.head.values(outputs).mean(dim=0), far_returns)
        self._record_all({"value_gap": gap, "asymmetry": self.asymmetry.value.clone()})

    def _update_surrogate(self, batch: TensorBatch) -> None:
        """B1: fit the surrogate to the batch (learner/surrogate_training.py)."""
        if self.circuit_model is not None:
            self._record_all(self.circuit_model.fit(batch, self.policy, self.target_policy))

    def _update_critic(self, batch: TensorBatch) -> None:
        """B2: TD targets through the surrogate target policy, twin minimum, target smoothing."""
        with torch.no_grad():
            next_action, bonus = self._next_action(batch)
        with critic_autocast(self.config.precision, self.device):
            outputs, next_outputs = self._critic_outputs(batch, next_action)
        with torch.no_grad():
            discount = self.config.discount_factor * batch.discount
            reward = batch.reward if bonus is None else batch.reward + discount * bonus
            target = self.head.target(next_outputs, reward, discount)
        loss = self.head.loss(outputs, target, self.asymmetry.value if self.critic_config.is_asymmetric else None)
        has_unit_rows = self.critic_config.unit_rows
        descend(self.critic, self.critic_optimizer, loss, outputs, self.critic_step, has_unit_rows=has_unit_rows)
        if self.config.prioritised:
            self.errors = self.head.errors(outputs.detach(), target)
        self.means.add("critic_loss", loss)
        self.means.add("q_value", self.head.values(outputs.detach()).mean())

    def _next_action(self, batch: TensorBatch) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B"] | None]:
        """ã at s': the smoothed target policy's action, or a stochastic policy's own draw; SAC's entropy bonus."""
        if self.entropy is not None:
            action, log_prob = self._surrogate_sample(self.policy, batch.next_observation)
            return action, -self.entropy.value * log_prob if self.config.critic_entropy else None
        noise = torch.randn(batch.action.shape, generator=self.generator, device=self.device)
        action = smoothed_action(
            self._surrogate_sample(self.target_policy, batch.next_observation)[0],
            noise,
            action_scale=self.policy.action_scale,
            action_center=self.policy.action_center,
            noise_std=self.config.target_noise_std,
            noise_clip=self.config.target_noise_clip,
        )
        return action, None

    def _critic_outputs(self, batch: TensorBatch, next_action: Float[Tensor, "B A"]) -> tuple[Tensor, Tensor]:
        """Outputs of the critics at (s, a), and without gradient those of the targets at (s', ã)."""
        return paired_outputs(
            self.critic,
            self.target_critic,
            self.critic_config,
            (self.policy.normalise(batch.observation), batch.action),
            (self.policy.normalise(batch.next_observation), next_action),
            self.generator,
        )

    def _update_policy(self, batch: TensorBatch) -> None:
        """B3: climb the critic through the surrogate; only PreDNN and PostDNN move."""
        action, log_prob = self._surrogate_sample(self.policy, batch.observation)
        with critic_autocast(self.config.precision, self.device):
            loss = -self._climbed_value(self.policy.normalise(batch.observation), action)
        if self.entropy is not None:
            loss = loss + self.entropy.value * log_prob.mean()
        # Asking for these gradients alone spares the weight gradients of critic and surrogate. A block
        # that ignores its input leaves the rows of PreDNN that feed it with a gradient of zero.
        gradients = torch.autograd.grad(loss, self._moved, allow_unused=True)
        for parameter, gradient in zip(self._moved, gradients, strict=True):
            parameter.grad = gradient
        self.policy_step()
        self.means.add("policy_loss", loss)
        if self.entropy is not None and self.entropy_optimizer is not None:
            self.entropy_optimizer.zero_grad(set_to_none=True)
            self.entropy.loss(log_prob).backward()  # type: ignore[no-untyped-call]
            self.entropy_optimizer.step()
            self.means.add("entropy", -log_prob.mean())
            self.means.add("entropy_coefficient", self.entropy.value)

    def _climbed_value(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, ""]:
        """Mean Q that the policy climbs, of normalised observations."""
        return climbed_value(self.critic, self.critic_config, self.head, observation, action)

    def _update_targets(self) -> None:
        """B4: soft updates of target critics and target policy."""
        targets, sources = self._blended
        with torch.no_grad():
            self.blend(targets, sources, self.config.polyak_coefficient)

    def _decay_learning_rates(self) -> None:
        """Linear from the configured rates of policy and critics to their final share."""
        if self._decay_updates is None:
            return
        progress = min(self.update_step / (self._decay_updates * self.config.learning_rate_decay_share), 1.0)
        share = 1 - (1 - self.config.final_learning_rate_share) * progress
        scale_learning_rates(self.policy_optimizer, share)
        scale_learning_rates(self.critic_optimizer, share)

    def _surrogate_sample(self, policy: PolicyNetwork, observation: Float[Tensor, "B O"]) -> tuple[Tensor, Tensor]:
        """A_qt(s), the policy with the circuit replaced by its surrogate, and log π where the family has one."""
        circuit_parameters, links = policy.encode(observation)
        output = differentiable_output(self.block, policy, self.circuit_model, circuit_parameters, self.generator)
        size = len(observation), policy.family.num_noise
        noise = torch.randn(size, generator=self.generator, device=self.device) if size[1] else None
        action, log_prob = policy.sample(output, links, noise)
        return action, action.new_zeros(len(action)) if log_prob is None else log_prob

    @property
    def td_errors(self) -> np.ndarray | None:
        """Of the newest update, if prioritised sampling wants them; waits for the device."""
        return None if self.errors is None else self.errors.cpu().numpy()

    def metrics(self) -> dict[str, float]:
        """Means since the last call (docs: learner/README.md); the only place that waits for the device.

        Raises:
            LearnerDivergedError: if one of them is not finite.
        """
        means, bad = self.means.take()
        if bad:
            raise LearnerDivergedError(
                f"training diverged at update {self.update_step}: {', '.join(bad)}; expected finite losses. "
                "Resume from the last checkpoint with a lower learning rate, or check the environment's rewards"
            )
        return means | size_metrics(self.policy_optimizer)

    def policy_parameters(self) -> dict[str, np.ndarray]:
        """Copies of the acting parameters (PreDNN, PostDNN, block, frozen weights, observation statistics), by name.

        Raises:
            LearnerDivergedError: if one is not finite; such parameters are never published.
        """
        arrays = host_copies(self.policy.state_dict())
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
        if bad:
            raise LearnerDivergedError(f"policy parameters are not finite at update {self.update_step}: {bad}")
        return arrays

    def _record_all(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.means.add(name, value)

    def _to_device(self, batch: TransitionBatch) -> TensorBatch:
        return self.loader.load(batch, self.return_scale.scale if self.config.scale_rewards else None)
