"""The least that a random circuit costs: what has to be computed and moved, against this machine at its best."""

import time
from collections.abc import Callable

import numpy as np

from qpu_service.backends import program as steps
from qpu_service.backends.program import plan
from qpu_service.backends.rotations import merge_rotations, rotation_columns
from qpu_service.backends.scratch import make_scratch
from qpu_service.types import CircuitBatch

_FLOPS_PER_SINE_COSINE = 24
"""Range reduction and both polynomials of one angle, multiplications and additions counted apart."""
_FLOPS_PER_MERGE = 20
"""One rotation multiplied onto another, with a real diagonal element."""
_FLOPS_PER_AMPLITUDE = 14
"""One 2×2 map: two complex multiplications and an addition for each amplitude."""


def physical_floor(circuits: CircuitBatch, seconds_per_circuit: float) -> dict[str, float]:
    """Work per circuit in the mean of a batch, the time it would take at this machine's peaks, and how near we are.

    Args:
        circuits: single-shot circuits.
        seconds_per_circuit: measured with one thread.

    Returns:
        Per circuit: ``sine_cosines``, ``merges``, ``register_amplitudes`` (amplitudes of entangled qubits that some map
        has to read), ``flops``, ``bytes`` (arrays in and bits out). Of one core: ``peak_flops_per_s`` (float32 matrix
        product), ``peak_bytes_per_s`` (copy). ``floor_us`` is the larger of both times, ``measured_us``, and
        ``fraction_of_floor`` their quotient, 1 being the floor itself. What lies between is latency: a circuit is a
        chain of some twenty small maps, each waiting for the one before, with branches that nothing can predict.
    """
    num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
    rotations = float(num_layers * num_qubits)
    amplitudes = _mean_register_amplitudes(circuits)
    flops = 2 * rotations * _FLOPS_PER_SINE_COSINE + rotations * _FLOPS_PER_MERGE + amplitudes * _FLOPS_PER_AMPLITUDE
    arrays = (circuits.angles, circuits.entangler_pairs, circuits.seeds)
    moved = sum(array.nbytes for array in arrays) / num_circuits + circuits.shots * num_qubits
    peak_flops, peak_bytes = _peak_flops_per_s(), _peak_bytes_per_s()
    floor_s = max(flops / peak_flops, moved / peak_bytes)
    return {
        "sine_cosines": 2 * rotations,
        "merges": rotations,
        "register_amplitudes": amplitudes,
        "flops": flops,
        "bytes": moved,
        "peak_flops_per_s": peak_flops,
        "peak_bytes_per_s": peak_bytes,
        "floor_us": floor_s * 1e6,
        "measured_us": seconds_per_circuit * 1e6,
        "fraction_of_floor": floor_s / seconds_per_circuit,
    }


def _mean_register_amplitudes(circuits: CircuitBatch) -> float:
    """Amplitudes, of qubits that are entangled at the time, under all maps of a circuit's program."""
    num_circuits, num_layers, num_qubits, _ = circuits.angles.shape
    scratch = make_scratch(num_layers, num_qubits, circuits.shots)
    columns, running, gates, _, _, entanglers = scratch.state
    planning, program, ends, *_ = scratch.planning
    amplitudes = 0
    for row in range(num_circuits):
        rotation_columns(circuits.angles, row, columns)
        count = merge_rotations(circuits.entangler_pairs, row, num_qubits, columns, running, gates, entanglers)
        num_parts = plan(entanglers, count, num_qubits, planning, program, ends)
        present = 0
        for step in program[: ends[num_parts - 1] if num_parts else 0]:
            present += int(step[steps.ENTERS_A]) * (step[steps.KIND] == steps.ENTANGLE) + int(step[steps.ENTERS_B])
            maps = 2 if step[steps.KIND] == steps.ENTANGLE else 1
            amplitudes += maps << present
            present -= int(step[steps.KIND] == steps.MEASURE)
    return float(amplitudes / num_circuits)


def _peak_flops_per_s(size: int = 96, repeats: int = 2000) -> float:
    left = np.ones((size, size), np.float32)  # small enough that no BLAS uses a second thread
    return 2.0 * size**3 / _best_s(lambda: left @ left, repeats)


def _peak_bytes_per_s(size: int = 1 << 24, repeats: int = 20) -> float:
    source = np.ones(size, np.uint8)
    target = np.empty_like(source)
    return 2.0 * size / _best_s(lambda: np.copyto(target, source), repeats)


def _best_s(call: Callable[[], object], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - started_s)
    return min(times)
