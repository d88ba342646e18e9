"""Backends of generator circuits: exact simulation with drawn shots, Qiskit Aer with or without noise, IBM's client.

The names are those of the QPU service's other circuits; QPU_BACKEND and QPU_DEVICE choose here too.
"""

import time

import numpy as np

from qpu_service.errors import BackendUnavailableError, UnknownBackendError
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.exact import ExactGenerator
from qpu_service.generator.types import GeneratorBackend, GeneratorBatch, GeneratorCounts

GENERATOR_BACKENDS = ("statevector", "aer", "ibm")


def make_generator_backend(name: str, *, device: str | None = None) -> GeneratorBackend:
    """Build a backend.

    Args:
        name: one of ``GENERATOR_BACKENDS``.
        device: a fake IBM device, such as ``fake_torino``: its noise on aer; on ibm, the whole client in local mode.

    Raises:
        UnknownBackendError: if no backend has this name.
        BackendUnavailableError: if its package or device is missing here.
    """
    if name == "statevector":
        if device is not None:
            raise BackendUnavailableError(
                f"the statevector backend is exact and has no device, got device {device!r}; unset QPU_DEVICE, or use "
                "the aer backend for a noise model"
            )
        return ExactShots()
    if name == "aer":
        from qpu_service.generator.qiskit_backends import AerGenerator

        return AerGenerator(device)
    if name == "ibm":
        from qpu_service.generator.qiskit_backends import IBMGenerator

        return IBMGenerator(device)
    raise UnknownBackendError(
        f"no backend is called {name!r}; set QPU_BACKEND or the backend option to one of: "
        f"{', '.join(GENERATOR_BACKENDS)}"
    )


class ExactShots:
    """Exact probabilities, and shots drawn from them; a circuit's counts depend on the seed and its row alone."""

    name = "statevector"

    def __init__(self) -> None:
        self._simulators: dict[GeneratorShape, ExactGenerator] = {}

    def run(self, circuits: GeneratorBatch) -> GeneratorCounts:
        """See GeneratorBackend."""
        started_s = time.monotonic()
        simulator = self._simulators.setdefault(circuits.shape, ExactGenerator(circuits.shape))
        counts = np.empty((len(circuits.angles), circuits.shape.num_outcomes), np.int64)
        for row, angles in enumerate(circuits.angles):
            probabilities = simulator.probabilities(angles).astype(np.float64)
            rng = np.random.default_rng([circuits.seed, row])
            counts[row] = rng.multinomial(circuits.shots, probabilities / probabilities.sum())
        return GeneratorCounts(counts=counts, backend_name=self.name, execution_s=time.monotonic() - started_s)

    def close(self) -> None:
        """See GeneratorBackend."""
        self._simulators.clear()
