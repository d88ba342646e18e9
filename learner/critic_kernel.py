"""The segmented twin critics by compiled kernels, on the tensors of their module and its optimiser.

Same mathematics as ``TwinCritic`` and ``torch.optim.Adam`` in float32; sums are taken in another order, so numbers
agree to round-off, and they repeat bit for bit whatever the number of threads. Gradients of the weights exist only
inside ``step``: what ``values`` hands back is the start of a graph, not its middle. For the CPU alone.

Axis legend: B batch, O observation, A action.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int, c_int64, c_void_p
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from learner.errors import StateMismatchError
from learner.native_code import load_kernels
from learner.native_memory import Scratch, Signatures, adam_state, check_rows, declare, is_computable, pointers

_SIGNATURES: Signatures = {
    "critic_kept": (c_int64, [c_int64] * 4),
    "critic_scratch": (c_int64, [c_int64] * 4 + [c_int]),
    "critic_forward": (
        None,
        [c_int64] * 4 + [c_void_p] * 3 + [c_int64, c_int] + [c_void_p] * 4,
    ),
    "critic_step": (
        None,
        [c_int64] * 3 + [c_void_p] + [c_double] * 5 + [c_void_p, c_int64, c_int] + [c_void_p] * 3,
    ),
}


class CriticKernel:
    """Runs the kernels on one pair of critics.

    Args:
        library: of ``load_kernels``.
        layers: weight (2, I, J) and bias (2, 1, J) of observation, joint and value layer.
        scratch: memory of one call, which kernels of one thread may share.
    """

    def __init__(self, library: ctypes.CDLL, layers: Sequence[Tensor], scratch: Scratch) -> None:
        declare(library, _SIGNATURES)
        self._library = library
        self._layers = tuple(layers)
        _, observed, hidden = layers[0].shape
        self._sizes = (observed, layers[2].shape[1] - hidden, hidden)
        self._scratch, self._kept = scratch, Scratch()
        self._observation: Tensor | None = None

    def values(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, "2 B"]:
        """Q-values of both critics; where gradients are recorded, a leaf whose gradient is what ``step`` wants."""
        is_kept = torch.is_grad_enabled()
        values, _, rows = self._forward(observation, action, 2, is_kept=is_kept)
        if is_kept:
            self._observation = rows
            values.requires_grad_()
        return values

    def first(self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"]) -> Float[Tensor, "B"]:
        """Q-values of the first critic, differentiable in the actions alone."""
        output: Tensor = _FirstValue.apply(observation, action, self)  # type: ignore[no-untyped-call]
        return output

    def first_with_gradient(
        self, observation: Float[Tensor, "B O"], action: Float[Tensor, "B A"], *, wants_gradient: bool
    ) -> tuple[Float[Tensor, "B"], Float[Tensor, "B A"] | None]:
        """Q-values of the first critic and, if wanted, ∂Q/∂a of each row."""
        values, gradient, _ = self._forward(observation, action, 1, wants_gradient=wants_gradient)
        return values[0], gradient

    def step(self, optimizer: torch.optim.Adam, value_gradient: Float[Tensor, "2 B"]) -> None:
        """One Adam step of both critics.

        Args:
            optimizer: whose rates and moments are used; its state is made where it is still empty.
            value_gradient: gradient of the loss with respect to what ``values`` gave last.

        Raises:
            StateMismatchError: if there is no such ``values``, or it had another number of rows.
        """
        observation, self._observation = self._observation, None
        rows = value_gradient.shape[1]
        if observation is None or len(observation) != rows:
            raise StateMismatchError(
                f"a step of the critics follows values of the same rows, got a gradient of {rows} rows after "
                f"{'no values' if observation is None else f'values of {len(observation)}'}; call values first"
            )
        states = [adam_state(optimizer, layer) for layer in self._layers]
        group = optimizer.param_groups[0]
        arrays = [*self._layers, *(s["exp_avg"] for s in states), *(s["exp_avg_sq"] for s in states)]
        value_gradient, threads = value_gradient.contiguous(), torch.get_num_threads()
        self._library.critic_step(
            *self._sizes,
            pointers(arrays),
            float(group["lr"]),
            *group["betas"],
            group["eps"],
            float(states[0]["step"]),
            observation.data_ptr(),
            rows,
            threads,
            self._kept.address(self._library.critic_kept(*self._sizes, rows)),
            self._scratch.address(self._library.critic_scratch(*self._sizes, rows, threads)),
            value_gradient.data_ptr(),
        )
        torch._foreach_add_([state["step"] for state in states], 1)

    def _forward(
        self,
        observation: Tensor,
        action: Tensor,
        num_critics: int,
        *,
        is_kept: bool = False,
        wants_gradient: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Values, gradient of the first ones, and the observations as they were read."""
        # Held by names until the call is over: an address alone keeps no memory alive.
        observation, action = observation.detach().contiguous(), action.detach().contiguous()
        check_rows(observation, self._sizes[0], "observations")
        check_rows(action, self._sizes[1], "actions")
        if len(observation) != len(action):
            raise StateMismatchError(f"as many observations as actions, got {len(observation)} and {len(action)}")
        rows, threads = len(observation), torch.get_num_threads()
        kept_size = self._library.critic_kept(*self._sizes, rows)
        scratch = self._scratch.address(self._library.critic_scratch(*self._sizes, rows, threads) + kept_size)
        kept = self._kept.address(kept_size) if is_kept else scratch
        values = torch.empty(num_critics, rows)
        gradient = torch.empty_like(action) if wants_gradient else None
        self._library.critic_forward(
            *self._sizes,
            num_critics,
            pointers(self._layers),
            observation.data_ptr(),
            action.data_ptr(),
            rows,
            threads,
            kept,
            scratch + 4 * kept_size,
            values.data_ptr(),
            None if gradient is None else gradient.data_ptr(),
        )
        return values, gradient, observation


def make_critic_kernel(layers: Sequence[Tensor], scratch: Scratch) -> CriticKernel | None:
    """Kernels for the layers of a ``TwinCritic`` on the CPU in float32; None where they can't be compiled.

    Args:
        layers: as in ``CriticKernel``.
        scratch: as in ``CriticKernel``.

    Raises:
        StateMismatchError: if the kernels cannot read the layers.
    """
    if not all(map(is_computable, layers)):
        kinds = sorted({f"{layer.dtype} on {layer.device}" for layer in layers})
        raise StateMismatchError(
            f"the kernels compute critics in float32 on the CPU, got {', '.join(kinds)}; "
            "use the plain path (--no-compile)"
        )
    library = load_kernels()
    return None if library is None else CriticKernel(library, layers, scratch)


class _FirstValue(torch.autograd.Function):
    """The first critic's values with the gradient of the action alone, which is ready as soon as they are."""

    @staticmethod
    def forward(ctx: Any, observation: Tensor, action: Tensor, kernel: CriticKernel) -> Tensor:
        values, gradient = kernel.first_with_gradient(observation, action, wants_gradient=action.requires_grad)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        return None, gradients[0].unsqueeze(1) * ctx.saved_tensors[0], None
