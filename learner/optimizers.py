"""Adam as every part of the learner uses it."""

import torch
from torch import Tensor


def make_adam(module: torch.nn.Module, learning_rate: float) -> torch.optim.Adam:
    """One fused kernel per step. On a GPU everything that changes is a tensor there, so that a graph may replay it."""
    parameters = list(module.parameters())
    is_cuda = any(parameter.is_cuda for parameter in parameters)
    rate = torch.tensor(learning_rate, device=parameters[0].device) if is_cuda else learning_rate
    return torch.optim.Adam(parameters, lr=rate, fused=True, capturable=is_cuda)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """In place where the rate is a tensor: a captured graph reads it there."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
