"""How fast circuits for IBM hardware are put together, against transpiling each of them.

One thread, processor time of this process, so that other work on the machine does not count. Both make circuits of the
device's own instructions with the same distribution (tests/unit/qpu_service/test_isa.py).
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from qpu_service.types import CircuitBatch, circuit_seeds


def run(
    *,
    device: str = "fake_torino",
    num_qubits: int = 10,
    num_layers: int = 10,
    num_assembled: int = 10_000,
    num_transpiled: int = 20,
    optimization_level: int = 1,
) -> dict[str, Any]:
    """Measure one device.

    Args:
        device: a fake device; the default has 133 qubits.
        num_qubits: of each circuit; the paper's 10 by default.
        num_layers: of each circuit; the paper's 10 by default.
        num_assembled: circuits assembled, in batches of 1,000.
        num_transpiled: circuits transpiled.
        optimization_level: of Qiskit's preset pass manager.

    Returns:
        Milliseconds per circuit of both, their ratio, calls of the transpiler, two-qubit gates per circuit of both, and
        what was measured.
    """
    from qiskit import generate_preset_pass_manager

    from qpu_service.backends.fake_device import load_fake_device
    from qpu_service.isa import CircuitAssembler

    target = load_fake_device(device).target
    started_s = time.process_time()
    assembler = CircuitAssembler(target, num_qubits)
    layout_s = time.process_time() - started_s
    batches = [_circuits(seed, 1_000, num_qubits, num_layers) for seed in range(num_assembled // 1_000)]
    first_s = _seconds(lambda: assembler.assemble(batches[0]))
    seconds = [_seconds(lambda batch=batch: assembler.assemble(batch)) for batch in batches]  # type: ignore[misc]
    few = _circuits(0, num_transpiled, num_qubits, num_layers)
    passes = generate_preset_pass_manager(optimization_level, target=target, seed_transpiler=0)
    whole = [_as_drawn(few, row) for row in range(num_transpiled)]
    passes.run(whole[0])
    transpiled: list[Any] = []
    transpile_s = _seconds(lambda: transpiled.extend(passes.run(circuit) for circuit in whole))
    assembled_ms = 1e3 * float(np.median(seconds)) / 1_000
    transpiled_ms = 1e3 * transpile_s / num_transpiled
    return {
        "device": device,
        "device_qubits": target.num_qubits,
        "num_qubits": num_qubits,
        "num_layers": num_layers,
        "assembled_circuits": num_assembled,
        "assembled_ms_per_circuit": assembled_ms,
        "first_thousand_s": first_s,
        "layout_s": layout_s,
        "transpiled_circuits": num_transpiled,
        "optimization_level": optimization_level,
        "transpiled_ms_per_circuit": transpiled_ms,
        "ratio": transpiled_ms / assembled_ms,
        "transpiler_calls": assembler.transpiler_calls,
        "assembled_two_qubit_gates": _two_qubit_gates(assembler.assemble(few)),
        "transpiled_two_qubit_gates": _two_qubit_gates(transpiled),
    }


def _circuits(seed: int, count: int, num_qubits: int, num_layers: int) -> CircuitBatch:
    generator = np.random.default_rng(seed)
    return CircuitBatch(
        angles=generator.uniform(-np.pi, np.pi, (count, num_layers, num_qubits, 2)).astype(np.float32),
        entangler_pairs=generator.integers(0, num_qubits, (count, num_layers, 2)).astype(np.int16),
        seeds=circuit_seeds(seed, count),
    )


def _as_drawn(circuits: CircuitBatch, row: int) -> Any:
    """The paper's circuit, gate by gate, as a transpiler would get it."""
    from qiskit import QuantumCircuit

    num_qubits = circuits.angles.shape[2]
    circuit = QuantumCircuit(num_qubits)
    layers = zip(circuits.angles[row].tolist(), circuits.entangler_pairs[row].tolist(), strict=True)
    for rotations, (first, second) in layers:
        for qubit, (theta, phi) in enumerate(rotations):
            circuit.r(theta, phi, qubit)
        if first != second:
            circuit.cz(first, second)
    circuit.measure_all()
    return circuit


def _two_qubit_gates(circuits: list[Any]) -> float:
    return float(np.mean([sum(len(i.qubits) == 2 for i in circuit.data) for circuit in circuits]))


def _seconds(work: Callable[[], object]) -> float:
    started_s = time.process_time()
    work()
    return time.process_time() - started_s
