"""Adam and soft updates of all tensors of a network by one call of the compiled kernels.

Same mathematics as ``torch.optim.Adam`` and ``polyak_update_`` in float32, to round-off; results repeat bit for bit
whatever the number of threads. Moments stay in the optimiser's state, so checkpoints know nothing of this. For the CPU
alone.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_float, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from learner.native_code import load_kernels
from learner.native_memory import Signatures, adam_state, declare, is_computable, pointers

_SIGNATURES: Signatures = {
    "adam_arrays": (None, [c_int64] + [c_void_p] * 2 + [c_double] * 5 + [c_int]),
    "blend_arrays": (None, [c_int64] + [c_void_p] * 2 + [c_float, c_int]),
}


class StepKernel:
    """Moves parameters that need no more than their gradient or their source.

    Args:
        library: of ``load_kernels``.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        declare(library, _SIGNATURES)
        self._library = library

    def adam(self, optimizer: torch.optim.Adam) -> None:
        """One step of every parameter that has a gradient, as ``optimizer.step()`` would make it."""
        for group in optimizer.param_groups:
            # A parameter that once had no gradient counts steps of its own.
            by_steps: dict[float, list[tuple[Tensor, dict[str, Tensor]]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = adam_state(optimizer, parameter)
                    by_steps.setdefault(float(state["step"]), []).append((parameter, state))
            for steps, rows in by_steps.items():
                # Held by a name until the call is over: an address alone keeps no memory alive.
                gradients = [p.grad.contiguous() for p, _ in rows if p.grad is not None]
                parameters = [p for p, _ in rows]
                moments = [*(s["exp_avg"] for _, s in rows), *(s["exp_avg_sq"] for _, s in rows)]
                self._library.adam_arrays(
                    len(rows),
                    _sizes(parameters),
                    pointers([*parameters, *gradients, *moments]),
                    float(group["lr"]),
                    *group["betas"],
                    group["eps"],
                    steps,
                    torch.get_num_threads(),
                )
                torch._foreach_add_([state["step"] for _, state in rows], 1)

    def blend(self, targets: Sequence[Tensor], sources: Sequence[Tensor], polyak_coefficient: float) -> None:
        """θ' ← τ θ + (1 − τ) θ', in place, as ``polyak_update_`` does."""
        arrays = pointers([*targets, *sources])
        self._library.blend_arrays(len(targets), _sizes(targets), arrays, polyak_coefficient, torch.get_num_threads())


def make_step_kernel(parameters: Sequence[Tensor]) -> StepKernel | None:
    """Kernels for these parameters; None where they cannot be compiled or cannot read all of the parameters."""
    library = load_kernels() if all(map(is_computable, parameters)) else None
    return None if library is None else StepKernel(library)


def _sizes(tensors: Sequence[Tensor]) -> ctypes.Array[c_int64]:
    return (c_int64 * len(tensors))(*(tensor.numel() for tensor in tensors))
