"""The paper's circuits in a device's own gates, put together from pieces instead of transpiled one by one.

Rotations between two CZs merge into one gate, written RZ·SX·RZ·SX·RZ (or RZ·RX·RZ where the device has fractional
gates) with numeric angles. A CZ between any two qubits is a fragment: a ladder of CNOTs along the cheapest path,
4·(d - 1) two-qubit gates for d edges, that leaves every other qubit as it was. Each fragment is transpiled once; after
that no transpiler runs. Exact up to a global phase; distributions are those of the transpiled circuit.

Axis legend: B batch, M layers, N qubits.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, generate_preset_pass_manager
from qiskit.circuit import CircuitInstruction
from qiskit.circuit.library import Measure, RXGate, RZGate, SXGate

from qpu_service.backends.merged_circuits import merged_angles
from qpu_service.errors import BackendUnavailableError
from qpu_service.layout import Region, choose_region
from qpu_service.types import CircuitBatch

MEASURED_REGISTER = "meas"
"""Classical register of every circuit; bit q is qubit q."""

CONTROL_INSTRUCTIONS = {"rz": 1, "rx": 2, "sx": 2, "x": 2, "cx": 5, "cz": 5, "ecr": 5, "rzz": 5, "measure": 10, "id": 1}
"""Control-system instructions that IBM's validation counts per gate (guide "Job limits"; rx, rzz and id are ours)."""
_START_INSTRUCTIONS = 50 + 17
"""The same for the initialisation and reset before each circuit."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A CZ between two circuit qubits in native gates on physical qubits."""

    instructions: tuple[Any, ...]
    load: Int64[np.ndarray, "N"]
    """Control-system instructions on each qubit of the region."""
    duration_s: float
    """Upper bound: its gates one after the other."""


