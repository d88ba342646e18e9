"""Wire types of the QPU service: what is asked for and what comes back. Shapes are checked here, once.

Axis legend: B batch, M layers, N qubits, S shots.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int16, UInt8, UInt64

from qpu_service.errors import InvalidCircuitError

MAX_QUBITS = 20
"""Most qubits of one circuit: larger states do not fit the simulators here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBatch:
    """B circuits of one size, each with its own angles, CZ pairs and seed; equal shots."""

    angles: Float32[np.ndarray, "B M N 2"]
    """Rotation angles in rad: ``[..., 0]`` = θ, ``[..., 1]`` = φ of Qiskit's RGate(θ, φ)."""
    entangler_pairs: Int16[np.ndarray, "B M 2"]
    """Qubits (p, k) of the CZ after each layer's rotations; p == k means none."""
    seeds: UInt64[np.ndarray, "B"]
    """One seed per circuit, so that bits do not depend on how requests were batched together."""
    shots: int = 1
    """Measurements per circuit."""
    request_id: str = ""
    """Identifies the request in logs, journals and replies."""

    def __post_init__(self) -> None:
        """Refuse what no backend may run, before anything is spent on it."""
        self.validate()

    def validate(self) -> None:
        """Check shapes, types and values again, for a batch that came over a wire and was never constructed here.

        Raises:
            InvalidCircuitError: if no backend could run these circuits.
        """
        _check_circuits(self)

    def __len__(self) -> int:
        """Number of circuits B."""
        return len(self.angles)

    def take(self, rows: list[int] | slice) -> "CircuitBatch":
        """Some of the circuits."""
        return replace(
            self, angles=self.angles[rows], entangler_pairs=self.entangler_pairs[rows], seeds=self.seeds[rows]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementBatch:
    """Bits of a CircuitBatch, in its order."""

    bits: UInt8[np.ndarray, "B S N"]
    """0 or 1; ``bits[..., q]`` is qubit q (the reverse of a Qiskit bitstring)."""
    request_id: str
    backend_name: str
    queue_s: float = 0.0
    """Seconds between the request's arrival and its start on the backend."""
    execution_s: float = 0.0
    """Seconds on the backend, shared by everything in the same micro-batch."""
    job_id: str | None = None
    """Provider's job, where there is one."""


def circuit_seeds(seed: int, count: int) -> UInt64[np.ndarray, "B"]:
    """Seeds of ``count`` circuits from one request seed (SplitMix64), the same for every prefix length."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _check_circuits(batch: CircuitBatch) -> None:
    angles, pairs = batch.angles, batch.entangler_pairs
    if angles.ndim != 4 or angles.shape[-1] != 2 or angles.dtype != np.float32:
        raise InvalidCircuitError(f"angles must be float32 of shape (B, M, N, 2), got {angles.dtype} {angles.shape}")
    num_circuits, num_layers, num_qubits, _ = angles.shape
    if num_layers < 1 or not 1 <= num_qubits <= MAX_QUBITS:
        raise InvalidCircuitError(
            f"circuits must have at least 1 layer and 1..{MAX_QUBITS} qubits, got {num_layers} layers and "
            f"{num_qubits} qubits; angles are (B, M, N, 2)"
        )
    if pairs.shape != (num_circuits, num_layers, 2) or pairs.dtype != np.int16:
        raise InvalidCircuitError(
            f"entangler_pairs must be int16 of shape {(num_circuits, num_layers, 2)}, got {pairs.dtype} {pairs.shape}"
        )
    if batch.seeds.shape != (num_circuits,) or batch.seeds.dtype != np.uint64:
        raise InvalidCircuitError(
            f"seeds must be uint64 of shape {(num_circuits,)}, got {batch.seeds.dtype} {batch.seeds.shape}"
        )
    if batch.shots < 1:
        raise InvalidCircuitError(f"shots must be at least 1, got {batch.shots}")
    if not np.isfinite(angles).all():
        raise InvalidCircuitError("angles contain NaN or infinity; the policy network has diverged")
    if num_circuits and (pairs.min() < 0 or pairs.max() >= num_qubits):
        wrong = int(pairs.min()) if pairs.min() < 0 else int(pairs.max())
        raise InvalidCircuitError(
            f"entangler_pairs has qubit {wrong} but the circuit has {num_qubits} qubits (0..{num_qubits - 1})"
        )
