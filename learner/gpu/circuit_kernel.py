"""Exact bit means of the circuit by one kernel for each direction, one program for each circuit.

Same numbers as learner/device_circuit.py, which takes hundreds of small kernels for them and keeps the state of every
layer. Here the way back is the adjoint method: it walks from the final state to the first layer by undoing the gates,
so that only the final state is kept. The first half of the qubits are the rows of the state, the others its columns;
the rotations of a layer are one matrix for each half: state ← A · state · Bᵀ.
Must never wait for the device: CUDA graphs capture it. To be imported only where Triton is installed.

Axis legend: B batch, M layers, N qubits, P circuit parameters, D = 2^N amplitudes, G = 2^(qubits of a half).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from learner.gpu.circuit_tiles import (
    SLOTS,
    bits,
    load_pair,
    pair_signs,
    product,
    rotations,
    store_pair,
    store_waves,
    turn,
)
from qpu_service.circuit import CircuitShape

NUM_WARPS = 4
"""Warps of 32 threads that share a circuit."""

_SMALLEST, _LARGEST = 8, 10
"""Qubits. With fewer, a half's matrix is smaller than the 16 × 16 of ``tl.dot``. From 11 on a program's numbers spill
out of its registers: right, but slow."""


def supports(shape: CircuitShape) -> bool:
    """Whether the kernels take circuits of this size: 8 to 10 qubits, any number of layers."""
    return _SMALLEST <= shape.num_qubits <= _LARGEST


def circuit_bit_means(
    circuit_parameters: Float[Tensor, "B P"],
    shape: CircuitShape,
    *,
    is_entangled: bool = True,
    precision: str = "ieee",
    num_warps: int = NUM_WARPS,
) -> Float[Tensor, "B N"]:
    """P(bit = 1) of every qubit, differentiable (once) in the angles; the indices p and k get a gradient of zero.

    Args:
        circuit_parameters: θ, φ in rad and p, k of every layer, as ``decode_parameters`` splits them. Angles that are
            not finite give means that are not: to refuse them here would wait for the device.
        shape: circuit size.
        is_entangled: whether CZs act; not in the block ``unentangled_pqc``.
        precision: how ``tl.dot`` multiplies float32: "ieee", or "tf32x3" by three products on tensor cores.
        num_warps: warps that share a circuit.

    Raises:
        ValueError: if the kernels don't take this size, or the parameters don't have the shape (B, P).
    """
    if not supports(shape):
        raise ValueError(
            f"the kernels take {_SMALLEST}..{_LARGEST} qubits, got {shape.num_qubits}; use device_bit_means instead"
        )
    if circuit_parameters.ndim != 2 or circuit_parameters.shape[1] != shape.num_parameters:
        # A kernel would read beyond the end of the tensor.
        raise ValueError(
            f"circuit parameters must have shape (B, {shape.num_parameters}), got {tuple(circuit_parameters.shape)}; "
            "check that the policy and the circuit were built from the same CircuitShape"
        )
    options = {
        "QUBITS": shape.num_qubits,
        "LAYERS": shape.num_layers,
        "IS_ENTANGLED": is_entangled,
        "PRECISION": precision,
        "num_warps": num_warps,
        "num_stages": 1,  # nothing to fetch ahead of time
    }
    means: Tensor = _Means.apply(circuit_parameters.float().contiguous(), options)  # type: ignore[no-untyped-call]
    return means.to(circuit_parameters.dtype)


class _Means(torch.autograd.Function):
    """Keeps the parameters, the sines and cosines of their angles and the final state, 8 · D bytes a circuit."""

    @staticmethod
    def forward(ctx: Any, parameters: Float32[Tensor, "B P"], options: dict[str, Any]) -> Float32[Tensor, "B N"]:
        num_circuits, num_qubits = len(parameters), options["QUBITS"]
        means = parameters.new_empty(num_circuits, num_qubits)
        waves = parameters.new_empty(num_circuits, 4, options["LAYERS"] * num_qubits)
        state = parameters.new_empty(num_circuits, 2, 2**num_qubits)
        _forward[(num_circuits,)](parameters, waves, state, means, **options)
        ctx.save_for_backward(parameters, waves, state)
        ctx.options = options
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, weights: Float32[Tensor, "B N"]) -> tuple[Float32[Tensor, "B P"], None]:
        parameters, waves, state = ctx.saved_tensors
        gradients = torch.empty_like(parameters)
        work = state.new_empty(len(state), 2, *state.shape[1:])
        _backward[(len(parameters),)](parameters, waves, state, weights.contiguous(), work, gradients, **ctx.options)
        return gradients, None


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    parameters,  # (B, P)
    waves,  # (B, 4, M · N), written: cos θ/2, sin θ/2, cos φ, sin φ
    final_state,  # (B, 2, D), written: real and imaginary part
    means,  # (B, N), written
    QUBITS: tl.constexpr,
    LAYERS: tl.constexpr,
    IS_ENTANGLED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Bit means of one circuit; a pair of names x, x_i is a complex number."""
    BELOW: tl.constexpr = QUBITS // 2
    ABOVE: tl.constexpr = QUBITS - BELOW
    ROTATIONS: tl.constexpr = LAYERS * QUBITS
    SIZE: tl.constexpr = 2**QUBITS
    row, column = tl.arange(0, 2**ABOVE), tl.arange(0, 2**BELOW)
    index = row[:, None] * 2**BELOW + column[None, :]
    circuit = tl.program_id(0).to(tl.int64)
    parameters += circuit * (ROTATIONS * 2 + LAYERS * 2)
    waves += circuit * (4 * ROTATIONS)
    final_state += circuit * (2 * SIZE)
    store_waves(parameters, waves, QUBITS, ROTATIONS)
    # After a barrier threads read what others have written.
    tl.debug_barrier()
    # From |0…0⟩ the first layer makes a product of first columns.
    above, above_i = rotations(waves, row[:, None], column[None, :] * 0, ABOVE, ROTATIONS, False)
    below, below_i = rotations(waves + ABOVE, column[None, :], row[:, None] * 0, BELOW, ROTATIONS, False)
    state, state_i = above * below - above_i * below_i, above * below_i + above_i * below
    if IS_ENTANGLED:
        signs = pair_signs(parameters + 2 * QUBITS, index, QUBITS)
        state, state_i = state * signs, state_i * signs
    store_pair(final_state, index, state, state_i, SIZE)
    for layer in range(1, LAYERS):
        pair = parameters + layer * (2 * QUBITS + 2) + 2 * QUBITS
        turn(final_state, waves + layer * QUBITS, pair, QUBITS, ROTATIONS, IS_ENTANGLED, False, PRECISION)

    tl.debug_barrier()
    state, state_i = load_pair(final_state, index, SIZE)
    probabilities = state * state + state_i * state_i
    slot = tl.arange(0, SLOTS)
    means += circuit * QUBITS
    ones = tl.sum(tl.sum(probabilities, axis=1)[:, None] * bits(row, ABOVE), axis=0)
    tl.store(means + slot, ones, mask=slot < ABOVE)
    ones = tl.sum(tl.sum(probabilities, axis=0)[:, None] * bits(column, BELOW), axis=0)
    tl.store(means + ABOVE + slot, ones, mask=slot < BELOW)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    parameters,  # (B, P)
    waves,  # (B, 4, M · N), of the way forward
    final_state,  # (B, 2, D), of the way forward
    weights,  # (B, N), gradient of the means
    work,  # (B, 2, 2, D), for state and costate
    gradients,  # (B, P), written
    QUBITS: tl.constexpr,
    LAYERS: tl.constexpr,
    IS_ENTANGLED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of L = Σ weights · means, which is ⟨state| O |state⟩ with a diagonal O; costate = O · state.

    A turn by dα of a rotation R is K R dα with K = dR/dα · R⁻¹, so dL/dα = 2 Re ⟨costate| K |state⟩ right after R.
    """
    BELOW: tl.constexpr = QUBITS // 2
    ABOVE: tl.constexpr = QUBITS - BELOW
    ROTATIONS: tl.constexpr = LAYERS * QUBITS
    SIZE: tl.constexpr = 2**QUBITS
    row, column = tl.arange(0, 2**ABOVE), tl.arange(0, 2**BELOW)
    index = row[:, None] * 2**BELOW + column[None, :]
    circuit = tl.program_id(0).to(tl.int64)
    parameters += circuit * (ROTATIONS * 2 + LAYERS * 2)
    gradients += circuit * (ROTATIONS * 2 + LAYERS * 2)
    waves += circuit * (4 * ROTATIONS)
    final_state += circuit * (2 * SIZE)
    weights += circuit * QUBITS

    work += circuit * (4 * SIZE)
    state, state_i = load_pair(final_state, index, SIZE)
    if IS_ENTANGLED:
        signs = pair_signs(parameters + (LAYERS - 1) * (2 * QUBITS + 2) + 2 * QUBITS, index, QUBITS)
        state, state_i = state * signs, state_i * signs
    observable = _weighted_bits(weights, row, ABOVE)[:, None] + _weighted_bits(weights + ABOVE, column, BELOW)[None, :]
    store_pair(work, index, state, state_i, SIZE)
    store_pair(work + 2 * SIZE, index, observable * state, observable * state_i, SIZE)
    for step in range(LAYERS):
        layer = LAYERS - 1 - step
        first = layer * (2 * QUBITS + 2)
        at = waves + layer * QUBITS
        tl.debug_barrier()
        # Σ over the other half of conj(costate) · state, for every pair of indices of a half.
        state, state_i = load_pair(work, index, SIZE)
        costate, costate_i = load_pair(work + 2 * SIZE, index, SIZE)
        cross, cross_i = product(costate, -costate_i, tl.trans(state), tl.trans(state_i), PRECISION)
        _store_gradients(gradients + first, at, cross, cross_i, row, ABOVE, ROTATIONS)
        # Read again: fewer numbers to hold meanwhile.
        state, state_i = load_pair(work, index, SIZE)
        costate, costate_i = load_pair(work + 2 * SIZE, index, SIZE)
        cross, cross_i = product(tl.trans(costate), -tl.trans(costate_i), state, state_i, PRECISION)
        _store_gradients(gradients + first + 2 * ABOVE, at + ABOVE, cross, cross_i, column, BELOW, ROTATIONS)
        tl.store(gradients + first + 2 * QUBITS, 0.0)
        tl.store(gradients + first + 2 * QUBITS + 1, 0.0)
        if layer > 0:
            for one in range(2):  # the state, the costate
                tile = work + one * (2 * SIZE)
                turn(tile, at, parameters + first - 2, QUBITS, ROTATIONS, IS_ENTANGLED, True, PRECISION)


@triton.jit
def _weighted_bits(weights, index, COUNT: tl.constexpr):  # type: ignore[no-untyped-def]
    """(G,): Σ weight · bit over a half's qubits."""
    slot = tl.arange(0, SLOTS)
    return tl.sum(tl.load(weights + slot, mask=slot < COUNT, other=0.0)[None, :] * bits(index, COUNT), axis=1)


