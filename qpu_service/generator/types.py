"""Wire types of generator circuits measured with shots. Axis legend: B circuits, A angles, K outcomes (2^N)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float64, Int64

from qpu_service.errors import InvalidCircuitError
from qpu_service.generator.circuit import GeneratorShape


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorBatch:
    """B circuits of one shape, each with its own angles; equal shots."""

    shape: GeneratorShape
    angles: Float64[np.ndarray, "B A"]
    """rad; order as in ``gate_program``."""
    shots: int
    """Measurements per circuit."""
    seed: int
    """Of all random numbers; fresh for every request."""

    def __post_init__(self) -> None:
        """Refuse what no backend may run, before anything is spent on it."""
        if self.angles.ndim != 2 or self.angles.shape[1] != self.shape.num_angles or self.angles.dtype != np.float64:
            raise InvalidCircuitError(
                f"angles must be float64 of shape (B, {self.shape.num_angles}), got {self.angles.dtype} "
                f"{self.angles.shape}"
            )
        if not np.isfinite(self.angles).all():
            raise InvalidCircuitError("angles contain NaN or infinity; the generator has diverged")
        if self.shots < 1:
            raise InvalidCircuitError(f"shots must be at least 1, got {self.shots}")
        if self.seed < 0:
            raise InvalidCircuitError(f"seed must be 0 or more, got {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorCounts:
    """How often each outcome came, in the order of the batch."""

    counts: Int64[np.ndarray, "B K"]
    """Row sums are the shots; qubit q is bit q of an outcome's number."""
    backend_name: str
    execution_s: float


class GeneratorBackend(Protocol):
    """Measures generator circuits, one call at a time, on one simulator or device."""

    @property
    def name(self) -> str:
        """Name that is stored with results."""
        ...

    def run(self, circuits: GeneratorBatch) -> GeneratorCounts:
        """Measure every circuit ``shots`` times; blocks until the counts are there."""
        ...

    def close(self) -> None:
        """Free what the backend holds; calling it twice is fine."""
        ...