class CircuitAssembler:
    """Builds the circuits of one size for one device.

    Args:
        target: Qiskit's Target of the device, with or without fractional gates.
        num_qubits: N.

    Raises:
        BackendUnavailableError: if the device has no suitable region or no native single-qubit gates known here.
    """

    def __init__(self, target: Any, num_qubits: int) -> None:
        names = set(target.operation_names)
        self._has_rx = {"rz", "rx"} <= names
        if not self._has_rx and not {"rz", "sx"} <= names:
            raise BackendUnavailableError(
                f"the device offers the gates {sorted(names)}; circuits are assembled from RZ with SX or RX, "
                "so choose a device that has them"
            )
        self.transpiler_calls = 0
        self._target = target
        self.region: Region = choose_region(target, num_qubits)
        self._register = QuantumRegister(target.num_qubits, "q")
        self._bits = ClassicalRegister(num_qubits, MEASURED_REGISTER)
        self._wires = [self._register[physical] for physical in self.region.qubits]
        self._sx = [CircuitInstruction(SXGate(), (wire,)) for wire in self._wires]
        self._measure = [
            CircuitInstruction(Measure(), (wire,), (bit,)) for wire, bit in zip(self._wires, self._bits, strict=True)
        ]
        self._fragments: dict[tuple[int, int], Fragment] = {}
        self._load_table = np.zeros((num_qubits, num_qubits, num_qubits), np.int64)
        self._duration_table = np.zeros((num_qubits, num_qubits))
        self._size_table = np.zeros((num_qubits, num_qubits), np.int64)
        self._passes: Any | None = None

    def assemble(self, circuits: CircuitBatch) -> list[Any]:
        """Build one QuantumCircuit per row, on physical qubits; classical bit q holds qubit q."""
        angles = merged_angles(circuits)
        shift = np.array([0.0, math.pi / 2, -math.pi / 2]) if self._has_rx else np.array([math.pi, math.pi, 0.0])
        rows = zip((angles + shift).tolist(), circuits.entangler_pairs.tolist(), strict=True)
        return [self._assemble_row(gates, pairs) for gates, pairs in rows]

    def fragment(self, first: int, second: int) -> Fragment:
        """The CZ between two circuit qubits; transpiled the first time it is asked for."""
        pair = (first, second) if first < second else (second, first)
        if pair not in self._fragments:
            made = self._transpile(self.region.paths[pair])
            self._fragments[pair] = made
            for order in (pair, pair[::-1]):
                self._load_table[order] = made.load
                self._duration_table[order] = made.duration_s
                self._size_table[order] = len(made.instructions)
        return self._fragments[pair]

    def loads(self, circuits: CircuitBatch) -> Int64[np.ndarray, "B N"]:
        """Control-system instructions of each circuit on each qubit, an upper bound."""
        num_layers = circuits.angles.shape[1]
        rotations = (4 if self._has_rx else 7) * (num_layers + 1)
        self._prepare(circuits)
        pairs = circuits.entangler_pairs[:, :-1]
        entanglers = self._load_table[pairs[..., 0], pairs[..., 1]].sum(axis=1)
        loads: Int64[np.ndarray, "B N"] = entanglers + (
            _START_INSTRUCTIONS + CONTROL_INSTRUCTIONS["measure"] + rotations
        )
        return loads

    def sizes(self, circuits: CircuitBatch) -> Int64[np.ndarray, "B"]:
        """Instructions of each circuit, an upper bound."""
        num_qubits = circuits.angles.shape[2]
        self._prepare(circuits)
        pairs = circuits.entangler_pairs[:, :-1]
        entanglers = self._size_table[pairs[..., 0], pairs[..., 1]].sum(axis=1)
        rotations = 2 * (pairs[..., 0] != pairs[..., 1]).sum(axis=1) + num_qubits
        sizes: Int64[np.ndarray, "B"] = entanglers + (3 if self._has_rx else 5) * rotations + num_qubits  # noqa: UP037
        return sizes

    def durations_s(self, circuits: CircuitBatch) -> Float64[np.ndarray, "B"]:
        """Length of each circuit on the device in seconds, an upper bound: layers one after the other."""
        rotation = 2 * self._duration("rx" if self._has_rx else "sx", (self.region.qubits[0],))
        measure = max(self._duration("measure", (qubit,)) for qubit in self.region.qubits)
        self._prepare(circuits)
        pairs = circuits.entangler_pairs[:, :-1]
        entanglers = self._duration_table[pairs[..., 0], pairs[..., 1]].sum(axis=1)
        lengths: Float64[np.ndarray, "B"] = entanglers + rotation * circuits.angles.shape[1] + measure  # noqa: UP037
        return lengths

    def _prepare(self, circuits: CircuitBatch) -> None:
        """Transpile the fragments that these circuits need."""
        pairs = circuits.entangler_pairs[:, :-1].reshape(-1, 2)
        for first, second in np.unique(np.sort(pairs, axis=1), axis=0).tolist():
            if first != second:
                self.fragment(first, second)

    def _assemble_row(self, gates: list[list[list[float]]], pairs: list[list[int]]) -> Any:
        circuit = QuantumCircuit(self._register, self._bits)
        append = circuit._append
        untouched = [True] * len(self._wires)
        for (first, second), before in zip(pairs[:-1], gates[:-1], strict=True):
            if first == second:
                continue
            self._rotate(append, first, before[0], skip_first=untouched[first])
            self._rotate(append, second, before[1], skip_first=untouched[second])
            untouched[first] = untouched[second] = False
            for instruction in self.fragment(first, second).instructions:
                append(instruction)
        for qubit, angles in enumerate(gates[-1][: len(self._wires)]):
            self._rotate(append, qubit, angles, skip_first=untouched[qubit], skip_last=True)
        for instruction in self._measure:
            append(instruction)
        return circuit

    def _rotate(
        self, append: Any, qubit: int, angles: list[float], *, skip_first: bool, skip_last: bool = False
    ) -> None:
        """U(θ, φ, λ) on one qubit; an RZ on |0⟩ or before a measurement changes nothing and is left out."""
        theta, phi, lam = angles
        wire = (self._wires[qubit],)
        if not skip_first:
            append(CircuitInstruction(RZGate(lam), wire))
        if self._has_rx:
            append(CircuitInstruction(RXGate(theta), wire))
        else:
            append(self._sx[qubit])
            append(CircuitInstruction(RZGate(theta), wire))
            append(self._sx[qubit])
        if not skip_last:
            append(CircuitInstruction(RZGate(phi), wire))

    def _transpile(self, path: tuple[int, ...]) -> Fragment:
        if self._passes is None:
            self._passes = generate_preset_pass_manager(
                optimization_level=1,
                target=self._target,
                initial_layout=list(range(self._target.num_qubits)),
                seed_transpiler=0,
            )
        native = self._passes.run(_cz_along(path, self._register))
        self.transpiler_calls += 1
        place = {physical: index for index, physical in enumerate(self.region.qubits)}
        load = np.zeros(len(place), np.int64)
        instructions = []
        duration_s = 0.0
        for instruction in native.data:
            name, qubits = instruction.operation.name, [native.find_bit(q).index for q in instruction.qubits]
            if not set(qubits) <= set(path):
                raise BackendUnavailableError(
                    f"the transpiler put {name} on qubits {qubits}, outside the path {path}; "
                    "report this with the device's name, no circuit was sent"
                )
            instructions.append(CircuitInstruction(instruction.operation, [self._register[q] for q in qubits]))
            duration_s += self._duration(name, tuple(qubits))
            for qubit in qubits:
                load[place[qubit]] += CONTROL_INSTRUCTIONS.get(name, max(CONTROL_INSTRUCTIONS.values()))
        return Fragment(tuple(instructions), load, duration_s)

    def _duration(self, name: str, qubits: tuple[int, ...]) -> float:
        reported = (self._target[name] or {}).get(qubits)
        return 0.0 if reported is None or reported.duration is None else float(reported.duration)


def _cz_along(path: tuple[int, ...], register: Any) -> Any:
    """CZ between the ends of a path, every qubit in between left as it was.

    With x₀ added to the last inner qubit v: CZ(v ⊕ x₀, x_d) · CZ(v, x_d) = CZ(x₀, x_d), since phases add.
    """
    circuit = QuantumCircuit(register)
    *inner, last = path
    carry = _add_first_to_last(inner)
    for ladder in (carry, carry[::-1]):
        for control, target in ladder:
            circuit.cx(control, target)
        circuit.cz(inner[-1], last)
        if not carry:
            break
    return circuit


def _add_first_to_last(path: list[int]) -> list[tuple[int, int]]:
    """CNOTs (control, target) that add the first qubit's bit to the last one's; inner qubits are left changed too."""
    steps = list(pairwise(path))
    return steps[:0:-1] + steps
