"""The same circuits on other simulators, each along its fastest path that was found; none of them is a dependency.

Every function returns a runner from circuits to bits. All get their rotations merged for them, outside the package and
inside the measured time, exactly as the aer backend does.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np
from jaxtyping import UInt8

from qpu_service.backends.merged_circuits import merged_angles
from qpu_service.types import CircuitBatch

Runner = Callable[[CircuitBatch], UInt8[np.ndarray, "B S N"]]


def qulacs() -> Runner:
    """Qulacs, one circuit after the other: it has no batches."""
    package = import_module("qulacs")
    gate = package.gate

    def run(circuits: CircuitBatch) -> UInt8[np.ndarray, "B S N"]:
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        state = package.QuantumState(num_qubits)
        outcomes = np.empty((num_circuits, circuits.shots), dtype=np.int64)
        for row, (gates, pairs) in enumerate(_rows(circuits)):
            circuit = package.QuantumCircuit(num_qubits)
            for (first, second), (before_first, before_second, *_) in zip(pairs[:-1], gates[:-1], strict=True):
                if first != second:
                    circuit.add_gate(gate.U3(first, *before_first))
                    circuit.add_gate(gate.U3(second, *before_second))
                    circuit.add_gate(gate.CZ(first, second))
            for qubit in range(num_qubits):
                circuit.add_gate(gate.U3(qubit, *gates[num_layers - 1][qubit]))
            state.set_zero_state()
            circuit.update_quantum_state(state)
            outcomes[row] = state.sampling(circuits.shots, int(circuits.seeds[row] & np.uint64(0x7FFFFFFF)))
        return _bits(outcomes, num_qubits)

    return run


def pennylane() -> Runner:
    """PennyLane on lightning.qubit, all circuits in one ``execute``; broadcasting cannot vary the CZ pairs."""
    package = import_module("pennylane")

    devices: dict[int, Any] = {}

    def run(circuits: CircuitBatch) -> UInt8[np.ndarray, "B S N"]:
        _, num_layers, num_qubits, _ = circuits.angles.shape
        device = devices.setdefault(num_qubits, package.device("lightning.qubit", wires=num_qubits))
        scripts = []
        for gates, pairs in _rows(circuits):
            operations = []
            for (first, second), (before_first, before_second, *_) in zip(pairs[:-1], gates[:-1], strict=True):
                if first != second:
                    operations.append(package.U3(*before_first, wires=first))
                    operations.append(package.U3(*before_second, wires=second))
                    operations.append(package.CZ(wires=(first, second)))
            operations += [package.U3(*gates[num_layers - 1][q], wires=q) for q in range(num_qubits)]
            measurement = package.sample(wires=range(num_qubits))
            scripts.append(package.tape.QuantumScript(operations, [measurement], shots=circuits.shots))
        samples = package.execute(scripts, device, diff_method=None)
        return np.asarray(samples, dtype=np.uint8).reshape(len(scripts), circuits.shots, num_qubits)

    return run


def tensorcircuit() -> Runner:
    """TensorCircuit-NG on JAX: one compiled function over the whole batch, CZ pairs as data.

    A CZ is one of N·N rows of signs, gathered by the pair, so that circuits of different structure share one program.
    """
    jax, tc = import_module("jax"), import_module("tensorcircuit")

    backend = tc.set_backend("jax")
    tc.set_dtype("complex64")

    def one_circuit(gates: Any, pairs: Any, key: Any, signs: Any, shots: int) -> Any:
        num_layers, num_qubits = gates.shape[:2]
        state = tc.Circuit(num_qubits).state()
        for layer in range(num_layers):
            circuit = tc.Circuit(num_qubits, inputs=state)
            for qubit in range(num_qubits):
                circuit.any(qubit, unitary=gates[layer, qubit])
            state = circuit.state() * signs[pairs[layer, 0] * num_qubits + pairs[layer, 1]]
        weights = backend.real(state) ** 2 + backend.imag(state) ** 2
        cumulative = jax.numpy.cumsum(weights)
        drawn = jax.random.uniform(key, (shots,)) * cumulative[-1]
        return jax.numpy.searchsorted(cumulative, drawn, side="right")

    batched = jax.jit(jax.vmap(one_circuit, in_axes=(0, 0, 0, None, None)), static_argnums=4)

    def run(circuits: CircuitBatch) -> UInt8[np.ndarray, "B S N"]:
        num_qubits = circuits.angles.shape[2]
        half, phi = circuits.angles[..., 0] / 2, circuits.angles[..., 1]
        off = -1j * np.sin(half) * np.exp(1j * phi)
        gates = np.stack([np.cos(half), -off.conj(), off, np.cos(half)], axis=-1).astype(np.complex64)
        keys = jax.vmap(jax.random.key)((circuits.seeds & np.uint64(0x7FFFFFFF)).astype(np.uint32))
        # TensorCircuit's qubit 0 is the highest bit of an index
        outcomes = np.asarray(
            batched(
                gates.reshape(*half.shape, 2, 2), circuits.entangler_pairs, keys, _signs(num_qubits), circuits.shots
            )
        )
        return _bits(outcomes, num_qubits)[..., ::-1]

    return run


def tensorcircuit_fixed_pairs() -> Runner:
    """TensorCircuit-NG in its best case, which is less work: the first circuit's CZ pairs, compiled in, for all.

    It can't run a batch whose circuits differ in structure; it is here because nothing else of it is as fast.
    """
    jax, tc = import_module("jax"), import_module("tensorcircuit")
    backend = tc.set_backend("jax")
    tc.set_dtype("complex64")
    compiled: dict[bytes, Any] = {}

    def compile_for(pairs: np.ndarray) -> Any:
        def one_circuit(angles: Any, key: Any, shots: int) -> Any:
            num_layers, num_qubits, _ = angles.shape
            circuit = tc.Circuit(num_qubits)
            for layer in range(num_layers):
                for qubit in range(num_qubits):
                    theta, phi = angles[layer, qubit, 0], angles[layer, qubit, 1]
                    circuit.rz(qubit, theta=-phi)
                    circuit.rx(qubit, theta=theta)
                    circuit.rz(qubit, theta=phi)
                if pairs[layer, 0] != pairs[layer, 1]:
                    circuit.cz(int(pairs[layer, 0]), int(pairs[layer, 1]))
            state = circuit.state()
            cumulative = jax.numpy.cumsum(backend.real(state) ** 2 + backend.imag(state) ** 2)
            drawn = jax.random.uniform(key, (shots,)) * cumulative[-1]
            return jax.numpy.searchsorted(cumulative, drawn, side="right")

        return jax.jit(jax.vmap(one_circuit, in_axes=(0, 0, None)), static_argnums=2)

    def run(circuits: CircuitBatch) -> UInt8[np.ndarray, "B S N"]:
        pattern = circuits.entangler_pairs[0]
        batched = compiled.setdefault(pattern.tobytes(), compile_for(pattern))
        keys = jax.vmap(jax.random.key)((circuits.seeds & np.uint64(0x7FFFFFFF)).astype(np.uint32))
        outcomes = np.asarray(batched(circuits.angles, keys, circuits.shots))
        return _bits(outcomes, circuits.angles.shape[2])[..., ::-1]

    return run


PEERS: Mapping[str, Callable[[], Runner]] = {
    "qulacs": qulacs,
    "tensorcircuit": tensorcircuit,
    "tensorcircuit_fixed_pairs": tensorcircuit_fixed_pairs,
    "pennylane": pennylane,
}


def _rows(circuits: CircuitBatch) -> Any:
    return zip(merged_angles(circuits).tolist(), circuits.entangler_pairs.tolist(), strict=True)


def _bits(outcomes: np.ndarray, num_qubits: int) -> UInt8[np.ndarray, "B S N"]:
    return (outcomes[..., None] >> np.arange(num_qubits) & 1).astype(np.uint8)


def _signs(num_qubits: int) -> np.ndarray:
    """Row N·p + k: diagonal of CZ(p, k), ones where p == k; qubit 0 is the highest bit."""
    bit = np.arange(1 << num_qubits) >> np.arange(num_qubits)[::-1, None] & 1
    both = bit[:, None] * bit[None, :]
    both[np.arange(num_qubits), np.arange(num_qubits)] = 0
    return (1 - 2 * both).reshape(num_qubits * num_qubits, -1).astype(np.float32)
