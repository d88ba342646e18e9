"""The generator's update on other simulators, each along its fastest path that was found; none is a dependency."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from qpu_service.generator.circuit import GeneratorShape


@dataclass(frozen=True, slots=True)
class Update:
    """What one simulator does for one circuit shape."""

    forward: Callable[[np.ndarray], Any]
    """Angles → probabilities of all outcomes."""
    both: Callable[[np.ndarray, np.ndarray], tuple[Any, np.ndarray]]
    """Angles and weights → probabilities (or their weighted sum), gradient of the weighted sum in the angles."""


def tensorcircuit(shape: GeneratorShape) -> Update:
    """TensorCircuit-NG on JAX, complex64, compiled: one scan over the layers, or compiling takes minutes."""
    jax, tc = import_module("jax"), import_module("tensorcircuit")
    jnp = jax.numpy
    tc.set_backend("jax")
    tc.set_dtype("complex64")
    num_qubits, depth = shape.num_qubits, shape.depth
    # TensorCircuit's qubit 0 is the highest bit of an index
    wire = [num_qubits - 1 - q for q in range(num_qubits)]

    def layer(state: Any, angles: Any) -> tuple[Any, None]:
        circuit = tc.Circuit(num_qubits, inputs=state)
        for q in range(num_qubits):
            theta, phi, lam = angles[0, q]
            circuit.u(wire[q], theta=theta, phi=phi, lbd=lam)
        for q in range(num_qubits):
            theta, phi, lam = angles[1, q]
            circuit.cu(wire[q], wire[(q + 1) % num_qubits], theta=theta, phi=phi, lbd=lam)
        return circuit.state(), None

    def probabilities(angles: Any) -> Any:
        start = jnp.zeros(shape.num_outcomes, jnp.complex64).at[0].set(1)
        state, _ = jax.lax.scan(layer, start, angles.reshape(depth, 2, num_qubits, 3))
        return jnp.real(state) ** 2 + jnp.imag(state) ** 2

    def weighted(angles: Any, weights: Any) -> tuple[Any, Any]:
        table = probabilities(angles)
        return jnp.dot(table, weights), table

    forward = jax.jit(probabilities)
    backward = jax.jit(jax.value_and_grad(weighted, has_aux=True))

    def both(angles: np.ndarray, weights: np.ndarray) -> tuple[Any, np.ndarray]:
        (_, table), gradient = backward(angles.astype(np.float32), weights)
        return np.asarray(table), np.asarray(gradient)

    return Update(lambda angles: np.asarray(forward(angles.astype(np.float32))), both)


def pennylane_lightning(shape: GeneratorShape) -> Update:
    """PennyLane on lightning.qubit, complex64, with its adjoint method; the weights are a diagonal observable.

    CU3 is P·CRZ·CRY·CRZ there, since the adjoint method knows these. Gradients of sums of angles are added up outside.
    """
    package = import_module("pennylane")
    sparse = import_module("scipy.sparse")
    num_qubits, depth = shape.num_qubits, shape.depth
    device = package.device("lightning.qubit", wires=num_qubits, c_dtype=np.complex64)
    # PennyLane's wire 0 is the highest bit of an index
    wire = [num_qubits - 1 - q for q in range(num_qubits)]
    per_layer = 7 * num_qubits

    def operations(angles: np.ndarray) -> list[Any]:
        gates: list[Any] = []
        for single, controlled in angles.reshape(depth, 2, num_qubits, 3):
            for q in range(num_qubits):
                theta, phi, lam = single[q]
                gates += [package.RZ(lam, wire[q]), package.RY(theta, wire[q]), package.RZ(phi, wire[q])]
            for q in range(num_qubits):
                theta, phi, lam = controlled[q]
                wires = [wire[q], wire[(q + 1) % num_qubits]]
                gates += [package.CRZ(lam, wires), package.CRY(theta, wires), package.CRZ(phi, wires)]
                gates.append(package.PhaseShift((phi + lam) / 2, wires[0]))
        return gates

    def forward(angles: np.ndarray) -> Any:
        tape = package.tape.QuantumScript(operations(angles), [package.probs(wires=range(num_qubits))])
        return device.execute(tape)

    def both(angles: np.ndarray, weights: np.ndarray) -> tuple[Any, np.ndarray]:
        observable = package.SparseHamiltonian(
            sparse.diags(weights.astype(np.float64), format="csr"), range(num_qubits)
        )
        tape = package.tape.QuantumScript(operations(angles), [package.expval(observable)])
        tape.trainable_params = list(range(depth * per_layer))
        config = package.devices.ExecutionConfig(gradient_method="adjoint", use_device_gradient=True)
        value, slopes = device.execute_and_compute_derivatives(tape, config)
        return value, _of_angles(np.asarray(slopes).reshape(depth, per_layer), depth, num_qubits)

    return Update(forward, both)


def _of_angles(slopes: np.ndarray, depth: int, num_qubits: int) -> np.ndarray:
    """Slopes in the gates' own angles → in θ, φ, λ of U3 and CU3."""
    gradient = np.empty((depth, 2, num_qubits, 3))
    lam, theta, phi = np.moveaxis(slopes[:, : 3 * num_qubits].reshape(depth, num_qubits, 3), -1, 0)
    gradient[:, 0] = np.stack([theta, phi, lam], axis=-1)
    lam, theta, phi, phase = np.moveaxis(slopes[:, 3 * num_qubits :].reshape(depth, num_qubits, 4), -1, 0)
    gradient[:, 1] = np.stack([theta, phi + phase / 2, lam + phase / 2], axis=-1)
    return gradient.ravel()


