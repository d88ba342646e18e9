"""The project's own exact simulator: many small circuits, each with its own structure, at once. The default backend.

Every circuit draws from its own seed, so its bits are the same whatever batch, order or number of threads it runs in.
Must never depend on a quantum package: it has to run wherever numpy and numba do.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from jaxtyping import Float32

from qpu_service.backends import team as slots
from qpu_service.backends.adjoint import differentiate_means
from qpu_service.backends.exact import average_bits, tabulate_probabilities
from qpu_service.backends.jit import is_on_disk
from qpu_service.backends.memory import check_memory
from qpu_service.backends.sampling import sample_circuits, widest_register
from qpu_service.backends.scratch import TEAM, Scratch, make_scratch
from qpu_service.backends.wide import SHARED_BITS, help_team
from qpu_service.errors import InvalidCircuitError
from qpu_service.types import CircuitBatch, MeasurementBatch

Work = Callable[[Scratch, int, int], None]
"""Simulates circuits first..last-1 of a batch with one thread's memory."""

_MIN_ROTATIONS_PER_THREAD = 4000
"""Rotations below which a second thread's wake-up, 20 to 30 µs, costs more than it saves: 40 circuits of 10 × 10."""


class StatevectorBackend:
    """Exact batched simulator.

    Making one loads the compiled kernels, or compiles them where no process of this installation has yet.

    Args:
        num_threads: threads that share a large batch; 1 starts none.
        num_qubits: of the circuits to come; registers of many qubits have kernels of their own.
    """

    def __init__(self, num_threads: int = 1, num_qubits: int = 1) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        self._num_threads = num_threads
        self._pool: ThreadPoolExecutor | None = None
        self._scratch: dict[tuple[int, int, int], Scratch] = {}
        self._lock = Lock()
        self.run(_smallest_batch(num_qubits))

    @property
    def name(self) -> str:
        """Name stored with every bitstring."""
        return "statevector"

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Measure every circuit ``shots`` times; depends on nothing but each circuit and its seed."""
        started = time.monotonic()
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        shape = (num_circuits, circuits.shots, num_qubits)
        check_memory(math.prod(shape), f"bits of shape {shape}", "fewer shots or circuits per call")
        bits = np.empty(shape, dtype=np.uint8)
        angles, pairs, seeds = _as_kernel_input(circuits)

        def sample(scratch: Scratch, start: int, stop: int) -> None:
            sample_circuits(angles, pairs, seeds, scratch.state + scratch.planning, start, stop, bits)

        # eight shots cost about as much as one more circuit
        rotations = num_circuits * num_layers * num_qubits * (1 + circuits.shots // 8)
        self._share(sample, circuits, rotations, is_wide=self._can_share_states(circuits))
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
        check_memory(
            4 * math.prod(shape), f"probabilities of shape {shape}", "fewer circuits per call, or for bit_means"
        )
        table = np.empty(shape, dtype=np.float32)
        angles, pairs, _ = _as_kernel_input(circuits)

        def tabulate(scratch: Scratch, start: int, stop: int) -> None:
            tabulate_probabilities(angles, pairs, scratch.state, scratch.planning[-1], start, stop, table)

        self._share(tabulate, circuits, num_circuits * num_layers << num_qubits, is_wide=num_qubits >= SHARED_BITS)
        return table

    def bit_means(self, circuits: CircuitBatch) -> Float32[np.ndarray, "B N"]:
        """Exact P(bit_q = 1) of every qubit. Seeds and shots are unused."""
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        means = np.empty((num_circuits, num_qubits), dtype=np.float32)
        angles, pairs, _ = _as_kernel_input(circuits)

        def average(scratch: Scratch, start: int, stop: int) -> None:
            average_bits(angles, pairs, scratch.state, scratch.planning[-1], start, stop, means)

        self._share(average, circuits, num_circuits * num_layers << num_qubits, is_wide=num_qubits >= SHARED_BITS)
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
            alone = scratch.state[:TEAM] + scratch.state[TEAM + 1 :]
            differentiate_means(angles, pairs, factors, alone, *scratch.adjoint, start, stop, means, gradients)

        self._share(differentiate, circuits, num_circuits * num_layers << num_qubits, is_wide=False)
        return means, gradients

    def close(self) -> None:
        """Stop the threads and free the working memory; calling it twice is fine."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._scratch.clear()

    def _share(self, work: Work, circuits: CircuitBatch, rotations: int, *, is_wide: bool) -> None:
        """Split circuits over the threads, and the threads over the circuits that are left where states are large.

        Args:
            work: simulates circuits first..last-1.
            circuits: the whole batch.
            rotations: cost of the batch, in rotations of a small circuit.
            is_wide: whether several threads can work on one circuit.
        """
        num_circuits, num_threads = len(circuits), self._num_threads
        with self._lock:  # scratch belongs to one run at a time
            if is_wide and num_threads > 1:
                rest = num_circuits % num_threads
                if num_circuits > rest:
                    self._run_parts(work, circuits, range(num_circuits - rest), num_threads, 1)
                if rest:
                    last = range(num_circuits - rest, num_circuits)
                    self._run_parts(work, circuits, last, rest, num_threads // rest)
                return
            num_parts = max(1, min(num_threads, num_circuits, rotations // _MIN_ROTATIONS_PER_THREAD))
            self._run_parts(work, circuits, range(num_circuits), num_parts, 1)

    def _run_parts(self, work: Work, circuits: CircuitBatch, rows: range, num_parts: int, num_members: int) -> None:
        """Give each part of the rows to a thread with ``num_members`` - 1 helpers; the caller's own takes the first."""
        scratch = [self._scratch_of(part, circuits) for part in range(num_parts)]
        bounds = [rows.start + len(rows) * part // num_parts for part in range(num_parts + 1)]
        for memory in scratch:
            memory.team[slots.NUM_MEMBERS], memory.team[slots.STOP] = num_members, 0

        def lead(part: int) -> None:
            try:
                work(scratch[part], bounds[part], bounds[part + 1])
            finally:
                scratch[part].team[slots.STOP] = 1

        if num_parts * num_members == 1:
            work(scratch[0], rows.start, rows.stop)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._num_threads - 1, thread_name_prefix="statevector")
        others = [self._pool.submit(lead, part) for part in range(1, num_parts)]
        for memory in scratch:
            address = memory.state[TEAM]
            others += [self._pool.submit(help_team, address, np.int64(member)) for member in range(1, num_members)]
        lead(0)
        for other in others:
            other.result()

    def _scratch_of(self, part: int, circuits: CircuitBatch) -> Scratch:
        _, num_layers, num_qubits, _ = circuits.angles.shape
        key = (part, num_layers, num_qubits)
        scratch = self._scratch.get(key)
        if scratch is None or scratch.planning[-1].size < max(circuits.shots, num_qubits):
            scratch = self._scratch[key] = make_scratch(num_layers, num_qubits, circuits.shots, self._num_threads)
        return scratch

    def _can_share_states(self, circuits: CircuitBatch) -> bool:
        """Whether the last circuit's register becomes wide enough to share; one stands for all.

        Circuits with few CZs do not, and are not looked at: planning costs as much as running them.
        """
        num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
        if self._num_threads == 1 or num_qubits < SHARED_BITS or num_layers <= num_qubits or not num_circuits:
            return False
        scratch = self._scratch_of(0, circuits)
        pairs = _plain(circuits.entangler_pairs)
        return bool(
            widest_register(pairs, num_circuits - 1, num_qubits, scratch.state, scratch.planning) >= SHARED_BITS
        )


def is_compiled() -> bool:
    """Whether a backend for small circuits starts without compiling for half a minute."""
    return is_on_disk(sample_circuits)


def _as_kernel_input(circuits: CircuitBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contiguous and writable: arrays from shared memory are read-only, and Numba would compile each mixture anew."""
    return _plain(circuits.angles), _plain(circuits.entangler_pairs), _plain(circuits.seeds)


def _plain(array: np.ndarray) -> np.ndarray:
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else np.array(array, order="C")


def _smallest_batch(num_qubits: int) -> CircuitBatch:
    return CircuitBatch(
        angles=np.zeros((1, 1, num_qubits, 2), np.float32),
        entangler_pairs=np.zeros((1, 1, 2), np.int16),
        seeds=np.zeros(1, np.uint64),
    )
