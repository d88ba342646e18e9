"""Generator circuits by dense tensors in complex128, gate after gate as the definition says; slow and plain."""

import cmath
import math

import numpy as np


def u3_matrix(theta, phi, lam):
    return np.array(
        [
            [math.cos(theta / 2), -cmath.exp(1j * lam) * math.sin(theta / 2)],
            [cmath.exp(1j * phi) * math.sin(theta / 2), cmath.exp(1j * (phi + lam)) * math.cos(theta / 2)],
        ]
    )


def reference_probabilities(shape, angles):
    num_qubits = shape.num_qubits
    state = np.zeros((2,) * num_qubits, complex)
    state[(0,) * num_qubits] = 1
    for layer in range(shape.depth):
        if shape.family == "u3_cu3":
            of_layer = angles.reshape(shape.depth, 2, num_qubits, 3)[layer]
            for q in range(num_qubits):
                state = apply(state, u3_matrix(*of_layer[0, q]), q)
            for q in range(num_qubits):
                state = apply_controlled(state, u3_matrix(*of_layer[1, q]), q, (q + 1) % num_qubits)
        else:
            for q in range(num_qubits):
                state = apply(state, u3_matrix(angles.reshape(shape.depth, num_qubits)[layer, q], 0, 0), q)
            for q in range(num_qubits - 1):
                state = apply_controlled(state, np.array([[0, 1], [1, 0]]), q, q + 1)
    return np.abs(state.ravel()) ** 2


def apply(state, matrix, qubit):
    axis = state.ndim - 1 - qubit
    return np.moveaxis(np.tensordot(matrix, state, axes=(1, axis)), 0, axis)


def apply_controlled(state, matrix, control, target):
    on = [slice(None)] * state.ndim
    on[state.ndim - 1 - control] = slice(1, 2)
    changed = state.copy()
    changed[tuple(on)] = apply(state[tuple(on)], matrix, target)
    return changed
