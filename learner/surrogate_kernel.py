"""The surrogate's arithmetic by the compiled kernels, on the tensors of its module and its optimiser.

Same mathematics as ``QuantumSurrogate`` and ``torch.optim.Adam`` in float32; sums are taken in another order, so
numbers agree to round-off, and for a fixed number of threads they repeat bit for bit. Parameters and moments stay
where they are, so checkpoints know nothing of this. For the CPU alone.

Axis legend: B batch, P circuit parameters, N bits.
"""

import ctypes
from ctypes import c_double, c_int, c_int64, c_void_p
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from learner.errors import StateMismatchError
from learner.native_code import load_kernels
from learner.native_memory import Scratch, adam_state, check_rows, declare, is_computable, pointers

_LEAKY_RELU_SLOPE = 0.01
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "surrogate_fit_scratch": (c_int64, [c_int64] * 5 + [c_int]),
    "surrogate_fit": (
        c_double,
        [c_int64] * 3 + [c_void_p] + [c_double] * 5 + [c_void_p] * 2 + [c_int64] * 2 + [c_int, c_void_p],
    ),
    "surrogate_pass_scratch": (c_int64, [c_int64] * 3 + [c_int]),
    "surrogate_num_signs": (c_int64, [c_int64] * 2),
    "surrogate_forward": (None, [c_int64] * 3 + [c_void_p] * 2 + [c_int64, c_int] + [c_void_p] * 3),
    "surrogate_input_gradient": (None, [c_int64] * 3 + [c_void_p, c_int64, c_int] + [c_void_p] * 5),
}


