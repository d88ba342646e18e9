"""The circuit families of Quantum-Train generators: sizes, and circuits as lists of multiplexed gates.

Axis legend: L layers, N qubits, A angles, K gates.

``u3_cu3``: in each layer U3 on every qubit, then CU3 from every qubit to the next, the last one to the first. This is
what the authors' released code runs. ``ry_cnot``: in each layer RY on every qubit, then CNOT from every qubit to the
next. Matrices are Qiskit's: U3(θ, φ, λ) = P(φ)·RY(θ)·P(λ), and the same controlled.

Source: arXiv:2412.08845 (Dist-QTRL), arXiv:2407.06103 (QTRL).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Complex128, Float32, Float64, Int64

CircuitFamily = Literal["u3_cu3", "ry_cnot"]

_MIN_WIDTH = 4
_MAX_QUBITS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorShape:
    """Family and size of one generator circuit."""

    num_qubits: int
    """Qubits N; a circuit gives 2^N probabilities."""
    depth: int
    """Layers L."""
    family: CircuitFamily = "u3_cu3"
    """Gates of a layer."""

    def __post_init__(self) -> None:
        """Refuse sizes that no backend can hold."""
        if not 2 <= self.num_qubits <= _MAX_QUBITS:
            raise ValueError(
                f"num_qubits must be in 2..{_MAX_QUBITS}, got {self.num_qubits}; generate the weights in batches from "
                "smaller registers (max_qubits)"
            )
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if self.family not in ("u3_cu3", "ry_cnot"):
            raise ValueError(f"family must be u3_cu3 or ry_cnot, got {self.family!r}")

    @property
    def num_angles(self) -> int:
        """Trainable angles A: 6·N·L of U3 and CU3, N·L of RY."""
        return (6 if self.family == "u3_cu3" else 1) * self.num_qubits * self.depth

    @property
    def num_outcomes(self) -> int:
        """Probabilities of one circuit, 2^N."""
        return 1 << self.num_qubits


@dataclass(frozen=True, slots=True)
class GateProgram:
    """One circuit as multiplexed gates, and what is needed to carry derivatives back to its angles."""

    matrices: Complex128[np.ndarray, "K 2 2 2"]
    """Matrix on the target for control 0 and for control 1."""
    singles: Complex128[np.ndarray, "L N 2 2"]
    """Single-qubit gates that were merged in."""
    controlled: Complex128[np.ndarray, "L N 2 2"]
    """What a controlled gate applies to its target; empty for ``ry_cnot``, whose CNOTs have no angle."""


def gate_places(shape: GeneratorShape) -> Int64[np.ndarray, "K 3"]:
    """Control, target and register width of every gate, in the order of ``gate_matrices``.

    A gate without control has the same two matrices, and any other qubit in place of the control.
    """
    num_qubits = shape.num_qubits
    rows = []
    for layer in range(shape.depth):
        full = max(num_qubits, _MIN_WIDTH)
        if layer == 0 or shape.family == "ry_cnot":
            rows.append((1, 0, _MIN_WIDTH if layer == 0 else full))
        # in the first layer qubits join the register one after the other
        rows += [(q, q + 1, max(q + 2, _MIN_WIDTH) if layer == 0 else full) for q in range(num_qubits - 1)]
        if shape.family == "u3_cu3":
            rows.append((num_qubits - 1, 0, full))
    return np.array(rows, dtype=np.int64)


def gate_program(shape: GeneratorShape, angles: Float64[np.ndarray, "A"]) -> GateProgram:
    """Merge the circuit's gates into multiplexed ones.

    Args:
        shape: family and size.
        angles: rad. ``u3_cu3``: (L, 2, N, 3) flattened, U3's (θ, φ, λ) of every qubit, then CU3's with this qubit as
            control. ``ry_cnot``: (L, N) flattened.
    """
    return _program_u3(shape, angles) if shape.family == "u3_cu3" else _program_ry(shape, angles)


def angle_gradient(
    shape: GeneratorShape,
    angles: Float64[np.ndarray, "A"],
    program: GateProgram,
    overlaps: Complex128[np.ndarray, "K 2 2 2"],
) -> Float64[np.ndarray, "A"]:
    """Carry dm·S overlaps of every merged gate back to the angles.

    Args:
        shape: family and size.
        angles: rad, as in ``gate_program``.
        program: of these angles.
        overlaps: S per gate and control bit: the change of the result is 2·Re Σ_ab dm_ab·S_ab.
    """
    if shape.family == "ry_cnot":
        return _gradient_ry(shape, angles, overlaps)
    return _gradient_u3(shape, angles, program, overlaps)


def u3(angles: Float64[np.ndarray, "... 3"]) -> Complex128[np.ndarray, "... 2 2"]:
    """Qiskit's U3(θ, φ, λ)."""
    cos, sin = np.cos(angles[..., 0] / 2), np.sin(angles[..., 0] / 2)
    left, right = np.exp(1j * angles[..., 1]), np.exp(1j * angles[..., 2])
    matrix = np.empty((*angles.shape[:-1], 2, 2), np.complex128)
    matrix[..., 0, 0], matrix[..., 0, 1] = cos, -right * sin
    matrix[..., 1, 0], matrix[..., 1, 1] = left * sin, left * right * cos
    return matrix


