"""On-policy learning of one agent: gradients of its own episodes, in its own parameters.

Axis legend: P trainable parameters, in the order policy (angles, mapping, log_std), value network.
"""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from learner.errors import LearnerDivergedError
from learner.quantum_train.config import LearningConfig
from learner.quantum_train.generator import seeded_linear
from learner.quantum_train.objectives import (
    EpisodeBatch,
    generalised_advantages,
    ppo_loss,
    reinforce_loss,
    standardised_returns,
)
from learner.quantum_train.policy import Policy, entropy, log_probability

_VALUE_HIDDEN = 64


class OnPolicyLearner:
    """Policy, PPO's value network, and gradients of both.

    Args:
        policy: generated or classical.
        config: learning rule.
        seed: of the value network's start.
    """

    def __init__(self, policy: Policy, config: LearningConfig, *, seed: int) -> None:
        self.policy, self.config = policy, config
        self._value = _value_network(policy.shape.observation_size, seed) if config.algorithm == "ppo" else None
        self._named = [(f"policy.{name}", parameter) for name, parameter in policy.named_parameters()]
        if self._value is not None:
            self._named += [(f"value.{name}", parameter) for name, parameter in self._value.named_parameters()]
        self._tensors: dict[str, Tensor] = {}
        self._loaded: np.ndarray | None = None
        self._generated: dict[str, Tensor] | None = None

    def vector(self) -> Float32[np.ndarray, "P"]:
        """All trainable parameters."""
        return np.concatenate([parameter.detach().numpy().ravel() for _, parameter in self._named])

    def load(self, vector: Float32[np.ndarray, "P"]) -> None:
        """Replace all trainable parameters; does nothing where they are the ones loaded last.

        Raises:
            LearnerDivergedError: if one of them is not finite.
            ValueError: if the vector has another length.
        """
        if self._loaded is not None and np.array_equal(vector, self._loaded):
            return
        self._generated = None
        sizes = [parameter.numel() for _, parameter in self._named]
        if vector.shape != (sum(sizes),):
            raise ValueError(f"expected {sum(sizes)} parameters, got an array of shape {vector.shape}")
        if not np.isfinite(vector).all():
            raise LearnerDivergedError("a trained parameter is NaN or infinite; lower the learning rates")
        with torch.no_grad():
            for (_, parameter), part in zip(self._named, np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
                parameter.copy_(torch.from_numpy(np.array(part)).view(parameter.shape))
        self._loaded = vector.copy()

    def fill(self) -> None:
        """Generate the loaded parameters' weights for acting; the gradient at the same parameters uses them again."""
        self._generated = self.policy.generate()
        self.policy.take(self._generated)

    def mask(self, prefix: str) -> np.ndarray:
        """Bool (P,): parameters whose dotted name starts with ``prefix``."""
        return np.concatenate([np.full(parameter.numel(), name.startswith(prefix)) for name, parameter in self._named])

    def learning_rates(self) -> Float32[np.ndarray, "P"]:
        """Adam's rate of every parameter."""
        config = self.config
        rates = np.full(len(self.mask("")), config.mapping_learning_rate, np.float32)
        rates[self.mask("policy.weights.angles")] = config.circuit_learning_rate
        rates[self.mask("value.")] = config.value_learning_rate
        return rates

    def prepare(self, batch: EpisodeBatch) -> None:
        """Take a round's episodes: what follows learns from them."""
        config = self.config
        self._tensors = {
            "observations": torch.from_numpy(batch.observations),
            "actions": torch.from_numpy(batch.actions),
            "old": torch.from_numpy(batch.log_probabilities),
        }
        if self._value is None:
            self._tensors["weights"] = torch.from_numpy(standardised_returns(batch, config.discount_factor))
            return
        with torch.no_grad():
            values = self._value(self._tensors["observations"]).squeeze(1).numpy()
            last = self._value(torch.from_numpy(batch.last_observations)).squeeze(1).numpy()
        advantages, targets = generalised_advantages(
            batch, values, last, config.discount_factor, config.gae_coefficient
        )
        spread = advantages.std()
        self._tensors["weights"] = torch.from_numpy(
            (advantages - advantages.mean()) / (spread + config.advantage_floor)
        )
        self._tensors["targets"] = torch.from_numpy(targets)

    def gradient(self) -> Float32[np.ndarray, "P"]:
        """Gradient of the loss on the prepared episodes; generates the weights once.

        All zeros where the policy has moved further from the one that acted than ``max_kl`` allows.
        """
        config, policy, data = self.config, self.policy, self._tensors
        for _, parameter in self._named:
            parameter.grad = None
        # A graph is good for one way back.
        generated, self._generated = self._generated, None
        outputs = policy.outputs(generated or policy.generate(), data["observations"])
        chosen = log_probability(policy, outputs, data["actions"])
        if config.max_kl is not None and _divergence(chosen, data["old"]) > config.max_kl:
            return np.zeros(sum(parameter.numel() for _, parameter in self._named), np.float32)
        if self._value is None:
            loss = reinforce_loss(chosen, data["weights"])
        else:
            loss = ppo_loss(chosen, data["old"], data["weights"], config.clip_range)
            errors = self._value(data["observations"]).squeeze(1) - data["targets"]
            loss = loss + 0.5 * (errors**2).mean()
        if config.entropy_coefficient > 0:
            loss = loss - config.entropy_coefficient * entropy(policy, outputs).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return np.concatenate([_gradient_of(parameter) for _, parameter in self._named])

    def clip(self, gradient: Float32[np.ndarray, "P"]) -> Float32[np.ndarray, "P"]:
        """Scale the policy's part down to the configured norm; the value network's part is its own matter."""
        if self.config.max_gradient_norm is None:
            return gradient
        policy = self.mask("policy.")
        norm = float(np.linalg.norm(gradient[policy]))
        scale = min(1.0, self.config.max_gradient_norm / (norm + 1e-12))
        return np.where(policy, gradient * np.float32(scale), gradient)


def _divergence(chosen: Tensor, old: Tensor) -> float:
    """Estimate of KL(old ‖ new) from actions of the old policy, never negative: mean of r − 1 − log r."""
    log_ratio = chosen.detach() - old
    return float((torch.exp(log_ratio) - 1 - log_ratio).mean())


def _gradient_of(parameter: nn.Parameter) -> np.ndarray:
    return np.zeros(parameter.numel(), np.float32) if parameter.grad is None else parameter.grad.numpy().ravel()


def _value_network(observation_size: int, seed: int) -> nn.Sequential:
    random = torch.Generator().manual_seed(seed + 1)
    return nn.Sequential(
        seeded_linear(observation_size, _VALUE_HIDDEN, random),
        nn.Tanh(),
        seeded_linear(_VALUE_HIDDEN, _VALUE_HIDDEN, random),
        nn.Tanh(),
        seeded_linear(_VALUE_HIDDEN, 1, random),
    )
