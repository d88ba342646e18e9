"""BatchNorm critics by compiled kernels, on the tensors of their modules and their optimiser.

Same mathematics as ``EnsembleCritic``, ``torch.optim.Adam`` and ``normalise_rows_`` in float32; sums are taken in
another order, so numbers agree to round-off, and they repeat bit for bit whatever the number of threads. Gradients of
the weights exist only inside ``step``: what ``outputs`` hands back is the start of a graph, not its middle. For the CPU
alone.

Mixed precision: what the products of the hidden layers read is rounded to bfloat16; all sums, the statistics and the
head stay in float32.

Axis legend: B batch, R rows with outputs, I inputs, A action, E critics, K outputs of a head.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.errors import StateMismatchError
from learner.native_code import load_kernels
from learner.native_memory import Scratch, Signatures, adam_state, check_rows, declare, is_computable, pointers

_SIZES = [c_int64] * 7
_SIGNATURES: Signatures = {
    "normed_critic_kept": (c_int64, _SIZES),
    "normed_critic_scratch": (c_int64, [*_SIZES, c_int]),
    "normed_critic_forward": (
        None,
        [*_SIZES, c_void_p, c_void_p, c_double, c_double, c_void_p, c_int64, c_int64, c_int] + [c_void_p] * 3,
    ),
    "normed_critic_step": (
        None,
        [*_SIZES, c_void_p] + [c_double] * 5 + [c_int, c_void_p, c_int64, c_int64, c_int] + [c_void_p] * 3,
    ),
    "normed_critic_input_gradient": (None, [*_SIZES, c_void_p, c_int64, c_int] + [c_void_p] * 4),
    "multiplies_bfloat16": (c_int, []),
}


@dataclass(frozen=True, slots=True)
class _Kept:
    """What ``step`` wants to know of the outputs before it."""

    inputs: Float[Tensor, "B I"]
    first_row: int
    num_rows: int
    is_mixed: bool


class NormedCriticKernel:
    """Runs the kernels on an ensemble of critics.

    Args:
        library: of ``load_kernels``.
        networks: of Linear, BatchNorm1d and ReLU in turn, then a Linear head; equal in all sizes.
        has_unit_rows: whether a step puts the rows of hidden layers back to length 1.
        scratch: memory of one call, which kernels of one thread may share.
    """

    def __init__(
        self, library: ctypes.CDLL, networks: Sequence[nn.Sequential], *, has_unit_rows: bool, scratch: Scratch
    ) -> None:
        declare(library, _SIGNATURES)
        self._library = library
        self._parameters = [parameter for network in networks for parameter in network.parameters()]
        self._norms = [layer for network in networks for layer in network if isinstance(layer, nn.BatchNorm1d)]
        self._running = [cast(Tensor, value) for n in self._norms for value in (n.running_mean, n.running_var)]
        self._num_batches = [cast(Tensor, norm.num_batches_tracked) for norm in self._norms]
        self._has_unit_rows = has_unit_rows
        first, *_, head = (layer for layer in networks[0] if isinstance(layer, nn.Linear))
        self._sizes = (
            first.in_features,
            head.in_features,
            head.out_features,
            len(self._norms) // len(networks),
            len(networks),
        )
        self._scratch, self._kept_memory = scratch, Scratch()
        self._kept: _Kept | None = None
        self.has_bfloat16 = bool(library.multiplies_bfloat16())
        """Whether the processor multiplies bfloat16 by itself; without that mixed precision gains nothing here."""

    def outputs(self, inputs: Float[Tensor, "B I"], rows: slice, *, is_mixed: bool = False) -> Float[Tensor, "E R K"]:
        """Outputs by the statistics of the batch, which the running ones take in.

        Args:
            inputs: standardised observations and actions.
            rows: that are asked for; the others still count for the statistics.
            is_mixed: whether in mixed precision, also in the ``step`` that follows.

        Returns:
            Outputs; where gradients are recorded, a leaf whose gradient is what ``step`` wants.

        Raises:
            StateMismatchError: if these are not inputs of these critics, or fewer than two rows.
        """
        if len(inputs) < 2:
            raise StateMismatchError(f"BatchNorm needs the statistics of two rows or more, got {len(inputs)}")
        begin, end, _ = rows.indices(len(inputs))
        kept_size = self._library.normed_critic_kept(*self._sizes, len(inputs), is_mixed)
        is_kept = torch.is_grad_enabled()
        kept = self._kept_memory.address(kept_size) if is_kept else None
        momentum = self._norms[0].momentum
        outputs = self._forward(inputs, begin, end - begin, momentum=momentum, kept=kept, is_mixed=is_mixed)
        torch._foreach_add_(self._num_batches, 1)
        if is_kept:
            self._kept = _Kept(inputs, begin, end - begin, is_mixed)
            outputs.requires_grad_()
        return outputs

    def climbed(
        self, inputs: Float[Tensor, "B I"], action: Float[Tensor, "B A"], *, is_mixed: bool = False
    ) -> Float[Tensor, "E B K"]:
        """Outputs by the running statistics, differentiable in the standardised actions alone.

        Args:
            inputs: standardised observations and actions.
            action: the actions of ``inputs``, of which the gradient is wanted.
            is_mixed: whether in mixed precision, there and back.
        """
        output: Tensor = _Climbed.apply(action, inputs, self, is_mixed)  # type: ignore[no-untyped-call]
        return output

    def step(self, optimizer: torch.optim.Adam, output_gradient: Float[Tensor, "E R K"]) -> None:
        """One Adam step of all critics, then rows back to length 1 if that is asked for.

        Args:
            optimizer: whose rates and moments are used; its state is made where it is still empty.
            output_gradient: gradient of the loss with respect to what ``outputs`` gave last, or to its first rows,
                where the loss asks for no others.

        Raises:
            StateMismatchError: if there are no such outputs.
        """
        kept, self._kept = self._kept, None
        _, _, num_outputs, _, num_critics = self._sizes
        shape = tuple(output_gradient.shape)
        if kept is None or shape[::2] != (num_critics, num_outputs) or not 0 < shape[1] <= kept.num_rows:
            last = "no outputs" if kept is None else f"outputs of {(num_critics, kept.num_rows, num_outputs)}"
            raise StateMismatchError(
                f"a step of the critics follows outputs of the same shape, got a gradient of {shape} after {last}; "
                "call outputs first"
            )
        states = [adam_state(optimizer, parameter) for parameter in self._parameters]
        group = optimizer.param_groups[0]
        arrays = [*self._parameters, *(s["exp_avg"] for s in states), *(s["exp_avg_sq"] for s in states)]
        output_gradient = output_gradient.contiguous()
        sizes, threads = (*self._sizes, len(kept.inputs), kept.is_mixed), torch.get_num_threads()
        self._library.normed_critic_step(
            *sizes,
            pointers(arrays),
            float(group["lr"]),
            *group["betas"],
            group["eps"],
            float(states[0]["step"]),
            self._has_unit_rows,
            kept.inputs.data_ptr(),
            kept.first_row,
            shape[1],
            threads,
            self._kept_memory.address(self._library.normed_critic_kept(*sizes)),
            self._scratch.address(self._library.normed_critic_scratch(*sizes, threads)),
            output_gradient.data_ptr(),
        )
        torch._foreach_add_([state["step"] for state in states], 1)

    def outputs_by_running_statistics(
        self, inputs: Float[Tensor, "B I"], *, is_mixed: bool = False
    ) -> tuple[Float[Tensor, "E B K"], Tensor]:
        """Outputs, and the memory that ``action_gradient`` reads, once."""
        kept = torch.empty(self._library.normed_critic_kept(*self._sizes, len(inputs), is_mixed))
        outputs = self._forward(inputs, 0, len(inputs), momentum=0.0, kept=kept.data_ptr(), is_mixed=is_mixed)
        return outputs, kept

    def action_gradient(
        self, kept: Tensor, output_gradient: Float[Tensor, "E B K"], action_size: int, *, is_mixed: bool = False
    ) -> Float[Tensor, "B A"]:
        """Gradient to the actions of ``outputs_by_running_statistics``, of the same precision."""
        output_gradient = output_gradient.contiguous()
        num_rows, threads = output_gradient.shape[1], torch.get_num_threads()
        sizes = (*self._sizes, num_rows, is_mixed)
        gradient = torch.empty(num_rows, action_size)
        self._library.normed_critic_input_gradient(
            *sizes,
            pointers(self._parameters),
            action_size,
            threads,
            kept.data_ptr(),
            self._scratch.address(self._library.normed_critic_scratch(*sizes, threads)),
            output_gradient.data_ptr(),
            gradient.data_ptr(),
        )
        return gradient

    def _forward(
        self,
        inputs: Tensor,
        first_row: int,
        num_rows: int,
        *,
        momentum: float | None,
        kept: int | None,
        is_mixed: bool,
    ) -> Tensor:
        """Outputs; ``kept``: where what led to them shall stay, scratch memory if None."""
        check_rows(inputs, self._sizes[0], "observations and actions")
        _, _, num_outputs, _, num_critics = self._sizes
        sizes, threads = (*self._sizes, len(inputs), is_mixed), torch.get_num_threads()
        outputs = torch.empty(num_critics, num_rows, num_outputs)
        size = self._library.normed_critic_scratch(*sizes, threads)
        scratch = self._scratch.address(size + (self._library.normed_critic_kept(*sizes) if kept is None else 0))
        self._library.normed_critic_forward(
            *sizes,
            pointers(self._parameters),
            pointers(self._running),
            momentum,
            self._norms[0].eps,
            inputs.data_ptr(),
            first_row,
            num_rows,
            threads,
            scratch + 4 * size if kept is None else kept,
            scratch,
            outputs.data_ptr(),
        )
        return outputs


def make_normed_critic_kernel(
    networks: Sequence[nn.Sequential], *, has_unit_rows: bool, scratch: Scratch
) -> NormedCriticKernel | None:
    """Kernels for the networks of an ``EnsembleCritic``; None where they can't be compiled or can't read these.

    Args:
        networks: as in ``NormedCriticKernel``.
        has_unit_rows: as in ``NormedCriticKernel``.
        scratch: as in ``NormedCriticKernel``.
    """
    for network in networks:
        *hidden, head = network.children()
        kinds = [type(layer) for layer in hidden]
        if kinds != [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (len(hidden) // 3) or type(head) is not nn.Linear:
            return None
        if not all(map(is_computable, network.parameters())):
            return None
    library = load_kernels()
    if library is None:
        return None
    return NormedCriticKernel(library, networks, has_unit_rows=has_unit_rows, scratch=scratch)


class _Climbed(torch.autograd.Function):
    """Outputs by the running statistics with the gradient of the actions alone."""

    @staticmethod
    def forward(ctx: Any, action: Tensor, inputs: Tensor, kernel: NormedCriticKernel, is_mixed: bool) -> Tensor:
        outputs, kept = kernel.outputs_by_running_statistics(inputs, is_mixed=is_mixed)
        if action.requires_grad:
            ctx.kernel, ctx.action_size, ctx.is_mixed = kernel, action.shape[1], is_mixed
            ctx.save_for_backward(kept)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (kept,) = ctx.saved_tensors
        gradient = ctx.kernel.action_gradient(kept, gradients[0], ctx.action_size, is_mixed=ctx.is_mixed)
        return gradient, None, None, None
