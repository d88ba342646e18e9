"""Exact bit means of the circuit as torch operations, for a learner on a GPU: nothing waits for the host.

On the CPU our compiled simulator does the same far faster (learner/exact_circuit.py). Here a layer is as few, as large
products as can be: the rotations of up to five qubits are one matrix, all of them are made at once for all layers, and
a CZ is a table of signs. So it can be captured in a CUDA graph, and autograd's way back with it.

Axis legend: B batch, M layers, N qubits, P circuit parameters, D = 2^N amplitudes, G = 2^(qubits of a group).
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import torch
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor

from qpu_service.circuit import CircuitShape

_LARGEST_GROUP = 5
"""Qubits whose rotations are multiplied out into one matrix: 32 × 32, what a tensor product of two halves of the
paper's ten qubits takes."""


def device_bit_means(
    circuit_parameters: Float[Tensor, "B P"], shape: CircuitShape, *, is_entangled: bool = True
) -> Float[Tensor, "B N"]:
    """P(bit = 1) of every qubit, differentiable in the angles; the qubit indices p and k get a gradient of zero.

    Args:
        circuit_parameters: θ, φ in rad and p, k of every layer, as ``decode_parameters`` splits them. Numbers that are
            not finite give means that are not: to refuse them here would wait for the device.
        shape: circuit size.
        is_entangled: whether CZs act; not in the block ``unentangled_pqc``.
    """
    num_qubits, device = shape.num_qubits, circuit_parameters.device
    layers = circuit_parameters.float().reshape(-1, shape.num_layers, 2 * num_qubits + 2)
    angles = layers[..., : 2 * num_qubits].reshape(*layers.shape[:2], num_qubits, 2)
    groups = _groups(num_qubits)
    matrices = [_product(_rotations(angles[:, :, first:last])) for first, last in groups]
    signs = _pair_signs(num_qubits, device)[_pair_index(layers[..., 2 * num_qubits :], num_qubits)]
    # From |0…0⟩ the first layer makes a product of first columns.
    state = matrices[0][:, 0, :, 0]
    for matrix in matrices[1:]:
        state = (state[:, :, None] * matrix[:, 0, None, :, 0]).flatten(1)
    for layer in range(shape.num_layers):
        if layer:
            state = _rotate(state, [matrix[:, layer] for matrix in matrices])
        if is_entangled:
            state = state * signs[:, layer]
    probabilities = state.real.square() + state.imag.square()
    return (probabilities @ _bit_table(num_qubits, device)).to(circuit_parameters.dtype)


def _groups(num_qubits: int) -> list[tuple[int, int]]:
    """First and past-the-last qubit of groups of nearly equal size."""
    count = -(-num_qubits // _LARGEST_GROUP)
    edges = [round(index * num_qubits / count) for index in range(count + 1)]
    return list(pairwise(edges))


def _rotations(angles: Float32[Tensor, "B M K 2"]) -> Complex64[Tensor, "B M K 2 2"]:
    """R(θ, φ) = exp(−iθ/2 · (cos φ · X + sin φ · Y)), Qiskit's ``RGate``."""
    half, phase = angles[..., 0] / 2, angles[..., 1]
    cosine, sine = half.cos(), half.sin()
    zero = torch.zeros_like(cosine)
    on = torch.complex(cosine, zero)
    upper = torch.complex(-sine * phase.sin(), -sine * phase.cos())
    lower = torch.complex(sine * phase.sin(), -sine * phase.cos())
    return torch.stack([torch.stack([on, upper], dim=-1), torch.stack([lower, on], dim=-1)], dim=-2)


def _product(gates: Complex64[Tensor, "B M K 2 2"]) -> Complex64[Tensor, "B M G G"]:
    """Tensor product of the gates of a group; its first qubit is the leftmost bit of an index."""
    product = gates[:, :, 0]
    for qubit in range(1, gates.shape[2]):
        gate = gates[:, :, qubit]
        product = (product[:, :, :, None, :, None] * gate[:, :, None, :, None, :]).flatten(4, 5).flatten(2, 3)
    return product


def _rotate(
    state: Complex64[Tensor, "B D"], matrices: Sequence[Complex64[Tensor, "B G G"]]
) -> Complex64[Tensor, "B D"]:
    """Apply the matrix of every group along its axis of the state."""
    num_circuits, size = state.shape
    before = 1
    for matrix in matrices:
        group = matrix.shape[-1]
        if before * group == size:  # the last axis: one product instead of one for each index before it
            state = (state.reshape(num_circuits, before, group) @ matrix.mT).reshape(num_circuits, size)
        else:
            parted = state.reshape(num_circuits, before, group, size // before // group)
            state = (matrix[:, None] @ parted).reshape(num_circuits, size)
        before *= group
    return state


def _pair_index(pairs: Float32[Tensor, "B M 2"], num_qubits: int) -> Int64[Tensor, "B M"]:
    """Row of the table of signs: round(x) mod N for both, as ``decode_parameters`` does."""
    with torch.no_grad():
        # Not finite: any row will do, and an index outside of the table would stop the device.
        indices = pairs.round().remainder(num_qubits).nan_to_num().long().clamp(0, num_qubits - 1)
        return indices[..., 0] * num_qubits + indices[..., 1]


@cache
def _pair_signs(num_qubits: int, device: torch.device) -> Float32[Tensor, "N*N D"]:
    """−1 where both qubits of a pair are 1; a pair of equal qubits is no gate."""
    bits = _bit_table(num_qubits, device)
    both = bits.T[:, None, :] * bits.T[None, :, :]
    both = both * (1 - torch.eye(num_qubits, device=device))[:, :, None]
    return (1 - 2 * both).flatten(0, 1)


@cache
def _bit_table(num_qubits: int, device: torch.device) -> Float32[Tensor, "D N"]:
    """Bit of qubit n in each index; qubit 0 is the leftmost."""
    indices = torch.arange(2**num_qubits, device=device)
    shifts = torch.arange(num_qubits - 1, -1, -1, device=device)
    return ((indices[:, None] >> shifts) & 1).float()
