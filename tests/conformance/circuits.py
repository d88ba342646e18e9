"""Random circuits and their exact probabilities by Qiskit, the judge of every backend."""

import numpy as np
from jaxtyping import Float64
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from qpu_service.types import CircuitBatch, circuit_seeds


def random_circuits(
    count: int, num_qubits: int, num_layers: int, *, shots: int = 1, seed: int = 0, scale_rad: float = np.pi
) -> CircuitBatch:
    """Angles uniform in ±scale_rad, pairs uniform over all (p, k) with p == k among them."""
    generator = np.random.default_rng(seed)
    angles = generator.uniform(-scale_rad, scale_rad, size=(count, num_layers, num_qubits, 2)).astype(np.float32)
    pairs = generator.integers(0, num_qubits, size=(count, num_layers, 2)).astype(np.int16)
    return CircuitBatch(angles=angles, entangler_pairs=pairs, seeds=circuit_seeds(seed, count), shots=shots)


def identical_circuits(angles: np.ndarray, pairs: np.ndarray, *, shots: int, seed: int = 0) -> CircuitBatch:
    """One circuit, given as (M, N, 2) angles and (M, 2) pairs."""
    return CircuitBatch(
        angles=np.asarray(angles, np.float32)[None],
        entangler_pairs=np.asarray(pairs, np.int16)[None],
        seeds=circuit_seeds(seed, 1),
        shots=shots,
    )


def qiskit_circuit(circuits: CircuitBatch, row: int) -> QuantumCircuit:
    """The circuit as the paper draws it, gate by gate."""
    _, num_layers, num_qubits, _ = circuits.angles.shape
    circuit = QuantumCircuit(num_qubits)
    for layer in range(num_layers):
        for qubit in range(num_qubits):
            theta, phi = circuits.angles[row, layer, qubit]
            circuit.r(float(theta), float(phi), qubit)
        first, second = circuits.entangler_pairs[row, layer]
        if first != second:
            circuit.cz(int(first), int(second))
    return circuit


def exact_probabilities(circuits: CircuitBatch) -> Float64[np.ndarray, "B outcomes"]:
    """Probabilities of Σ_q bit_q·2^q, from Qiskit."""
    return np.array([Statevector(qiskit_circuit(circuits, row)).probabilities() for row in range(len(circuits))])


def outcome_index(bits: np.ndarray) -> np.ndarray:
    """Σ_q bit_q·2^q of (..., N) bits."""
    return (bits.astype(np.int64) << np.arange(bits.shape[-1])).sum(axis=-1)
