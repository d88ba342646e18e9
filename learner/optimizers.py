"""Adam as every part of the learner uses it."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

_BASE_RATE = "initial_lr"  # torch's own name for the rate that a schedule starts from


class PolicyOptimizer(Protocol):
    """Moves a module along the gradients that its parameters hold: Adam, or what generates the parameters."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Trained tensors and their settings."""
        ...

    @property
    def state(self) -> Any:
        """Moments by trained tensor."""
        ...

    def step(self) -> Any:
        """One step."""
        ...


class _Adam(torch.optim.Adam):
    """torch's, made without torch's compiler.

    The first optimiser of a process loads the compiler, 3 s of a core, only to tell it to leave ``add_param_group``
    alone. Nothing here is ever compiled by it.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """See ``torch.optim.Optimizer``."""
        guarded = torch.optim.Optimizer.add_param_group
        getattr(guarded, "__wrapped__", guarded)(self, param_group)


def make_adam(module: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """One fused kernel per step. On a GPU everything that changes is a tensor there, so that a graph may replay it."""
    return adam_of([(list(module.parameters()), learning_rate)])


def adam_of(groups: Sequence[tuple[list[nn.Parameter], float]]) -> torch.optim.Adam:
    """The same of several groups with a learning rate each."""
    plain: list[dict[str, Any]] = []
    for parameters, learning_rate in groups:
        is_cuda = any(parameter.is_cuda for parameter in parameters)
        rate = torch.tensor(learning_rate, device=parameters[0].device) if is_cuda else learning_rate
        plain.append({"params": parameters, "lr": rate, "capturable": is_cuda, _BASE_RATE: learning_rate})
    return _Adam(plain, fused=True)


def scale_learning_rates(optimizer: PolicyOptimizer, share: float) -> None:
    """Set every group's rate to a share of its first; a tensor in place, where a captured graph reads it."""
    for group in optimizer.param_groups:
        learning_rate = group[_BASE_RATE] * share
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def trained_tensors(optimizer: PolicyOptimizer) -> list[Tensor]:
    """Everything that the optimiser moves, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
