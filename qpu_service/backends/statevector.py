"""The project's own exact simulator: many small circuits, each with its own structure, at once. The default backend.

Every circuit draws from its own seed, so its bits are the same whatever batch, order or number of threads it runs in.
Must never depend on a quantum package: it has to run wherever numpy and numba do.
"""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from qpu_service.backends.adjoint import NUM_MARKS, differentiate_means
from qpu_service.backends.exact import average_bits, tabulate_probabilities
from qpu_service.backends.lanes import LANES
from qpu_service.backends.program import NUM_FIELDS, NUM_SCRATCH_ROWS
from qpu_service.backends.register import LANE_BITS
from qpu_service.backends.sampling import sample_circuits
from qpu_service.errors import InvalidCircuitError
from qpu_service.types import CircuitBatch, MeasurementBatch

_MIN_ROTATIONS_PER_THREAD = 4000
"""Rotations below which a second thread's wake-up, 20 to 30 µs, costs more than it saves: 40 circuits of 10 × 10."""

_UNCHECKED_BYTES = 1 << 28
"""Results up to this size are not compared with the machine's memory."""

_VECTOR_BYTES = 4 * LANES


class Scratch(NamedTuple):
    """One thread's working memory for one circuit size and number of shots."""

    buffer: np.ndarray
    """Keeps the state's memory alive: kernels get its address, rounded up to a whole vector."""
    state: tuple[Any, ...]
    planning: tuple[np.ndarray, ...]
    adjoint: tuple[np.ndarray, ...]


