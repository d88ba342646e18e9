"""The in-process sampler."""

import pytest

from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.errors import BackendFailedError, InvalidCircuitError
from qpu_service.sampler import LocalSampler
from qpu_service.types import CircuitBatch, MeasurementBatch
from tests.conformance.circuits import random_circuits


class BrokenBackend:
    name = "broken"

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        raise BackendFailedError("the cryostat is warm")

    def close(self) -> None:
        pass


def test_bits_are_the_backends() -> None:
    circuits = random_circuits(5, 4, 3, shots=2)
    backend = StatevectorBackend()
    assert (LocalSampler(backend).submit(circuits).result(0.0).bits == backend.run(circuits).bits).all()


def test_a_failure_waits_for_result() -> None:
    pending = LocalSampler(BrokenBackend()).submit(random_circuits(1, 2, 1))
    for _ in range(2):
        with pytest.raises(BackendFailedError, match="cryostat"):
            pending.result()


def test_something_else_than_circuits_is_refused_at_once() -> None:
    with pytest.raises(InvalidCircuitError, match="got dict"):
        LocalSampler(StatevectorBackend()).submit({})  # type: ignore[arg-type]