@triton.jit
def _store_gradients(  # type: ignore[no-untyped-def]
    gradients, waves, cross, cross_i, index, COUNT: tl.constexpr, ROTATIONS: tl.constexpr
):
    """Gradients of θ and φ of a half's qubits from its matrix (G, G) of costate and state.

    K is −i/2 · (cos φ · X + sin φ · Y) for θ and −i/2 · (Z − R Z R†) for φ, so both follow from Im ⟨costate| · |state⟩
    of X, Y and Z.
    """
    slot = tl.arange(0, SLOTS)
    flip = tl.full((SLOTS,), 1, tl.int32) << tl.maximum(COUNT - 1 - slot, 0)
    flipped = index[:, None] ^ flip[None, :]
    sign = 2.0 * bits(index, COUNT) - 1.0
    diagonal_i = tl.sum(tl.where(index[:, None] == index[None, :], cross_i, 0.0), axis=1)
    x = tl.sum(tl.gather(cross_i, flipped, 1), axis=0)
    y = tl.sum(tl.gather(cross, flipped, 1) * sign, axis=0)
    z = -tl.sum(diagonal_i[:, None] * sign, axis=0)

    is_qubit = slot < COUNT
    cosine = tl.load(waves + slot, mask=is_qubit, other=0.0)
    sine = tl.load(waves + ROTATIONS + slot, mask=is_qubit, other=0.0)
    phase_cosine = tl.load(waves + 2 * ROTATIONS + slot, mask=is_qubit, other=0.0)
    phase_sine = tl.load(waves + 3 * ROTATIONS + slot, mask=is_qubit, other=0.0)
    tl.store(gradients + 2 * slot, phase_cosine * x + phase_sine * y, mask=is_qubit)
    turned = sine * z - cosine * (phase_sine * x - phase_cosine * y)
    tl.store(gradients + 2 * slot + 1, 2.0 * sine * turned, mask=is_qubit)