def torch_autograd(shape: GeneratorShape) -> Update:
    """The same circuit in plain torch, complex64, by autograd: what this project would do without its kernels."""
    torch = import_module("torch")
    num_qubits, depth = shape.num_qubits, shape.depth

    def matrices(angles: Any) -> Any:
        half, left, right = angles[..., 0] / 2, torch.exp(1j * angles[..., 1]), torch.exp(1j * angles[..., 2])
        cos, sin = torch.cos(half) + 0j, torch.sin(half) + 0j
        return torch.stack([cos, -right * sin, left * sin, left * right * cos], dim=-1)

    def apply(state: Any, m: Any, qubit: int) -> Any:
        parts = state.reshape(-1, 2, 1 << qubit)
        zero, one = parts[:, 0], parts[:, 1]
        return torch.stack([m[0] * zero + m[1] * one, m[2] * zero + m[3] * one], dim=1).reshape(-1)

    def apply_controlled(state: Any, m: Any, control: int, target: int) -> Any:
        index = torch.arange(shape.num_outcomes)
        return torch.where((index >> control & 1).bool(), apply(state, m, target), state)

    def table(angles: Any) -> Any:
        state = torch.zeros(shape.num_outcomes, dtype=torch.complex64)
        state[0] = 1
        gates = matrices(angles.reshape(depth, 2, num_qubits, 3))
        for layer in range(depth):
            for q in range(num_qubits):
                state = apply(state, gates[layer, 0, q], q)
            for q in range(num_qubits):
                state = apply_controlled(state, gates[layer, 1, q], q, (q + 1) % num_qubits)
        return state.real**2 + state.imag**2

    def forward(angles: np.ndarray) -> Any:
        with torch.no_grad():
            return table(torch.from_numpy(angles.astype(np.float32))).numpy()

    def both(angles: np.ndarray, weights: np.ndarray) -> tuple[Any, np.ndarray]:
        leaf = torch.from_numpy(angles.astype(np.float32)).requires_grad_()
        probabilities = table(leaf)
        (probabilities @ torch.from_numpy(weights)).backward()
        return probabilities.detach().numpy(), leaf.grad.numpy()

    return Update(forward, both)


PEERS: dict[str, Callable[[GeneratorShape], Update]] = {
    "tensorcircuit": tensorcircuit,
    "pennylane_lightning": pennylane_lightning,
    "torch_autograd": torch_autograd,
}
"""By name; each raises ImportError where its package is missing."""
