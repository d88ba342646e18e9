"""A generator circuit in the gates that devices have, routed once; afterwards only numbers change.

U3 and CU3 are taken apart by hand into RZ, √X and CNOT with one bare parameter per RZ: left to the transpiler, their
symbolic angles grow until it takes minutes for four qubits. Every RZ angle is a linear function of the angles.

Axis legend: A angles of the circuit, R parameters of the template.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64

from qpu_service.backends.fake_device import DeviceRegion
from qpu_service.generator.circuit import GeneratorShape

_Term = tuple[int, float]
"""Number of an angle and its factor."""


class Template:
    """Measured circuit of one shape, whose parameters are filled from angles.

    Args:
        shape: family and size.
        region: qubits of a device to translate and route to; None leaves the circuit as it is.
    """

    def __init__(self, shape: GeneratorShape, region: DeviceRegion | None) -> None:
        builder = _Builder(shape)
        self.circuit = builder.circuit
        self._parameters = builder.parameters
        self._factors = np.zeros((len(builder.terms), shape.num_angles))
        self._constants = np.array(builder.constants)
        for row, terms in enumerate(builder.terms):
            for angle, factor in terms:
                self._factors[row, angle] += factor
        self._merger: Any | None = None
        if region is not None:
            from qiskit import generate_preset_pass_manager
            from qiskit.transpiler import PassManager
            from qiskit.transpiler.passes import Optimize1qGatesDecomposition

            manager = generate_preset_pass_manager(optimization_level=1, target=region.target, seed_transpiler=0)
            self.circuit = manager.run(self.circuit)
            self._merger = PassManager([Optimize1qGatesDecomposition(target=region.target)])

    def bind(self, angles: Float64[np.ndarray, "A"]) -> Any:
        """The circuit with these angles, its neighbouring single-qubit gates merged."""
        values = self._factors @ angles + self._constants
        kept = set(self.circuit.parameters)
        numbers = {p: float(v) for p, v in zip(self._parameters, values, strict=True) if p in kept}
        bound = self.circuit.assign_parameters(numbers)
        return bound if self._merger is None else self._merger.run(bound)


class _Builder:
    """Writes the gates and remembers what each RZ's angle is."""

    def __init__(self, shape: GeneratorShape) -> None:
        from qiskit import QuantumCircuit

        self.circuit = QuantumCircuit(shape.num_qubits)
        self.parameters: list[Any] = []
        self.terms: list[tuple[_Term, ...]] = []
        self.constants: list[float] = []
        num_qubits, is_u3 = shape.num_qubits, shape.family == "u3_cu3"
        for layer in range(shape.depth):
            for q in range(num_qubits):
                if is_u3:
                    theta, phi, lam = self._angles(shape, layer, 0, q)
                    self._u3(q, (theta,), (phi,), (lam,))
                else:
                    self._u3(q, ((layer * num_qubits + q, 1.0),), (), ())
            for q in range(num_qubits if is_u3 else num_qubits - 1):
                if is_u3:
                    self._cu3(q, (q + 1) % num_qubits, *(one[0] for one in self._angles(shape, layer, 1, q)))
                else:
                    self.circuit.cx(q, q + 1)
        self.circuit.measure_all()

    @staticmethod
    def _angles(shape: GeneratorShape, layer: int, kind: int, qubit: int) -> tuple[_Term, _Term, _Term]:
        first = 3 * ((2 * layer + kind) * shape.num_qubits + qubit)
        return (first, 1.0), (first + 1, 1.0), (first + 2, 1.0)

    def _rz(self, qubit: int, terms: tuple[_Term, ...], constant: float = 0.0) -> None:
        if not terms:
            if constant:
                self.circuit.rz(constant, qubit)
            return
        from qiskit.circuit import Parameter

        parameter = Parameter(f"z{len(self.parameters)}")
        self.parameters.append(parameter)
        self.terms.append(terms)
        self.constants.append(constant)
        self.circuit.rz(parameter, qubit)

    def _u3(self, qubit: int, theta: tuple[_Term, ...], phi: tuple[_Term, ...], lam: tuple[_Term, ...]) -> None:
        """U3(θ, φ, λ) = RZ(φ + π)·√X·RZ(θ + π)·√X·RZ(λ), up to a phase that nothing controls."""
        self._rz(qubit, lam)
        self.circuit.sx(qubit)
        self._rz(qubit, theta, math.pi)
        self.circuit.sx(qubit)
        self._rz(qubit, phi, math.pi)

    def _cu3(self, control: int, target: int, theta: int, phi: int, lam: int) -> None:
        """Two CNOTs with halves of the angles around them."""
        self._rz(control, ((lam, 0.5), (phi, 0.5)))
        self._rz(target, ((lam, 0.5), (phi, -0.5)))
        self.circuit.cx(control, target)
        self._u3(target, ((theta, -0.5),), (), ((lam, -0.5), (phi, -0.5)))
        self.circuit.cx(control, target)
        self._u3(target, ((theta, 0.5),), ((phi, 1.0),), ())
