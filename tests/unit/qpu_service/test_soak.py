"""Simulators keep nothing of the circuits that they have run. Takes about 5 s."""

import numpy as np
import pytest

from benchmarks.soak import run, soak
from qpu_service.backends.registry import make_backend
from qpu_service.types import CircuitBatch, MeasurementBatch


def test_memory_does_not_grow_with_statevectors_circuits() -> None:
    # The result of a batch is 10 bytes per circuit: keeping just the bits would show.
    assert soak(make_backend("statevector"), 100_000, 60.0)["bytes_per_circuit"] < 5


def test_memory_does_not_grow_with_aers_circuits() -> None:
    # A kept circuit is about 100 kB; Aer's allocators still settle by some tens of bytes per circuit.
    assert soak(make_backend("aer"), 2_000, 60.0, batch=50)["bytes_per_circuit"] < 1_000


class Leaky:
    """A backend that keeps 1 kB of each circuit."""

    name = "leaky"

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def run(self, circuits: CircuitBatch) -> MeasurementBatch:
        self.kept.append(np.ones(1_000 * len(circuits), np.uint8))
        return MeasurementBatch(bits=np.zeros((len(circuits), 1, 10), np.uint8), request_id="", backend_name="leaky")

    def close(self) -> None:
        self.kept.clear()


def test_a_leak_shows_with_its_size() -> None:
    assert soak(Leaky(), 50_000, 60.0)["bytes_per_circuit"] == pytest.approx(1_000, rel=0.1)


def test_too_few_circuits_to_fit_a_line_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ran 250 circuits .* needs 3: raise --circuits"):
        run(circuits=250, simulators="statevector")
