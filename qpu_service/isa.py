"""The paper's circuits in a device's own gates, put together from pieces instead of transpiled one by one.

Circuits live in one region of the device, and each is placed in it on its own (placement.py). Rotations between two
CZs merge into one gate, written RZ·SX·RZ·SX·RZ (or RZ·RX·RZ where the device has fractional gates) with numeric angles.
A CZ between any two places is a fragment: a ladder of CNOTs along the cheapest path, 4·(d - 1) two-qubit gates for d
edges, that leaves every other qubit as it was. Each fragment is transpiled once; after that no transpiler runs. Exact
up to a global phase; distributions are those of the transpiled circuit.

Axis legend: B batch, M layers, N qubits, K places.
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
from qpu_service.placement import make_starts, place_circuits
from qpu_service.types import CircuitBatch

MEASURED_REGISTER = "meas"
"""Classical register of every circuit; bit q is qubit q."""

CONTROL_INSTRUCTIONS = {"rz": 1, "rx": 2, "sx": 2, "x": 2, "cx": 5, "cz": 5, "ecr": 5, "rzz": 5, "measure": 10, "id": 1}
"""Control-system instructions that IBM's validation counts per gate (guide "Job limits"; rx, rzz and id are ours)."""
_SPARE_PLACES = 4
"""Places of the region beyond a circuit's qubits: room to leave out what reads or entangles worst."""
_START_INSTRUCTIONS = 50 + 17
"""The same for the initialisation and reset before each circuit."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A CZ between two places in native gates on physical qubits."""

    instructions: tuple[Any, ...]
    load: Int64[np.ndarray, "K"]
    """Control-system instructions at each place."""
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
        self.region: Region = choose_region(target, num_qubits, _SPARE_PLACES)
        num_places = len(self.region.qubits)
        self._starts = make_starts(num_places)
        self._register = QuantumRegister(target.num_qubits, "q")
        self._bits = ClassicalRegister(num_qubits, MEASURED_REGISTER)
        self._wires = [self._register[physical] for physical in self.region.qubits]
        self._sx = [CircuitInstruction(SXGate(), (wire,)) for wire in self._wires]
        self._measure = [[CircuitInstruction(Measure(), (wire,), (bit,)) for wire in self._wires] for bit in self._bits]
        self._fragments: dict[tuple[int, int], Fragment] = {}
        self._load_table = np.zeros((num_places, num_places, num_places), np.int64)
        self._duration_table = np.zeros((num_places, num_places))
        self._size_table = np.zeros((num_places, num_places), np.int64)
        self._passes: Any | None = None

    def places(self, circuits: CircuitBatch) -> Int64[np.ndarray, "B N"]:
        """Place of every qubit in the region; depends on each circuit's pairs alone."""
        return place_circuits(
            circuits.entangler_pairs,
            circuits.angles.shape[2],
            self.region.entangler_cost,
            self.region.readout_cost,
            self._starts,
        )

    def assemble(self, circuits: CircuitBatch) -> list[Any]:
        """Build one QuantumCircuit per row, on physical qubits; classical bit q holds qubit q."""
        angles = merged_angles(circuits)
        shift = np.array([0.0, math.pi / 2, -math.pi / 2]) if self._has_rx else np.array([math.pi, math.pi, 0.0])
        rows = zip(
            (angles + shift).tolist(),
            circuits.entangler_pairs.tolist(),
            self.places(circuits).tolist(),
            strict=True,
        )
        return [self._assemble_row(gates, pairs, places) for gates, pairs, places in rows]

    def fragment(self, first: int, second: int) -> Fragment:
        """The CZ between two places; transpiled the first time it is asked for."""
        pair = (first, second) if first < second else (second, first)
        if pair not in self._fragments:
            made = self._transpile(self.region.paths[pair])
            self._fragments[pair] = made
            for order in (pair, pair[::-1]):
                self._load_table[order] = made.load
                self._duration_table[order] = made.duration_s
                self._size_table[order] = len(made.instructions)
        return self._fragments[pair]

    def loads(self, circuits: CircuitBatch) -> Int64[np.ndarray, "B K"]:
        """Control-system instructions of each circuit at each place, an upper bound."""
        rotations = (4 if self._has_rx else 7) * circuits.angles.shape[1]
        first, second = self._entangled_places(circuits)
        entanglers = self._load_table[first, second].sum(axis=1)
        loads: Int64[np.ndarray, "B K"] = entanglers + (
            _START_INSTRUCTIONS + CONTROL_INSTRUCTIONS["measure"] + rotations
        )
        return loads

    def sizes(self, circuits: CircuitBatch) -> Int64[np.ndarray, "B"]:
        """Instructions of each circuit, an upper bound."""
        num_qubits = circuits.angles.shape[2]
        first, second = self._entangled_places(circuits)
        entanglers = self._size_table[first, second].sum(axis=1)
        rotations = 2 * (first != second).sum(axis=1) + num_qubits
        sizes: Int64[np.ndarray, "B"] = entanglers + (3 if self._has_rx else 5) * rotations + num_qubits  # noqa: UP037
        return sizes

    def durations_s(self, circuits: CircuitBatch) -> Float64[np.ndarray, "B"]:
        """Length of each circuit on the device in seconds, an upper bound: layers one after the other."""
        rotation = 2 * self._duration("rx" if self._has_rx else "sx", (self.region.qubits[0],))
        measure = max(self._duration("measure", (qubit,)) for qubit in self.region.qubits)
        first, second = self._entangled_places(circuits)
        entanglers = self._duration_table[first, second].sum(axis=1)
        lengths: Float64[np.ndarray, "B"] = entanglers + rotation * circuits.angles.shape[1] + measure  # noqa: UP037
        return lengths

    def _entangled_places(self, circuits: CircuitBatch) -> tuple[Int64[np.ndarray, "B M"], Int64[np.ndarray, "B M"]]:
        """Places of every CZ that is built, equal ones meaning none; their fragments exist afterwards."""
        places = self.places(circuits)
        pairs = circuits.entangler_pairs[:, :-1].astype(np.int64)
        first = np.take_along_axis(places, pairs[..., 0], axis=1)
        second = np.take_along_axis(places, pairs[..., 1], axis=1)
        for a, b in np.unique(np.sort(np.stack([first, second], axis=-1).reshape(-1, 2), axis=1), axis=0).tolist():
            if a != b:
                self.fragment(a, b)
        return first, second

    def _assemble_row(self, gates: list[list[list[float]]], pairs: list[list[int]], places: list[int]) -> Any:
        circuit = QuantumCircuit(self._register, self._bits)
        append = circuit._append
        untouched = [True] * len(places)
        for (first, second), before in zip(pairs[:-1], gates[:-1], strict=True):
            if first == second:
                continue
            self._rotate(append, places[first], before[0], skip_first=untouched[first])
            self._rotate(append, places[second], before[1], skip_first=untouched[second])
            untouched[first] = untouched[second] = False
            for instruction in self.fragment(places[first], places[second]).instructions:
                append(instruction)
        for qubit, place in enumerate(places):
            self._rotate(append, place, gates[-1][qubit], skip_first=untouched[qubit], skip_last=True)
        for qubit, place in enumerate(places):
            append(self._measure[qubit][place])
        return circuit

    def _rotate(
        self, append: Any, place: int, angles: list[float], *, skip_first: bool, skip_last: bool = False
    ) -> None:
        """U(θ, φ, λ) at one place; an RZ on |0⟩ or before a measurement changes nothing and is left out."""
        theta, phi, lam = angles
        wire = (self._wires[place],)
        if not skip_first:
            append(CircuitInstruction(RZGate(lam), wire))
        if self._has_rx:
            append(CircuitInstruction(RXGate(theta), wire))
        else:
            append(self._sx[place])
            append(CircuitInstruction(RZGate(theta), wire))
            append(self._sx[place])
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
    for _ in range(2 if carry else 1):  # the ladder is its own reverse, so the second one undoes the first
        for control, target in carry:
            circuit.cx(control, target)
        circuit.cz(inner[-1], last)
    return circuit


def _add_first_to_last(path: list[int]) -> list[tuple[int, int]]:
    """CNOTs (control, target) that add the first qubit's bit to the last one's; inner qubits are left changed too."""
    steps = list(pairwise(path))
    return steps[:0:-1] + steps
