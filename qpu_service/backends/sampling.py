"""Third part of the statevector simulator: outcomes, from a counter-based generator so that order never matters."""

import numpy as np
from numba import njit

from qpu_service.backends.register import evolve, join_qubit, qubit_weights
from qpu_service.backends.rotations import merge_rotations, rotation_columns


@njit(nogil=True, cache=True)
def _uniform(seed, counter):  # type: ignore[no-untyped-def]
    """Uniform number in [0, 1) that depends on (seed, counter) alone: SplitMix64, 53 bits."""
    z = (seed ^ np.uint64(0x6A09E667F3BCC909)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(31))) + (np.uint64(counter) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 1.1102230246251565e-16


@njit(nogil=True, cache=True)
def sample_register(seed, gates, num_entanglers, width, position, re, im, cumulative, bits):  # type: ignore[no-untyped-def]
    """Draw every shot of one circuit; uint8 (S, N) out."""
    shots, num_qubits = bits.shape
    size = 1 << width
    total = 0.0
    for i in range(size):
        total += np.float64(re[i]) * re[i] + np.float64(im[i]) * im[i]
        cumulative[i] = total
    for shot in range(shots):
        threshold = total * _uniform(seed, shot * (num_qubits + 1))
        low, high = 0, size - 1
        while low < high:
            middle = (low + high) >> 1
            if cumulative[middle] > threshold:
                high = middle
            else:
                low = middle + 1
        for q in range(num_qubits):
            if position[q] >= 0:
                bits[shot, q] = (low >> position[q]) & 1
            else:
                gate = gates[2 * num_entanglers + q]
                one = np.float64(gate[2]) * gate[2] + np.float64(gate[3]) * gate[3]
                zero = np.float64(gate[0]) * gate[0] + np.float64(gate[1]) * gate[1]
                bits[shot, q] = _uniform(seed, shot * (num_qubits + 1) + q + 1) * (zero + one) < one


@njit(nogil=True, cache=True)
def sample_circuits(angles, pairs, seeds, scratch, cumulative, indices, start, stop, bits):  # type: ignore[no-untyped-def]
    """Measure circuits start..stop-1 of a batch."""
    columns, running, gates, re, im = scratch
    entanglers, position = indices
    num_qubits = angles.shape[2]
    for c in range(start, stop):
        rotation_columns(angles[c].reshape(-1), columns[0], columns[1], columns[2])
        count = merge_rotations(pairs[c], num_qubits, columns, running, gates, entanglers)
        width = evolve(gates, entanglers, count, re, im, position)
        sample_register(seeds[c], gates, count, width, position, re, im, cumulative, bits[c])


@njit(nogil=True, cache=True)
def circuit_probabilities(angles, pairs, scratch, indices, targets, start, stop, out):  # type: ignore[no-untyped-def]
    """Exact outcome probabilities of circuits start..stop-1; float32 (B, 2^N) out, qubit q is bit q of the index."""
    columns, running, gates, re, im = scratch
    entanglers, position = indices
    num_qubits = angles.shape[2]
    for c in range(start, stop):
        rotation_columns(angles[c].reshape(-1), columns[0], columns[1], columns[2])
        count = merge_rotations(pairs[c], num_qubits, columns, running, gates, entanglers)
        width = evolve(gates, entanglers, count, re, im, position)
        for q in range(num_qubits):
            if position[q] < 0:
                join_qubit(re, im, width, gates[2 * count + q])
                position[q] = width
                width += 1
        targets[0] = 0
        for place in range(num_qubits):
            for q in range(num_qubits):
                if position[q] == place:
                    for i in range(1 << place):
                        targets[i + (1 << place)] = targets[i] + (1 << q)
        total = np.float32(0.0)
        for i in range(1 << num_qubits):
            out[c, targets[i]] = re[i] * re[i] + im[i] * im[i]
            total += out[c, targets[i]]
        out[c] /= total


@njit(nogil=True, cache=True)
def circuit_bit_means(angles, pairs, scratch, indices, start, stop, out):  # type: ignore[no-untyped-def]
    """Exact P(bit = 1) of every qubit of circuits start..stop-1; float32 (B, N) out."""
    columns, running, gates, re, im = scratch
    entanglers, position = indices
    num_qubits = angles.shape[2]
    for c in range(start, stop):
        rotation_columns(angles[c].reshape(-1), columns[0], columns[1], columns[2])
        count = merge_rotations(pairs[c], num_qubits, columns, running, gates, entanglers)
        width = evolve(gates, entanglers, count, re, im, position)
        for q in range(num_qubits):
            if position[q] >= 0:
                zero, one = qubit_weights(re, im, width, position[q])
            else:
                gate = gates[2 * count + q]
                zero, one = gate[0] * gate[0] + gate[1] * gate[1], gate[2] * gate[2] + gate[3] * gate[3]
            out[c, q] = one / (zero + one)
