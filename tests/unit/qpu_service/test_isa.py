"""Circuits assembled in native gates: the law of the paper's circuit, on qubits that are worth using. About 4 s."""

from functools import cache
from itertools import pairwise, permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit, generate_preset_pass_manager
from qiskit.quantum_info import Operator, Statevector
from qiskit.transpiler import Target
from qiskit_ibm_runtime.utils import validate_isa_circuits

from qpu_service.backends.fake_device import load_fake_device
from qpu_service.errors import BackendUnavailableError
from qpu_service.isa import CONTROL_INSTRUCTIONS, CircuitAssembler
from qpu_service.layout import choose_region
from qpu_service.placement import make_starts, place_circuits
from qpu_service.types import CircuitBatch
from tests.conformance.circuits import exact_probabilities, qiskit_circuit, random_circuits
from tests.unit.qpu_service.ibm_service import on_used_qubits

# Heron (CZ), Eagle (ECR, one direction only), Falcon (CX, a line of five), fractional gates (RX).
DEVICES = ["fake_torino", "fake_sherbrooke", "fake_manila", "fake_fractional"]


@cache
def target_of(device: str) -> Target:
    return load_fake_device(device).target


def measured_probabilities(circuit: QuantumCircuit) -> np.ndarray:
    """Probabilities of Σ_q bit_q·2^q of a measured circuit on a device, from the qubits it uses."""
    reduced, order = on_used_qubits(circuit)
    return Statevector(reduced).probabilities(order)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_layers", [1, 2, 6])
def test_assembled_circuits_have_the_law_of_the_papers_circuits(device: str, num_layers: int) -> None:
    circuits = random_circuits(8, 4, num_layers, seed=num_layers)
    built = CircuitAssembler(target_of(device), 4).assemble(circuits)
    for circuit, expected in zip(built, exact_probabilities(circuits), strict=True):
        assert measured_probabilities(circuit) == pytest.approx(expected, abs=1e-9)


def test_paper_sized_circuits_have_the_law_of_the_papers_circuits() -> None:
    circuits = random_circuits(3, 10, 10, seed=7)
    built = CircuitAssembler(target_of("fake_torino"), 10).assemble(circuits)
    for circuit, expected in zip(built, exact_probabilities(circuits), strict=True):
        assert measured_probabilities(circuit) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("device", ["fake_torino", "fake_fractional"])
