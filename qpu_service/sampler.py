"""Samplers that run in the caller's own process: no queue, no other process, nothing to wait for."""

from qpu_service.errors import InvalidCircuitError
from qpu_service.interfaces import CircuitBackend, PendingMeasurement
from qpu_service.types import CircuitBatch, MeasurementBatch


class LocalSampler:
    """CircuitSampler that measures at once, in the calling thread.

    A failing backend raises from ``result()``, where a remote sampler would raise it too.
    """

    def __init__(self, backend: CircuitBackend) -> None:
        self._backend = backend

    def submit(self, circuits: CircuitBatch) -> PendingMeasurement:
        """Measure the circuits; the bits, or the error, wait in the returned object.

        Raises:
            InvalidCircuitError: if this is not a CircuitBatch.
        """
        if not isinstance(circuits, CircuitBatch):
            raise InvalidCircuitError(f"a sampler takes a CircuitBatch, got {type(circuits).__name__}")
        try:
            return _Done(measurement=self._backend.run(circuits), error=None)
        except Exception as error:
            return _Done(measurement=None, error=error)


class _Done:
    """A PendingMeasurement that has already happened."""

    def __init__(self, *, measurement: MeasurementBatch | None, error: Exception | None) -> None:
        self._measurement = measurement
        self._error = error

    def result(self, timeout_s: float | None = None) -> MeasurementBatch:  # noqa: ARG002 - there is nothing to wait for
        """Bits of the request, or its error."""
        if self._measurement is None:
            raise self._error or RuntimeError("a finished measurement has neither bits nor an error")
        return self._measurement
