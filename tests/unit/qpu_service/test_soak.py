"""Simulators keep nothing of the circuits that they have run. In processes of their own: about 15 s.

In this one, memory that other tests have freed would take what a simulator keeps, and nothing would show.
"""

import json
import subprocess
import sys

import pytest

from benchmarks.soak import run
from tests.commands import clean_environment

LEAKY = """
import numpy as np
from qpu_service.types import MeasurementBatch

class Leaky:
    name = "leaky"
    kept = []
    def run(self, circuits):
        self.kept.append(np.ones(1_000 * len(circuits), np.uint8))
        return MeasurementBatch(bits=np.zeros((len(circuits), 1, 10), np.uint8), request_id="", backend_name="leaky")
    def close(self):
        pass
"""


def bytes_per_circuit(backend: str, num_circuits: int, *, batch: int = 250, before: str = "") -> float:
    """Slope of a fresh process; ``backend`` is an expression."""
    code = f"""{before}
import json
from benchmarks.soak import soak
from qpu_service.backends.registry import make_backend
print(json.dumps(soak({backend}, {num_circuits}, 60.0, batch={batch})))
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment())
    assert finished.returncode == 0, finished.stderr
    return float(json.loads(finished.stdout.splitlines()[-1])["bytes_per_circuit"])


def test_memory_does_not_grow_with_statevectors_circuits() -> None:
    # The result of a batch is 10 bytes per circuit: keeping just the bits would show.
    assert bytes_per_circuit('make_backend("statevector")', 100_000) < 5


def test_memory_does_not_grow_with_aers_circuits() -> None:
    # A kept circuit is about 100 kB; Aer's allocators still settle by some tens of bytes per circuit.
    assert bytes_per_circuit('make_backend("aer")', 2_000, batch=50) < 1_000


def test_a_leak_shows_with_its_size() -> None:
    assert bytes_per_circuit("Leaky()", 50_000, before=LEAKY) == pytest.approx(1_000, rel=0.1)


def test_too_few_circuits_to_fit_a_line_are_refused() -> None:
    with pytest.raises(ValueError, match=r"ran 250 circuits .* needs 3: raise --circuits"):
        run(circuits=250, simulators="statevector")