def test_assembling_and_transpiling_give_the_same_distribution(device: str) -> None:
    circuits = random_circuits(3, 4, 5, seed=2)
    built = CircuitAssembler(target_of(device), 4).assemble(circuits)
    transpiler = generate_preset_pass_manager(1, target=target_of(device), seed_transpiler=0)
    for row, circuit in enumerate(built):
        whole = qiskit_circuit(circuits, row)
        whole.measure_all()
        assert measured_probabilities(circuit) == pytest.approx(measured_probabilities(transpiler.run(whole)), abs=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_circuits_are_made_of_the_devices_own_instructions(device: str) -> None:
    built = CircuitAssembler(target_of(device), 4).assemble(random_circuits(4, 4, 6))
    validate_isa_circuits(built, target_of(device))  # raises if one is not


def test_every_fragment_is_a_cz_that_leaves_the_qubits_between_alone() -> None:
    assembler = CircuitAssembler(target_of("fake_manila"), 5)
    qubits = assembler.region.qubits
    lengths = set()
    for first in range(5):
        for second in range(first + 1, 5):
            built, expected = QuantumCircuit(5), QuantumCircuit(5)
            for instruction in assembler.fragment(first, second).instructions:
                built.append(instruction.operation, [assembler._register.index(q) for q in instruction.qubits])
            expected.cz(qubits[first], qubits[second])
            assert Operator(built).equiv(expected)
            edges = len(assembler.region.paths[first, second]) - 1
            lengths.add(edges)
            two_qubit_gates = sum(len(i.qubits) == 2 for i in assembler.fragment(first, second).instructions)
            assert two_qubit_gates == (1 if edges == 1 else 4 * (edges - 1))
    assert lengths == {1, 2, 3, 4}


def test_the_transpiler_runs_once_per_pair_of_qubits() -> None:
    assembler = CircuitAssembler(target_of("fake_torino"), 4)
    assembler.assemble(random_circuits(1, 4, 1))
    assert assembler.transpiler_calls == 0  # the last layer's CZ changes no measurement
    circuits = random_circuits(300, 4, 6)
    assembler.assemble(circuits)
    places = assembler.places(circuits)
    used = {
        tuple(sorted((int(places[row, p]), int(places[row, k]))))
        for row in range(300)
        for p, k in circuits.entangler_pairs[row, :-1]
        if p != k
    }
    assert assembler.transpiler_calls == len(used) <= 8 * 7 / 2
    assembler.assemble(random_circuits(300, 4, 6))
    assert assembler.transpiler_calls == len(used)
    assert assembler.fragment(2, 1) is assembler.fragment(1, 2)


@pytest.mark.parametrize("device", ["fake_torino", "fake_fractional"])
def test_bounds_hold_for_what_is_built(device: str) -> None:
    assembler = CircuitAssembler(target_of(device), 4)
    circuits = random_circuits(20, 4, 6, seed=4)
    loads, sizes, durations = assembler.loads(circuits), assembler.sizes(circuits), assembler.durations_s(circuits)
    for row, circuit in enumerate(assembler.assemble(circuits)):
        counted = dict.fromkeys(assembler.region.qubits, 0)
        for instruction in circuit.data:
            for qubit in instruction.qubits:
                counted[circuit.find_bit(qubit).index] += CONTROL_INSTRUCTIONS[instruction.operation.name]
        assert (loads[row] >= list(counted.values())).all()
        assert len(circuit.data) <= sizes[row] <= 1.5 * len(circuit.data)
        assert circuit.estimate_duration(target_of(device)) <= durations[row] < 1e-3


def test_placing_beats_a_fixed_layout_and_the_transpiler() -> None:
    circuits = random_circuits(12, 10, 10, seed=6)
    target = target_of("fake_torino")
    assembler = CircuitAssembler(target, 10)
    transpiler = generate_preset_pass_manager(1, target=target, seed_transpiler=0)

    def gates(built: list[QuantumCircuit]) -> float:
        return float(np.mean([sum(len(i.qubits) == 2 for i in circuit.data) for circuit in built]))

    placed = gates(assembler.assemble(circuits))
    transpiled = gates([transpiler.run(qiskit_circuit(circuits, row)) for row in range(12)])
    fixed = CircuitAssembler(target, 10)
    fixed.places = lambda c: np.tile(np.arange(10), (len(c), 1))  # type: ignore[method-assign]
    assert placed < 1.1 * transpiled
    assert placed < 0.5 * gates(fixed.assemble(circuits))


def test_a_place_holds_one_qubit_and_depends_on_the_circuits_own_pairs() -> None:
    assembler = CircuitAssembler(target_of("fake_torino"), 10)
    circuits = random_circuits(50, 10, 10)
    places = assembler.places(circuits)
    assert all(len(set(row)) == 10 for row in places.tolist())
    assert places.max() < len(assembler.region.qubits) == 14
    part = CircuitBatch(
        angles=circuits.angles[30:],
        entangler_pairs=circuits.entangler_pairs[30:],
        seeds=circuits.seeds[30:],
    )
    assert (assembler.places(part) == places[30:]).all()


def test_small_circuits_are_placed_as_well_as_trying_everything() -> None:
    rng = np.random.default_rng(3)
    costs = rng.uniform(0.1, 1.0, (6, 6))
    costs = np.triu(costs, 1) + np.triu(costs, 1).T
    readout = rng.uniform(0.0, 0.5, 6)
    pairs = rng.integers(0, 4, (10, 5, 2)).astype(np.int16)

    def cost(places: tuple[int, ...], row: int) -> float:
        entangled = sum(costs[places[p], places[k]] for p, k in pairs[row, :-1])
        return float(entangled + readout[list(places)].sum())

    chosen = place_circuits(pairs, 4, costs, readout, make_starts(6))
    for row in range(10):
        best = min(cost(places, row) for places in permutations(range(6), 4))
        assert cost(tuple(chosen[row].tolist()), row) == pytest.approx(best)


def test_the_region_is_connected_and_its_paths_stay_inside() -> None:
    target = target_of("fake_torino")
    region = choose_region(target, 10)
    coupled = set(target.build_coupling_map().get_edges())
    assert len(set(region.qubits)) == 10
    assert len(region.paths) == 45
    for (p, k), path in region.paths.items():
        assert (path[0], path[-1]) == (region.qubits[p], region.qubits[k])
        assert set(path) <= set(region.qubits)
        assert all((a, b) in coupled or (b, a) in coupled for a, b in pairwise(path))


def reported(target: Any, qubits: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Errors of CZ inside a set of qubits, and of their measurements."""
    gates = [what.error for pair, what in target["cz"].items() if set(pair) <= set(qubits)]
    return gates, [target["measure"][(q,)].error for q in qubits]


def test_the_region_has_small_reported_errors() -> None:
    target = target_of("fake_torino")
    chosen_gates, chosen_readout = reported(target, choose_region(target, 10).qubits)
    gates, readout = reported(target, tuple(range(133)))
    assert max(gates) == 1.0  # some are switched off
    assert max(chosen_gates) < 0.01
    assert np.mean(chosen_gates) < np.median(gates)
    assert np.mean(chosen_readout) < np.median(readout)


def test_a_broken_gate_or_readout_is_avoided() -> None:
    def region_with(errors: dict[tuple[int, int], float], readout: dict[int, float]) -> set[int]:
        properties = lambda error: SimpleNamespace(error=error, duration=1e-6)  # noqa: E731
        line = {(q, q + 1): properties(errors.get((q, q + 1), 0.01)) for q in range(7)}
        measure = {(q,): properties(readout.get(q, 0.01)) for q in range(8)}

        class Line(dict[str, Any]):
            operation_names = ("cz", "measure")
            num_qubits = 8

        return set(choose_region(Line(cz=line, measure=measure), 3).qubits)

    assert region_with({(3, 4): 1.0}, {}) in [{0, 1, 2}, {1, 2, 3}, {4, 5, 6}, {5, 6, 7}]
    assert region_with({}, dict.fromkeys((0, 1, 2, 3, 4), 0.5)) == {5, 6, 7}
    assert region_with({(0, 1): 0.001, (1, 2): 0.001}, {}) == {0, 1, 2}


def test_one_qubit_needs_no_gate_between_qubits() -> None:
    assembler = CircuitAssembler(target_of("fake_torino"), 1)
    circuits = random_circuits(3, 1, 4)
    for circuit, expected in zip(assembler.assemble(circuits), exact_probabilities(circuits), strict=True):
        assert measured_probabilities(circuit) == pytest.approx(expected, abs=1e-9)


def test_a_device_that_is_too_small_is_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="5 qubits and no connected region of 6"):
        CircuitAssembler(target_of("fake_manila"), 6)


def test_a_device_without_known_gates_is_refused() -> None:
    target = Target(num_qubits=2)
    with pytest.raises(BackendUnavailableError, match="assembled from RZ with SX or RX"):
        CircuitAssembler(target, 2)
