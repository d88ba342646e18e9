"""The paper's circuits as Qiskit circuits, with consecutive rotations of a qubit merged into one U gate.

Merging changes nothing that can be measured and is what a transpiler does first; done here for a whole batch in numpy
float64, because most of the time of a small circuit goes into Qiskit's and Aer's Python objects, one per gate.
Independent of the statevector backend on purpose: the two check each other.

Must never put a Parameter on a controlled gate: Aer ignores the values bound to it without a word.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64
from qiskit import QuantumCircuit

from qpu_service.types import CircuitBatch


def merged_circuits(circuits: CircuitBatch) -> list[Any]:
    """Build one measured QuantumCircuit per row; classical bit q holds qubit q.

    CZ gates of the last layer are kept out: they are diagonal and only measurements follow.
    """
    _, num_layers, num_qubits, _ = circuits.angles.shape
    built = []
    for gates, pairs in zip(merged_angles(circuits).tolist(), circuits.entangler_pairs.tolist(), strict=True):
        circuit = QuantumCircuit(num_qubits, num_qubits)
        for (first, second), (before_first, before_second, *_) in zip(pairs[:-1], gates[:-1], strict=True):
            if first != second:
                circuit.u(*before_first, first)
                circuit.u(*before_second, second)
                circuit.cz(first, second)
        for qubit in range(num_qubits):
            circuit.u(*gates[num_layers - 1][qubit], qubit)
        circuit.measure(range(num_qubits), range(num_qubits))
        built.append(circuit)
    return built


def merged_angles(circuits: CircuitBatch) -> Float64[np.ndarray, "B M slots 3"]:
    """Angles (θ, φ, λ) of U gates, rad.

    Row j < M-1 holds in slots 0 and 1 what precedes layer j's CZ on its two qubits; row M-1 holds in slot q what
    precedes the measurement of qubit q. Other slots are unused.
    """
    num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
    half, phi = circuits.angles[..., 0] / np.float64(2), circuits.angles[..., 1].astype(np.float64)
    cosine, sine = np.cos(half), -1j * np.exp(1j * phi) * np.sin(half)
    merged = np.zeros((num_circuits, num_layers, max(num_qubits, 2), 2), dtype=np.complex128)
    a = np.ones((num_circuits, num_qubits), dtype=np.complex128)
    b = np.zeros_like(a)
    for layer in range(num_layers):
        c, s = cosine[:, layer], sine[:, layer]
        a, b = c * a - s.conj() * b, s * a + c * b
        if layer == num_layers - 1:
            break
        pairs = circuits.entangler_pairs[:, layer]
        rows = np.flatnonzero(pairs[:, 0] != pairs[:, 1])
        for side in range(2):
            qubits = pairs[rows, side]
            merged[rows, layer, side, 0], merged[rows, layer, side, 1] = a[rows, qubits], b[rows, qubits]
            a[rows, qubits], b[rows, qubits] = 1.0, 0.0
    merged[:, -1, :num_qubits, 0], merged[:, -1, :num_qubits, 1] = a, b
    # [[a, -b*], [b, a*]] = exp(i·arg a)·U(2·atan2(|b|, |a|), arg b - arg a, -arg b - arg a)
    arg_a, arg_b = np.angle(merged[..., 0]), np.angle(merged[..., 1])
    theta = 2.0 * np.arctan2(np.abs(merged[..., 1]), np.abs(merged[..., 0]))
    return np.stack([theta, arg_b - arg_a, -arg_b - arg_a], axis=-1)
