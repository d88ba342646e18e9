"""What circuits cost on a device, before they are sent: a model of the charged time, and the limits of one job.

Source: IBM Quantum documentation, guides "Workload usage" (usage ≈ 2 s per job + (rep_delay + circuit length) ·
executions, or 2 + 0.00035 · executions) and "Job limits" (10 million executions and 26.8 million control-system
instructions per qubit in one Sampler job).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from qpu_service.errors import InvalidCircuitError

MAX_EXECUTIONS = 10_000_000
"""Circuits times shots of one job. Source: "Job limits"."""
MAX_CONTROL_INSTRUCTIONS = 26_800_000
"""On one qubit, summed over the circuits of one job. Source: "Job limits"."""
MAX_PAYLOAD_BYTES = 20_000_000
"""Serialised circuits of one job. IBM publishes no figure; uploads five times as large were seen to time out."""
BYTES_PER_INSTRUCTION = 8
"""Serialised, compressed and encoded: 6.0 measured for assembled circuits (SamplerV2, client 0.51)."""
MAX_EXECUTION_S = 10_800
"""Longest QPU time of one job that the service allows, 3 h. Source: guide "Maximum execution time"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageModel:
    """QPU seconds of a job: overhead + executions · (repetition delay + circuit length)."""

    job_overhead_s: float = 2.0
    """Charged per job whatever is in it. Source: "Workload usage"."""
    repetition_delay_s: float = 250e-6
    """Pause between executions; the default of most devices. Source: "Workload usage"."""
    circuit_s: float = 100e-6
    """Length of a circuit with its reset and measurement; the guide's typical upper value."""

    def seconds(self, *, executions: int, jobs: int = 1) -> float:
        """Charged QPU seconds of ``jobs`` jobs with ``executions`` circuits times shots in all."""
        return jobs * self.job_overhead_s + executions * (self.repetition_delay_s + self.circuit_s)


def split_into_jobs(loads: Int64[np.ndarray, "B N"], sizes: Int64[np.ndarray, "B"], shots: int) -> list[slice]:
    """Cut a batch into consecutive jobs that keep every limit.

    Args:
        loads: control-system instructions of each circuit on each qubit.
        sizes: instructions of each circuit.
        shots: of every circuit.

    Returns:
        Slices of the batch, in order.

    Raises:
        InvalidCircuitError: if a single circuit breaks a limit.
    """
    cost = np.concatenate(
        [
            np.full((len(sizes), 1), shots / MAX_EXECUTIONS),
            loads / MAX_CONTROL_INSTRUCTIONS,
            (sizes * BYTES_PER_INSTRUCTION / MAX_PAYLOAD_BYTES)[:, None],
        ],
        axis=1,
    )
    if len(cost) and cost.max() > 1:
        row = int(cost.max(axis=1).argmax())
        raise InvalidCircuitError(
            f"circuit {row} with {int(sizes[row])} instructions and {shots} shots does not fit into one job "
            f"({MAX_EXECUTIONS:,} executions, {MAX_CONTROL_INSTRUCTIONS:,} control instructions per qubit, "
            f"{MAX_PAYLOAD_BYTES:,} bytes); use fewer shots or smaller circuits"
        )
    jobs, first = [], 0
    used = np.zeros(cost.shape[1])
    for row, added in enumerate(cost):
        if (used + added).max() > 1 + 1e-9:
            jobs.append(slice(first, row))
            first, used = row, np.zeros(cost.shape[1])
        used += added
    return [*jobs, slice(first, len(cost))] if len(cost) else []
