"""Claim: one update of a Quantum-Train generator costs a third or less of what other simulators need for it.

An update is what learning asks for once per step: the probabilities of all outcomes of one U3 + CU3 ring circuit, and
the gradient of a weighted sum of them in all angles. Everybody gets the same angles and weights, as arrays, and returns
arrays; compiling is left out. All results are checked against each other.
"""

import importlib.metadata
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.generator_peers import PEERS, Update
from learner.quantum_train.config import GradientConfig, GradientMethod
from learner.quantum_train.shots import ShotSource
from qpu_service.generator.backends import ExactShots
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.exact import ExactGenerator

_OURS = "hdqnn"
_PACKAGES = {"pennylane_lightning": "pennylane-lightning", "tensorcircuit": "tensorcircuit-ng"}
_TOLERANCE = 2e-3


def run(
    *,
    sizes: tuple[int, ...] = (10, 13, 16),
    depths: tuple[int, ...] = (5, 13),
    measure_s: float = 1.0,
    longest_call_s: float = 20.0,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure every simulator that is installed.

    Args:
        sizes: qubits N.
        depths: layers L.
        measure_s: each figure is the best of the calls that fit into this time, at least two.
        longest_call_s: a simulator whose call took longer is left out of larger circuits.
        seed: of angles and weights.

    Returns:
        ``results``: rows of num_qubits, depth, milliseconds per generation and per update of everybody, and ``ratio``,
        the fastest other's time over ours. ``skipped``: who is not here, and why.
    """
    names: dict[str, Callable[[GeneratorShape], Update]] = {_OURS: _ours, **PEERS}
    skipped: dict[str, str] = {}
    results = []
    for depth in depths:
        for num_qubits in sizes:
            shape = GeneratorShape(num_qubits=num_qubits, depth=depth)
            rng = np.random.default_rng(seed)
            angles = rng.uniform(-np.pi, np.pi, shape.num_angles)
            weights = rng.normal(size=shape.num_outcomes).astype(np.float32)
            row: dict[str, Any] = {"num_qubits": num_qubits, "depth": depth, "generation_ms": {}, "update_ms": {}}
            expected: np.ndarray | None = None
            for name, make in names.items():
                if name in skipped:
                    continue
                try:
                    update = make(shape)
                    gradient = update.both(angles, weights)[1]
                except ImportError as error:
                    skipped[name] = str(error)
                    continue
                expected = gradient if expected is None else expected
                _check(name, gradient, expected)
                row["generation_ms"][name], _ = _best_ms(partial(update.forward, angles), measure_s)
                row["update_ms"][name], longest_s = _best_ms(partial(update.both, angles, weights), measure_s)
                if longest_s > longest_call_s:
                    skipped[name] = f"one update took {longest_s:.0f} s at N = {num_qubits}, L = {depth}"
            row["ratio"] = _ratios(row)
            results.append(row)
    return {
        "results": results,
        "gradients_from_shots": gradients_from_shots(seed=seed),
        "skipped": skipped,
        "cores": len(os.sched_getaffinity(0)),
        "versions": _versions(),
    }


def gradients_from_shots(
    *, num_qubits: int = 10, depth: int = 5, shots: tuple[int, ...] = (1_024, 8_192, 65_536), seed: int = 0
) -> list[dict[str, Any]]:
    """Cost and accuracy of gradients from shots of the exact simulator, against the exact gradient.

    Args:
        num_qubits: N.
        depth: L.
        shots: measurements per circuit.
        seed: of angles, weights and shots.

    Returns:
        Per method and shots: circuits, milliseconds, and the cosine between the estimate and the exact gradient.
    """
    shape = GeneratorShape(num_qubits=num_qubits, depth=depth)
    rng = np.random.default_rng(seed)
    angles = rng.uniform(-np.pi, np.pi, (1, shape.num_angles))
    weights = rng.normal(size=(1, shape.num_outcomes)).astype(np.float32)
    exact = ExactGenerator(shape).gradient(angles[0], weights[0])
    rows = []
    methods: tuple[GradientMethod, ...] = ("parameter_shift", "spsa")
    for method in methods:
        for count in shots:
            source = ShotSource(shape, ExactShots(), GradientConfig(method=method, shots=count), seed=seed)
            started_s = time.perf_counter()
            estimate = source.gradient(angles, weights)[0]
            rows.append(
                {
                    "method": method,
                    "shots": count,
                    "circuits": source.circuits_run,
                    "ms": 1e3 * (time.perf_counter() - started_s),
                    "cosine": float(estimate @ exact / np.linalg.norm(estimate) / np.linalg.norm(exact)),
                }
            )
    return rows


def _ours(shape: GeneratorShape) -> Update:
    simulator = ExactGenerator(shape)

    def both(angles: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return simulator.probabilities(angles), simulator.gradient(angles, weights)

    return Update(simulator.probabilities, both)


def _best_ms(call: Callable[[], Any], measure_s: float) -> tuple[float, float]:
    """Shortest time of a call, ms, and the longest, s."""
    call()
    times: list[float] = []
    while len(times) < 2 or sum(times) < measure_s:
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return 1e3 * min(times), max(times)


def _check(name: str, gradient: np.ndarray, expected: np.ndarray) -> None:
    error = float(np.abs(gradient - expected).max() / np.abs(expected).max())
    if error > _TOLERANCE:
        raise ValueError(f"{name}'s gradient differs from the others' by {error:.1e} of its largest entry")


def _ratios(row: dict[str, Any]) -> dict[str, float]:
    ratios = {}
    for kind in ("generation", "update"):
        times: dict[str, float] = row[f"{kind}_ms"]
        others = [value for name, value in times.items() if name != _OURS]
        if others:
            ratios[kind] = min(others) / times[_OURS]
    return ratios


def _versions() -> dict[str, str]:
    found = {}
    for package in (*_PACKAGES.values(), "pennylane", "jax", "numba"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
