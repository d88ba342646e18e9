"""The paper's circuit family: its size, and how a real vector becomes angles and qubit pairs.

Axis legend: B batch, M layers, N qubits, P = (2N+2)·M circuit parameters.
This file must never import a simulator: it is shared by actors, learner and every backend.

Source: arXiv:2503.09119, Section 3 ("The PQC is composed of N = 10 qubits and M = 10 layers").
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitShape:
    """Size of one circuit: N qubits, M layers of N rotations R(θ, φ) and one CZ."""

    num_qubits: int = 10
    """Qubits N. Source: arXiv:2503.09119, Table 2."""
    num_layers: int = 10
    """Layers M. Source: arXiv:2503.09119, Table 2."""

    def __post_init__(self) -> None:
        """Refuse sizes that no backend can hold."""
        if not 1 <= self.num_qubits <= 20:
            raise ValueError(
                f"num_qubits must be in 1..20, got {self.num_qubits}; a state of more qubits does not "
                "fit the simulators here, choose a smaller circuit"
            )
        if self.num_layers < 1:
            raise ValueError(f"num_layers must be at least 1, got {self.num_layers}")

    @property
    def num_parameters(self) -> int:
        """Real numbers that control one circuit: (2N+2)·M."""
        return (2 * self.num_qubits + 2) * self.num_layers


def decode_parameters(
    parameters: Float32[np.ndarray, "B P"], shape: CircuitShape
) -> tuple[Float32[np.ndarray, "B M N 2"], Int16[np.ndarray, "B M 2"]]:
    """Split circuit parameters q_i into rotation angles and CZ pairs.

    Layer j of the vector is (θ_0, φ_0, …, θ_{N-1}, φ_{N-1}, p, k). The paper rounds p and k to qubit
    indices and does not say what happens outside 0..N-1; here an index is ``round(x) mod N``, so every
    finite real number is legal and, as for the angles, the parameter space has no edge.

    Args:
        parameters: q_i, unbounded reals; angles in rad.
        shape: circuit size.

    Returns:
        Angles in rad, ``[..., 0]`` = θ and ``[..., 1]`` = φ; qubit pairs, equal indices meaning no CZ.

    Raises:
        ValueError: if the shape is not (B, P) or a value is not finite.

    Source: arXiv:2503.09119, Section 3. Fills a gap: the index rule (docs/adr/0003).
    """
    if parameters.ndim != 2 or parameters.shape[1] != shape.num_parameters:
        raise ValueError(
            f"circuit parameters must have shape (B, {shape.num_parameters}), got {parameters.shape}; "
            "check that the policy and the circuit were built from the same CircuitShape"
        )
    if not np.isfinite(parameters).all():
        row = int(np.flatnonzero(~np.isfinite(parameters).all(axis=1))[0])
        raise ValueError(f"circuit parameters of circuit {row} are not finite; the policy network has diverged")
    num_qubits = shape.num_qubits
    layers = parameters.reshape(len(parameters), shape.num_layers, 2 * num_qubits + 2)
    angles = np.ascontiguousarray(layers[:, :, : 2 * num_qubits], dtype=np.float32)
    pairs = np.mod(np.rint(layers[:, :, 2 * num_qubits :]), num_qubits).astype(np.int16)
    return angles.reshape(len(parameters), shape.num_layers, num_qubits, 2), pairs
