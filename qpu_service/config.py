"""Settings of the QPU service."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QPUConfig:
    """Workers of the QPU service and how they batch requests."""

    num_workers: int = 1
    """QPU workers, each owning one backend."""
    num_threads: int = 1
    """Threads of one simulator worker."""
    max_batch_circuits: int = 4_096
    """Circuits that one micro-batch may hold."""
    max_delay_s: float = 0.0
    """Longest wait for a fuller micro-batch; 0 takes whatever is queued when the backend is free."""
    timeout_s: float = 600.0
    """Longest wait of an actor for its bits, retries included."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("num_workers", "num_threads", "max_batch_circuits"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_delay_s < 0 or self.timeout_s <= 0:
            raise ValueError(
                f"max_delay_s must be 0 or more and timeout_s positive, got {self.max_delay_s} and {self.timeout_s}"
            )
