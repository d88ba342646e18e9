"""What a backend offers and what an actor sees. Implementers do not inherit from these."""

from typing import Protocol, runtime_checkable

from qpu_service.types import CircuitBatch, MeasurementBatch


class CircuitBackend(Protocol):
    """Runs circuits, one call at a time, on one simulator or device."""

    @property
    def name(self) -> str:
        """Name that is stored with every bitstring."""
        ...

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        """Measure every circuit ``shots`` times; blocks until the bits are there."""
        ...

    def close(self) -> None:
        """Free threads, sessions and connections; calling it twice is fine."""
        ...


@runtime_checkable
class StopsMidRun(Protocol):
    """What a backend whose runs may last for hours offers besides CircuitBackend."""

    def stop(self) -> None:
        """Let the run under way end without its bits, and refuse others; any thread may call it before ``close``."""
        ...


class PendingMeasurement(Protocol):
    """Bits that are on their way."""

    def result(self, timeout_s: float | None = None) -> MeasurementBatch:
        """Wait for the bits; raises TimeoutError when they are late."""
        ...


class CircuitSampler(Protocol):
    """What policies call: hand in circuits now, take the bits later."""

    def submit(self, circuits: CircuitBatch) -> PendingMeasurement:
        """Start measuring; returns at once where the implementation allows it."""
        ...
