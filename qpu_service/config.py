"""Settings of the QPU service."""

from dataclasses import dataclass
from typing import Literal

from qpu_service.readout import ReduceBy


@dataclass(frozen=True, slots=True, kw_only=True)
class QPUConfig:
    """Workers of the QPU service and how they batch requests."""

    shots: int = 1
    """Measurements per circuit."""
    readout: ReduceBy = "sample"
    """What the policy sees of the shots: one sampled bitstring, the most probable one, or the mean of each bit."""
    num_workers: int = 1
    """QPU workers, each owning one backend."""
    num_threads: int = 1
    """Threads of one simulator worker."""
    max_batch_circuits: int = 4_096
    """Circuits that one micro-batch may hold."""
    max_delay_s: float = 0.0
    """Longest wait for a fuller micro-batch; 0 takes whatever is queued when the backend is free."""
    max_queued_circuits: int = 65_536
    """Circuits that may wait at one worker; beyond it a request waits before it queues, nothing is dropped."""
    inline_limit_s: float = 5e-4
    """Runs expected to be shorter than this block the worker's event loop; a thread's wake-up would cost more."""
    routing: Literal["least_outstanding", "affinity"] = "least_outstanding"
    """Each request to the worker with the fewest unanswered ones, or every actor always to its own worker."""
    stall_s: float | None = None
    """A worker that answers nothing, or whose one run lasts, for this long is replaced. Default: 120 s; for ibm
    QPU_DEADLINE_SECONDS and 20 minutes, because a queue is no fault."""
    timeout_s: float | None = None
    """Longest wait of an actor for its bits, retries included. Default: 600 s; for ibm twice as long as stall_s."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("shots", "num_workers", "num_threads", "max_batch_circuits", "max_queued_circuits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.shots == 1 and self.readout != "sample":
            raise ValueError(f"readout {self.readout!r} needs several shots, got shots = 1; set qpu.shots, say to 100")
        for name in ("stall_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.max_delay_s < 0 or self.inline_limit_s < 0:
            raise ValueError(
                f"max_delay_s and inline_limit_s must be 0 or more, got {self.max_delay_s} and {self.inline_limit_s}"
            )
