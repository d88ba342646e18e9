"""What compiled kernels are handed: addresses of tensors, the optimiser's moments, memory to work in."""

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_void_p
from typing import Any

import torch
from torch import Tensor

from learner.errors import StateMismatchError

_ALIGNMENT_BYTES = 64

Signatures = Mapping[str, tuple[Any, Sequence[Any]]]


class Scratch:
    """Memory that is kept from call to call: fresh pages would cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def address(self, size: int) -> int:
        """Where ``size`` floats may be written, at the start of a cache line; valid until more is asked for."""
        spare = _ALIGNMENT_BYTES // 4
        if self._memory.numel() < size + spare:
            self._memory = torch.empty(size + spare)
        return (self._memory.data_ptr() + _ALIGNMENT_BYTES - 1) // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES


def declare(library: ctypes.CDLL, signatures: Signatures) -> None:
    """Tell ctypes the result and argument types of functions by name."""
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, list(arguments)


def pointers(tensors: Sequence[Tensor]) -> Any:
    """Addresses as a C array; the caller keeps the tensors alive until the call is over."""
    return (c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def is_computable(parameter: Tensor) -> bool:
    """Whether the kernels can read a tensor: float32, contiguous, in the host's memory."""
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and parameter.is_contiguous()


def check_rows(tensor: Tensor, columns: int, what: str) -> None:
    """Refuse what the kernels, which know addresses alone, would misread.

    Raises:
        StateMismatchError: if it is not (B, columns) of float32 in the host's memory.
    """
    got = tuple(tensor.shape)
    if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or len(got) != 2 or got[1] != columns:
        raise StateMismatchError(
            f"{what} must be (B, {columns}) of float32 on the CPU, got {got} of {tensor.dtype} on {tensor.device}"
        )


def adam_state(optimizer: torch.optim.Adam, parameter: Tensor) -> dict[str, Tensor]:
    """Moments of a parameter, made as ``torch.optim.Adam`` makes them at its first step."""
    state: dict[str, Tensor] = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return state