class StatevectorBackend:
    """Exact batched simulator.

    Making one loads the compiled kernels, or compiles them where no process of this installation has yet.

    Args:
        num_threads: threads that share a large batch; 1 starts none.
    """

    def __init__(self, num_threads: int = 1) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self._num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None
        self._scratch: dict[tuple[int, int, int], Scratch] = {}
        self._lock = Lock()
        self.run(_smallest_batch())

    @property
    def name(self) -> str:
        """Name stored with every bitstring."""
        return "statevector"

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Measure every circuit ``shots`` times; depends on nothing but each circuit and its seed."""
        started = time.monotonic()
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        shape = (num_circuits, circuits.shots, num_qubits)
        _check_memory(math.prod(shape), f"bits of shape {shape}", "fewer shots or circuits per call")
        bits = np.empty(shape, dtype=np.uint8)
        angles, pairs, seeds = _as_kernel_input(circuits)

        def sample(scratch: Scratch, start: int, stop: int) -> None:
            sample_circuits(angles, pairs, seeds, scratch.state + scratch.planning, start, stop, bits)

        # eight shots cost about as much as one more circuit
        rotations = num_circuits * num_layers * num_qubits * (1 + circuits.shots // 8)
        self._share(sample, circuits, rotations)
        return MeasurementBatch(
            bits=bits,
            request_id=circuits.request_id,
            backend_name=self.name,
            execution_s=time.monotonic() - started,
        )

    def probabilities(self, circuits: CircuitBatch) -> Float32[np.ndarray, "B outcomes"]:
        """Exact outcome probabilities, (B, 2^N); seeds and shots are unused. An index is Σ_q bit_q·2^q, as in Qiskit.

        Raises:
            InvalidCircuitError: if the table does not fit into this machine's memory.
        """
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        shape = (num_circuits, 1 << num_qubits)
        _check_memory(
            4 * math.prod(shape), f"probabilities of shape {shape}", "fewer circuits per call, or for bit_means"
        )
        table = np.empty(shape, dtype=np.float32)
        angles, pairs, _ = _as_kernel_input(circuits)

        def tabulate(scratch: Scratch, start: int, stop: int) -> None:
            tabulate_probabilities(angles, pairs, scratch.state, scratch.planning[-1], start, stop, table)

        self._share(tabulate, circuits, num_circuits * num_layers << num_qubits)
        return table

    def bit_means(self, circuits: CircuitBatch) -> Float32[np.ndarray, "B N"]:
        """Exact P(bit_q = 1) of every qubit. Seeds and shots are unused."""
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        means = np.empty((num_circuits, num_qubits), dtype=np.float32)
        angles, pairs, _ = _as_kernel_input(circuits)

        def average(scratch: Scratch, start: int, stop: int) -> None:
            average_bits(angles, pairs, scratch.state, scratch.planning[-1], start, stop, means)

        self._share(average, circuits, num_circuits * num_layers << num_qubits)
        return means

    def bit_mean_gradients(
        self, circuits: CircuitBatch, weights: Float32[np.ndarray, "B N"]
    ) -> tuple[Float32[np.ndarray, "B N"], Float32[np.ndarray, "B M N 2"]]:
        """Exact P(bit_q = 1) of every qubit, and the exact gradient of their weighted sum in every angle.

        Args:
            circuits: seeds and shots are unused.
            weights: v, one per circuit and qubit; what backpropagation hands to the circuit's output.

        Returns:
            Bit means, and d Σ_q v_q·mean_q / d angle in 1/rad.

        Raises:
            InvalidCircuitError: if the weights have another shape than (B, N).
        """
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        if weights.shape != (num_circuits, num_qubits):
            raise InvalidCircuitError(
                f"weights must be one per circuit and qubit, {(num_circuits, num_qubits)}, got {weights.shape}"
            )
        means = np.empty((num_circuits, num_qubits), dtype=np.float32)
        gradients = np.empty(circuits.angles.shape, dtype=np.float32)
        angles, pairs, _ = _as_kernel_input(circuits)
        factors = _plain(weights.astype(np.float32, copy=False))

        def differentiate(scratch: Scratch, start: int, stop: int) -> None:
            differentiate_means(angles, pairs, factors, scratch.state, *scratch.adjoint, start, stop, means, gradients)

        self._share(differentiate, circuits, num_circuits * num_layers << num_qubits)
        return means, gradients

    def close(self) -> None:
        """Stop the threads and free the working memory; calling it twice is fine."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._scratch.clear()

    def _share(self, work: Callable[[Scratch, int, int], None], circuits: CircuitBatch, rotations: int) -> None:
        """Split circuits over the threads; the caller's own thread takes the first part.

        Args:
            work: simulates circuits first..last-1.
            circuits: the whole batch.
            rotations: cost of the batch, in rotations of a small circuit.
        """
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        with self._lock:  # scratch belongs to one run at a time
            num_parts = max(1, min(self._num_threads, num_circuits, rotations // _MIN_ROTATIONS_PER_THREAD))
            bounds = [num_circuits * part // num_parts for part in range(num_parts + 1)]
            scratch = [self._scratch_of(part, num_layers, num_qubits, circuits.shots) for part in range(num_parts)]
            if num_parts > 1 and self._pool is None:
                self._pool = ThreadPoolExecutor(self._num_threads - 1, thread_name_prefix="statevector")
            others = [
                self._pool.submit(work, scratch[part], bounds[part], bounds[part + 1])
                for part in range(1, num_parts)
                if self._pool is not None
            ]
            work(scratch[0], bounds[0], bounds[1])
            for other in others:
                other.result()

    def _scratch_of(self, part: int, num_layers: int, num_qubits: int, shots: int) -> Scratch:
        key = (part, num_layers, num_qubits)
        scratch = self._scratch.get(key)
        if scratch is None or scratch.planning[-1].size < max(shots, num_qubits):
            scratch = self._scratch[key] = make_scratch(num_layers, num_qubits, shots)
        return scratch


def make_scratch(num_layers: int, num_qubits: int, shots: int) -> Scratch:
    """Working memory of one thread for circuits of one size, up to ``shots`` shots."""
    lanes = -(-num_qubits // LANES) * LANES
    # Registers of shots that a measurement told apart wait on a stack: each half as large as the one before.
    amplitudes = (2 << num_qubits) + LANES * (num_qubits + 2)
    buffer = np.zeros(2 * amplitudes + LANES, np.float32)
    return Scratch(
        buffer=buffer,
        state=(
            np.zeros((3, num_layers * num_qubits + lanes), np.float32),
            np.zeros((4, lanes), np.float32),
            np.zeros((2 * num_layers + num_qubits, 4), np.float32),
            np.int64(-(-buffer.ctypes.data // _VECTOR_BYTES) * _VECTOR_BYTES),
            np.zeros((num_layers, 2), np.int64),
        ),
        planning=(
            np.zeros((NUM_SCRATCH_ROWS, max(num_qubits, num_layers) + LANE_BITS), np.int64),
            np.zeros((3 * num_layers, NUM_FIELDS), np.int64),
            np.zeros(num_layers, np.int64),
            np.zeros((num_qubits + 1, 4), np.int64),
            np.zeros(max(shots, num_qubits), np.int64),
        ),
        adjoint=(
            np.zeros((NUM_MARKS, num_qubits), np.int64),
            np.zeros((2 * num_layers + num_qubits, 3), np.float64),
        ),
    )


def _as_kernel_input(circuits: CircuitBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contiguous and writable: arrays from shared memory are read-only, and Numba would compile each mixture anew."""
    return _plain(circuits.angles), _plain(circuits.entangler_pairs), _plain(circuits.seeds)


def _plain(array: np.ndarray) -> np.ndarray:
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else np.array(array, order="C")


def _smallest_batch() -> CircuitBatch:
    return CircuitBatch(
        angles=np.zeros((1, 1, 1, 2), np.float32),
        entangler_pairs=np.zeros((1, 1, 2), np.int16),
        seeds=np.zeros(1, np.uint64),
    )


def _check_memory(num_bytes: int, what: str, instead: str) -> None:
    if num_bytes < _UNCHECKED_BYTES:
        return
    present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > present:
        raise InvalidCircuitError(
            f"{what} need {num_bytes / 2**30:.1f} GiB, this machine has {present / 2**30:.1f} GiB; ask for {instead}"
        )