class SurrogateKernel:
    """Runs the kernels on one surrogate.

    Args:
        library: of ``load_kernels``.
        layers: weight and bias of the hidden layer, then of the output layer, as ``torch.nn.Linear`` keeps them.
    """

    def __init__(self, library: ctypes.CDLL, layers: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        declare(library, _SIGNATURES)
        self._library = library
        self._layers = layers
        (hidden, inputs), outputs = layers[0].shape, len(layers[3])
        self._sizes = (inputs, hidden, outputs)
        self._scratch = Scratch()

    def fit(
        self,
        optimizer: torch.optim.Adam,
        circuit_parameters: Float[Tensor, "B P"],
        targets: Float[Tensor, "B N"],
        num_steps: int,
    ) -> Float[Tensor, ""]:
        """One Adam step per tiny-batch on its mean binary cross entropy.

        Args:
            optimizer: whose rates and moments are used; its state is made where it is still empty.
            circuit_parameters: all tiny-batches, one after the other.
            targets: bits, or their means, in 0..1.
            num_steps: tiny-batches; all have ``B / num_steps`` rows.

        Returns:
            Loss of the last tiny-batch before its step, nats per bit.

        Raises:
            StateMismatchError: if these are not rows of this surrogate's sizes, as many of the one as of the other.
        """
        inputs, _, outputs = self._sizes
        check_rows(circuit_parameters, inputs, "circuit parameters")
        check_rows(targets, outputs, "bits")
        if len(circuit_parameters) != len(targets) or len(targets) % num_steps:
            raise StateMismatchError(
                f"{num_steps} tiny-batches need as many rows of circuit parameters as of bits and a multiple of "
                f"{num_steps}, got {len(circuit_parameters)} and {len(targets)}"
            )
        states = [adam_state(optimizer, layer) for layer in self._layers]
        group = optimizer.param_groups[0]
        arrays = [*self._layers, *(s["exp_avg"] for s in states), *(s["exp_avg_sq"] for s in states)]
        rows, targets = circuit_parameters.contiguous(), targets.contiguous()
        num_rows, threads = len(rows) // num_steps, torch.get_num_threads()
        scratch = self._scratch.address(self._library.surrogate_fit_scratch(*self._sizes, num_rows, num_steps, threads))
        loss = self._library.surrogate_fit(
            *self._sizes,
            pointers(arrays),
            float(group["lr"]),
            *group["betas"],
            group["eps"],
            float(states[0]["step"]),
            rows.data_ptr(),
            targets.data_ptr(),
            num_rows,
            num_steps,
            threads,
            scratch,
        )
        torch._foreach_add_([state["step"] for state in states], num_steps)
        return torch.tensor(loss)

    def expected_bits(self, circuit_parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
        """P(bit = 1), differentiable in the circuit parameters; the surrogate's weights get no gradient from it."""
        output: Tensor = _ExpectedBits.apply(circuit_parameters, self)  # type: ignore[no-untyped-call]
        return output

    def forward(self, rows: Tensor, *, keeps_signs: bool) -> tuple[Tensor, Tensor | None]:
        """Expected bits, and what ``input_gradient`` needs.

        Raises:
            StateMismatchError: if these are not rows of this surrogate's circuit parameters.
        """
        inputs, hidden, outputs = self._sizes
        check_rows(rows, inputs, "circuit parameters")
        threads = torch.get_num_threads()
        scratch = self._scratch.address(self._library.surrogate_pass_scratch(inputs, outputs, len(rows), threads))
        bits = torch.empty(len(rows), outputs)
        signs = None
        if keeps_signs:
            signs = torch.empty(self._library.surrogate_num_signs(hidden, len(rows)), dtype=torch.int16)
        self._library.surrogate_forward(
            *self._sizes,
            pointers(self._layers),
            rows.data_ptr(),
            len(rows),
            threads,
            scratch,
            bits.data_ptr(),
            None if signs is None else signs.data_ptr(),
        )
        return bits, signs

    def input_gradient(self, bits: Tensor, signs: Tensor, bits_gradient: Tensor) -> Tensor:
        """Gradient with respect to the rows of ``forward``."""
        inputs, _, outputs = self._sizes
        threads = torch.get_num_threads()
        scratch = self._scratch.address(self._library.surrogate_pass_scratch(inputs, outputs, len(bits), threads))
        # Held by a name until the call is over: an address alone keeps no memory alive.
        bits_gradient = bits_gradient.contiguous()
        gradient = torch.empty(len(bits), inputs)
        self._library.surrogate_input_gradient(
            *self._sizes,
            pointers(self._layers),
            len(bits),
            threads,
            scratch,
            bits.data_ptr(),
            signs.data_ptr(),
            bits_gradient.data_ptr(),
            gradient.data_ptr(),
        )
        return gradient


def make_surrogate_kernel(network: nn.Sequential) -> SurrogateKernel | None:
    """Kernels for a network of Linear, LeakyReLU, Linear on the CPU in float32; None where they can't be compiled.

    Raises:
        StateMismatchError: if the network is another one.
    """
    match list(network):
        case [nn.Linear() as first, nn.LeakyReLU(negative_slope=slope), nn.Linear() as last] if (
            slope == _LEAKY_RELU_SLOPE and all(map(is_computable, network.parameters()))
        ):
            library = load_kernels()
            layers = (first.weight, first.bias, last.weight, last.bias)
            return None if library is None else SurrogateKernel(library, layers)
    kinds = sorted({f"{parameter.dtype} on {parameter.device}" for parameter in network.parameters()})
    raise StateMismatchError(
        f"the kernels compute Linear, LeakyReLU({_LEAKY_RELU_SLOPE}), Linear in float32 on the CPU, got {network} "
        f"in {', '.join(kinds)}; use the plain path (--no-compile)"
    )


class _ExpectedBits(torch.autograd.Function):
    """Expected bits with the gradient of their input alone."""

    @staticmethod
    def forward(ctx: Any, circuit_parameters: Tensor, kernel: SurrogateKernel) -> Tensor:
        bits, signs = kernel.forward(circuit_parameters.contiguous(), keeps_signs=circuit_parameters.requires_grad)
        if signs is not None:
            ctx.kernel = kernel
            ctx.save_for_backward(bits, signs)
        return bits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        bits, signs = ctx.saved_tensors
        return ctx.kernel.input_gradient(bits, signs, gradients[0]), None
