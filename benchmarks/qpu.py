"""Claim: the statevector backend measures random circuits an order of magnitude faster than other simulators.

Every circuit has its own angles, CZ pairs and seed, as in training. All simulators get the same batches, and their
times include everything from the arrays to the bits.
"""

import importlib.metadata
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.qpu_floor import physical_floor
from benchmarks.qpu_peers import PEERS, Runner
from qpu_service.backends.registry import make_backend
from qpu_service.interfaces import CircuitBackend
from qpu_service.types import CircuitBatch, circuit_seeds

_REFERENCE = "statevector"
_PACKAGES = {
    "aer": "qiskit-aer",
    "qulacs": "qulacs",
    "tensorcircuit": "tensorcircuit-ng",
    "tensorcircuit_fixed_pairs": "tensorcircuit-ng",
    "pennylane": "pennylane",
}


def run(
    *,
    num_threads: int | None = None,
    num_qubits: int = 10,
    num_layers: int = 10,
    batches: tuple[int, ...] = (1, 16, 256, 4096),
    shots: tuple[int, ...] = (1, 100),
    measure_s: float = 0.5,
    longest_call_s: float = 8.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every simulator that is installed.

    Args:
        num_threads: threads of statevector and Aer; None takes the cores of this process.
        num_qubits: N.
        num_layers: M.
        batches: circuits per call.
        shots: measurements per circuit.
        measure_s: each figure is the best of the calls that fit into this time, at least two.
        longest_call_s: batches that would take a simulator longer, judged by its last batch, are left out for it.
        seed: of angles, pairs and shots.

    Returns:
        ``results``: rows of batch, shots, ``circuits_per_s`` per simulator and ``ratio``, statevector's speed over each
        other's. ``skipped``: simulators that are not here, and why. ``floor``: work per circuit and how near the
        machine's peak statevector is. ``num_threads``, ``versions``.
    """
    threads = num_threads if num_threads is not None else len(os.sched_getaffinity(0))
    runners, skipped = _available(threads)
    results = []
    for num_shots in shots:
        seconds_per_circuit = dict.fromkeys(runners, 0.0)
        for batch in sorted(batches):
            circuits = random_circuits(batch, num_qubits, num_layers, num_shots, seed)
            speed: dict[str, float] = {}
            for name, runner in runners.items():
                if batch * seconds_per_circuit[name] <= longest_call_s:
                    seconds_per_circuit[name] = best_time(partial(runner, circuits), measure_s) / batch
                    speed[name] = 1.0 / seconds_per_circuit[name]
            ratio = {name: speed[_REFERENCE] / value for name, value in speed.items() if name != _REFERENCE}
            results.append({"batch": batch, "shots": num_shots, "circuits_per_s": speed, "ratio": ratio})
    one_thread = make_backend(_REFERENCE)
    circuits = random_circuits(1024, num_qubits, num_layers, 1, seed)
    seconds = best_time(partial(one_thread.run, circuits), measure_s) / len(circuits)
    return {
        "num_qubits": num_qubits,
        "num_layers": num_layers,
        "num_threads": threads,
        "results": results,
        "skipped": skipped,
        "floor": physical_floor(circuits, seconds),
        "versions": _versions(runners),
    }


def random_circuits(count: int, num_qubits: int, num_layers: int, shots: int, seed: int) -> CircuitBatch:
    """Angles uniform over a turn, pairs uniform over all (p, k), one in N of them equal."""
    generator = np.random.default_rng(seed)
    return CircuitBatch(
        angles=generator.uniform(-np.pi, np.pi, size=(count, num_layers, num_qubits, 2)).astype(np.float32),
        entangler_pairs=generator.integers(0, num_qubits, size=(count, num_layers, 2)).astype(np.int16),
        seeds=circuit_seeds(seed, count),
        shots=shots,
    )


def best_time(call: Callable[[], object], measure_s: float) -> float:
    """Shortest of the calls that fit into ``measure_s``, after one to warm up: other processes only ever add time."""
    call()
    stop_s = time.monotonic() + measure_s
    times: list[float] = []
    while not times or time.monotonic() < stop_s:
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return min(times)


def _available(num_threads: int) -> tuple[dict[str, Runner], dict[str, str]]:
    runners: dict[str, Runner] = {}
    skipped: dict[str, str] = {}
    for name in (_REFERENCE, "aer"):
        backend = make_backend(name, num_threads=num_threads)
        runners[name] = _bits_of(backend)
    for name, make in PEERS.items():
        try:
            runners[name] = make()
        except ImportError as error:
            skipped[name] = f"not installed: {error}"
    return runners, skipped


def _bits_of(backend: CircuitBackend) -> Runner:
    return lambda circuits: backend.run(circuits).bits


def _versions(runners: Mapping[str, Runner]) -> dict[str, str]:
    return {name: importlib.metadata.version(_PACKAGES[name]) for name in runners if name in _PACKAGES}
