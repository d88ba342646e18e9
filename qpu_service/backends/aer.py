"""Qiskit Aer: the independent reference for the statevector backend, and the simulator with a device's noise.

What is fastest was measured (ten qubits, ten layers, every circuit with its own CZ pairs, batch 64, one thread,
Aer 0.18.2; building included):

| path                                                                          | ms/circuit, 1 / 100 shots |
|-------------------------------------------------------------------------------|---------------------------|
| SamplerV2, one PUB of a template: RZZ on all 45 pairs of each layer           | 2.48 / 2.70               |
| AerSimulator.run, numeric circuits, every rotation its own gate               | 2.30 / 2.41               |
| AerSimulator.run, numeric circuits, merged rotations (merged_circuits.py)     | 1.01 / 1.13  ← used       |

Most of it goes into one Python object per gate, so fewer gates is what counts. Values bound to parameters of controlled
gates are silently ignored by Aer; nothing here has a parameter. Aer hangs when a process that has used it forks: start
worker processes with spawn.
"""

import time
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt64

from qpu_service.backends.fake_device import cut_region, load_fake_device
from qpu_service.errors import BackendFailedError, BackendUnavailableError
from qpu_service.types import CircuitBatch, MeasurementBatch

_MAX_CIRCUITS_PER_JOB = 1024
"""A job keeps Python objects of all its circuits alive, about 0.1 MB each."""


class AerBackend:
    """Circuits on AerSimulator.

    Aer has one seed per call, so bits depend on the whole batch: equal batches with equal seeds give equal bits, but a
    circuit's bits change with its neighbours.

    Args:
        device: None for exact circuits; the name of a fake IBM device, such as ``fake_torino``, for its noise model,
            gates and connectivity; ``gpu`` for exact circuits on a GPU, ``gpu:fake_torino`` for both.
        num_threads: OpenMP threads of Aer.

    Raises:
        BackendUnavailableError: if qiskit-aer is missing or has no GPU that was asked for, or the device is not known.
    """

    def __init__(self, device: str | None = None, num_threads: int = 1) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        try:
            import qiskit_aer  # noqa: F401
        except ImportError as error:
            raise BackendUnavailableError(
                "the aer backend needs the package qiskit-aer; install it, or use QPU_BACKEND=statevector"
            ) from error
        first, _, noise = (device or "").partition(":")
        self._processor = "GPU" if first == "gpu" else "CPU"
        if self._processor == "GPU":
            check_gpu(available_processors())
            device = noise or None
        self._device = load_fake_device(device) if device is not None else None
        self._num_threads = num_threads
        self._engines: dict[int, _Engine] = {}

    @property
    def name(self) -> str:
        """Name stored with every bitstring: ``aer``, or ``aer:`` and the device, with ``gpu`` before it on a GPU."""
        parts = ["aer"] + ["gpu"] * (self._processor == "GPU") + ([] if self._device is None else [self._device.name])
        return ":".join(parts)

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Measure every circuit ``shots`` times.

        Raises:
            BackendUnavailableError: if the circuits are larger than the device.
            BackendFailedError: if Aer reports a failure.
        """
        from qpu_service.backends.merged_circuits import merged_circuits

        started_s = time.monotonic()
        num_circuits, _, num_qubits, _ = circuits.angles.shape
        bits = np.empty((num_circuits, circuits.shots, num_qubits), dtype=np.uint8)
        for first in range(0, num_circuits, _MAX_CIRCUITS_PER_JOB):
            chunk = slice(first, first + _MAX_CIRCUITS_PER_JOB)
            part = CircuitBatch(
                angles=circuits.angles[chunk],
                entangler_pairs=circuits.entangler_pairs[chunk],
                seeds=circuits.seeds[chunk],
                shots=circuits.shots,
            )
            bits[chunk] = self._engine(num_qubits).measure(
                merged_circuits(part), num_qubits, circuits.shots, _run_seed(part.seeds)
            )
        return MeasurementBatch(
            bits=bits,
            request_id=circuits.request_id,
            backend_name=self.name,
            execution_s=time.monotonic() - started_s,
        )

    def close(self) -> None:
        """Forget the simulators; calling it twice is fine."""
        self._engines.clear()

    def _engine(self, num_qubits: int) -> "_Engine":
        if num_qubits not in self._engines:
            self._engines[num_qubits] = _make_engine(self._device, num_qubits, self._num_threads, self._processor)
        return self._engines[num_qubits]


class _Engine:
    """AerSimulator for one number of qubits, and the transpiler in front of it where there is a device."""

    def __init__(self, simulator: Any, transpiler: Any | None) -> None:
        self._simulator = simulator
        self._transpiler = transpiler

    def measure(self, built: list[Any], num_qubits: int, shots: int, seed: int) -> UInt8[np.ndarray, "B S N"]:
        """Bits of measured circuits."""
        if self._transpiler is not None:
            built = self._transpiler.run(built, num_processes=1)
        result = self._simulator.run(built, shots=shots, memory=True, seed_simulator=seed).result()
        if not result.success:
            raise BackendFailedError(f"Aer failed with status {result.status!r} on {len(built)} circuits")
        outcomes = np.array([[int(shot, 16) for shot in one.data.memory] for one in result.results], dtype=np.uint32)
        return (outcomes[:, :, None] >> np.arange(num_qubits, dtype=np.uint32) & 1).astype(np.uint8)


def available_processors() -> tuple[str, ...]:
    """What this build of Aer and this machine can simulate on: CPU, and GPU where both have one."""
    from qiskit_aer import AerSimulator

    return tuple(AerSimulator().available_devices())


def check_gpu(processors: tuple[str, ...]) -> None:
    """Refuse to go on without the GPU that was asked for.

    Raises:
        BackendUnavailableError: if ``processors`` has none.
    """
    if "GPU" not in processors:
        raise BackendUnavailableError(
            f"QPU_DEVICE=gpu needs a build of Aer with a GPU, this one has {', '.join(processors)}; install "
            "qiskit-aer-gpu in place of qiskit-aer on a machine with CUDA, or unset QPU_DEVICE"
        )


def _make_engine(device: Any | None, num_qubits: int, num_threads: int, processor: str) -> _Engine:
    from qiskit_aer import AerSimulator

    options: dict[str, Any] = {"max_parallel_threads": num_threads, "max_parallel_experiments": num_threads}
    if processor == "GPU":
        options["device"] = "GPU"
    if device is None:
        return _Engine(AerSimulator(method="statevector", **options), None)
    from qiskit import generate_preset_pass_manager
    from qiskit_aer.noise import NoiseModel

    region = cut_region(device, num_qubits)
    transpiler = generate_preset_pass_manager(optimization_level=1, target=region.target, seed_transpiler=0)
    return _Engine(AerSimulator(noise_model=NoiseModel.from_backend(region), **options), transpiler)


def _run_seed(seeds: UInt64[np.ndarray, "B"]) -> int:
    """One seed for Aer, different whenever one of the circuits' seeds or their order is."""
    weights = np.arange(1, 2 * len(seeds), 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        mixed = int(np.sum(seeds * weights, dtype=np.uint64))
    return (mixed ^ mixed >> 31) & 0x7FFFFFFFFFFFFFFF