def pack_matrices(matrices: Complex128[np.ndarray, "K 2 2 2"]) -> Float32[np.ndarray, "K 2 8"]:
    """Real and imaginary parts in the order of the kernels."""
    return matrices.view(np.float64).astype(np.float32).reshape(len(matrices), 2, 8)


def _program_u3(shape: GeneratorShape, angles: Float64[np.ndarray, "A"]) -> GateProgram:
    num_layers, num_qubits = shape.depth, shape.num_qubits
    both = u3(angles.reshape(num_layers, 2, num_qubits, 3))
    singles, controlled = both[:, 0], both[:, 1]
    # A ring's last gate acts on qubit 0, whose next U3 is merged in from the left; the others merge from the right.
    after = np.concatenate([singles[1:, 0], np.eye(2, dtype=np.complex128)[None]])
    ring = np.empty((num_layers, num_qubits, 2, 2, 2), np.complex128)
    ring[:, :-1, 0] = singles[:, 1:]
    ring[:, :-1, 1] = controlled[:, :-1] @ singles[:, 1:]
    ring[:, -1, 0] = after
    ring[:, -1, 1] = after @ controlled[:, -1]
    first = np.broadcast_to(singles[0, 0], (1, 2, 2, 2))
    return GateProgram(np.concatenate([first, ring.reshape(-1, 2, 2, 2)]), singles, controlled)


def _gradient_u3(
    shape: GeneratorShape,
    angles: Float64[np.ndarray, "A"],
    program: GateProgram,
    overlaps: Complex128[np.ndarray, "K 2 2 2"],
) -> Float64[np.ndarray, "A"]:
    num_layers, num_qubits = shape.depth, shape.num_qubits
    singles, controlled = program.singles, program.controlled
    ring = overlaps[1:].reshape(num_layers, num_qubits, 2, 2, 2)
    d_matrix = np.zeros((num_layers, 2, num_qubits, 2, 2), np.complex128)
    d_single, d_controlled = d_matrix[:, 0], d_matrix[:, 1]
    d_single[0, 0] = overlaps[0].sum(axis=0)
    d_single[:, 1:] = ring[:, :-1, 0] + controlled[:, :-1].mT @ ring[:, :-1, 1]
    d_controlled[:, :-1] = ring[:, :-1, 1] @ singles[:, 1:].mT
    after = np.concatenate([singles[1:, 0], np.eye(2, dtype=np.complex128)[None]])
    d_after = ring[:, -1, 0] + ring[:, -1, 1] @ controlled[:, -1].mT
    d_single[1:, 0] = d_after[:-1]
    d_controlled[:, -1] = after.mT @ ring[:, -1, 1]
    return _u3_gradient(angles.reshape(num_layers, 2, num_qubits, 3), d_matrix).ravel()


def _u3_gradient(
    angles: Float64[np.ndarray, "... 3"], d_matrix: Complex128[np.ndarray, "... 2 2"]
) -> Float64[np.ndarray, "... 3"]:
    cos, sin = np.cos(angles[..., 0] / 2), np.sin(angles[..., 0] / 2)
    left, right = np.exp(1j * angles[..., 1]), np.exp(1j * angles[..., 2])
    upper, lower, corner = d_matrix[..., 0, 1] * right, d_matrix[..., 1, 0] * left, d_matrix[..., 1, 1] * left * right
    theta = (-sin * (d_matrix[..., 0, 0] + corner) + cos * (lower - upper)).real
    phi = -2 * (sin * lower + cos * corner).imag
    lam = -2 * (cos * corner - sin * upper).imag
    return np.stack([theta, phi, lam], axis=-1)


def _ry(angles: Float64[np.ndarray, "..."]) -> Complex128[np.ndarray, "... 2 2"]:
    cos, sin = np.cos(angles / 2), np.sin(angles / 2)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2).astype(np.complex128)


def _program_ry(shape: GeneratorShape, angles: Float64[np.ndarray, "A"]) -> GateProgram:
    singles = _ry(angles.reshape(shape.depth, shape.num_qubits))
    matrices = np.stack([singles, singles], axis=2)
    matrices[:, 1:, 1] = singles[:, 1:, ::-1]  # X after RY: the rows change places
    return GateProgram(matrices.reshape(-1, 2, 2, 2), singles, np.zeros((0, 0, 2, 2), np.complex128))


def _gradient_ry(
    shape: GeneratorShape, angles: Float64[np.ndarray, "A"], overlaps: Complex128[np.ndarray, "K 2 2 2"]
) -> Float64[np.ndarray, "A"]:
    per_gate = overlaps.reshape(shape.depth, shape.num_qubits, 2, 2, 2)
    d_single = per_gate[:, :, 0].copy()
    d_single[:, 0] += per_gate[:, 0, 1]
    d_single[:, 1:] += per_gate[:, 1:, 1, ::-1]
    slope = _ry(angles.reshape(shape.depth, shape.num_qubits) + np.pi)  # 2·d RY(θ)/dθ
    gradient: np.ndarray = (slope * d_single).sum(axis=(2, 3)).real.ravel()
    return gradient
