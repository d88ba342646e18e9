"""Everything that a TD3Learner must keep to go on bit for bit: tensors for safetensors, the rest for JSON."""

import base64
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from learner.errors import StateMismatchError
from learner.optimizers import PolicyOptimizer, trained_tensors
from learner.quantum_train.generated_weights import GeneratedWeights
from learner.td3 import TD3Learner

_ADAM_FIELDS = ("exp_avg", "exp_avg_sq", "step")
_SCALES = "weight_generator_scales"


def learner_state(learner: TD3Learner) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nets, targets, optimisers, counters and random state.

    Returns:
        Tensors on the CPU by dotted name, and a JSON-able dict.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in _modules(learner).items():
        tensors.update({f"{prefix}.{name}": value for name, value in module.state_dict().items()})
    for prefix, optimizer in _optimizers(learner).items():
        for index, parameter in enumerate(trained_tensors(optimizer)):
            for field, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{prefix}.{index}.{field}"] = value
    if isinstance(learner.policy_optimizer, GeneratedWeights):
        tensors[_SCALES] = learner.policy_optimizer.tensor_scales
    detached = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    generator_state = base64.b64encode(learner.generator.get_state().numpy().tobytes()).decode()
    return detached, {
        "update_step": learner.update_step,
        "generator": generator_state,
        "block": learner.block,
        "return_scale": learner.return_scale.state(),
        "asymmetry": learner.asymmetry.state(),
        "running_means": learner.means.state(),
    }


def load_learner_state(learner: TD3Learner, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Put a saved state into a freshly built learner of the same configuration.

    Raises:
        StateMismatchError: naming the first tensor that is missing or has another shape.
    """
    if scalars["block"] != learner.block:
        raise StateMismatchError(
            f"the checkpoint holds a policy with block {scalars['block']!r}, this run has {learner.block!r}"
        )
    for prefix, module in _modules(learner).items():
        own = module.state_dict()
        for name, value in own.items():
            _check(tensors, f"{prefix}.{name}", value)
        module.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in own})
    for prefix, optimizer in _optimizers(learner).items():
        for index, parameter in enumerate(trained_tensors(optimizer)):
            if f"{prefix}.{index}.step" not in tensors:
                continue
            # Adam keeps "step" as a scalar on the parameter's device when fused.
            optimizer.state[parameter] = {
                field: tensors[f"{prefix}.{index}.{field}"].to(parameter.device, copy=True) for field in _ADAM_FIELDS
            }
    if isinstance(learner.policy_optimizer, GeneratedWeights):
        _check(tensors, _SCALES, learner.policy_optimizer.tensor_scales)
        learner.policy_optimizer.tensor_scales = tensors[_SCALES].clone()
        learner.policy_optimizer.fill()
    learner.update_step = int(scalars["update_step"])
    learner.return_scale.restore(scalars["return_scale"])
    learner.asymmetry.restore(scalars["asymmetry"])
    state = bytearray(base64.b64decode(scalars["generator"]))
    learner.generator.set_state(torch.frombuffer(state, dtype=torch.uint8))
    learner.means.restore(scalars["running_means"])


def _modules(learner: TD3Learner) -> dict[str, torch.nn.Module]:
    modules: dict[str, torch.nn.Module] = {
        "policy": learner.policy,
        "critic": learner.critic,
        "target_policy": learner.target_policy,
    }
    if learner.target_critic is not None:
        modules["target_critic"] = learner.target_critic
    if learner.surrogate is not None:
        modules["surrogate"] = learner.surrogate
    if learner.entropy is not None:
        modules["entropy"] = learner.entropy
    if isinstance(learner.policy_optimizer, GeneratedWeights):
        modules["weight_generator"] = learner.policy_optimizer.generator
    return modules


def _optimizers(learner: TD3Learner) -> dict[str, PolicyOptimizer]:
    optimizers: dict[str, PolicyOptimizer] = {
        "policy_optimizer": learner.policy_optimizer,
        "critic_optimizer": learner.critic_optimizer,
    }
    if learner.entropy_optimizer is not None:
        optimizers["entropy_optimizer"] = learner.entropy_optimizer
    if learner.surrogate_trainer is not None:
        optimizers["surrogate_optimizer"] = learner.surrogate_trainer.optimizer
    return optimizers


def _check(tensors: Mapping[str, Tensor], name: str, expected: Tensor) -> None:
    got = tuple(tensors[name].shape) if name in tensors else None
    if got != tuple(expected.shape):
        raise StateMismatchError(
            f"checkpoint tensor {name} has shape {got}, expected {tuple(expected.shape)}; "
            "it was written for another environment or configuration"
        )
