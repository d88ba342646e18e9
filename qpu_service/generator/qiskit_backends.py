"""Generator circuits on Qiskit: Aer, Aer with a device's noise, and IBM's client in local testing mode.

A shape is routed once (template.py); circuits that run hold numbers alone. Nothing is bound at run time: Aer silently
ignores values bound to controlled gates.
"""

import time
from typing import Any

import numpy as np

from qpu_service.backends.fake_device import cut_region, load_fake_device
from qpu_service.errors import BackendFailedError, BackendUnavailableError
from qpu_service.generator.circuit import GeneratorShape
from qpu_service.generator.template import Template
from qpu_service.generator.types import GeneratorBatch, GeneratorCounts


class AerGenerator:
    """Qiskit Aer, exact or with the noise of a fake device.

    Raises:
        BackendUnavailableError: if qiskit-aer is missing, or the device is not known.
    """

    def __init__(self, device: str | None = None) -> None:
        try:
            import qiskit_aer  # noqa: F401
        except ImportError as error:
            raise BackendUnavailableError(
                "the aer backend needs the package qiskit-aer; install it, or use QPU_BACKEND=statevector"
            ) from error
        self._device = None if device is None else load_fake_device(device)
        self._engines: dict[GeneratorShape, tuple[Any, Template]] = {}

    @property
    def name(self) -> str:
        """``aer``, or ``aer:`` and the device."""
        return "aer" if self._device is None else f"aer:{self._device.name}"

    def run(self, circuits: GeneratorBatch) -> GeneratorCounts:
        """See GeneratorBackend.

        Raises:
            BackendFailedError: if Aer reports a failure.
        """
        started_s = time.monotonic()
        simulator, template = self._engine(circuits.shape)
        bound = [template.bind(angles) for angles in circuits.angles]
        result = simulator.run(bound, shots=circuits.shots, seed_simulator=circuits.seed % 2**62).result()
        if not result.success:
            raise BackendFailedError(f"Aer failed with status {result.status!r} on {len(bound)} circuits")
        counts = np.zeros((len(bound), circuits.shape.num_outcomes), np.int64)
        for row in range(len(bound)):
            for outcome, count in result.data(row)["counts"].items():
                counts[row, int(outcome, 16)] = count
        return GeneratorCounts(counts=counts, backend_name=self.name, execution_s=time.monotonic() - started_s)

    def close(self) -> None:
        """See GeneratorBackend."""
        self._engines.clear()

    def _engine(self, shape: GeneratorShape) -> tuple[Any, Template]:
        if shape not in self._engines:
            from qiskit_aer import AerSimulator
            from qiskit_aer.noise import NoiseModel

            if self._device is None:
                simulator = AerSimulator(method="statevector", max_parallel_threads=1)
                self._engines[shape] = (simulator, Template(shape, None))
            else:
                region = cut_region(self._device, shape.num_qubits)
                simulator = AerSimulator(noise_model=NoiseModel.from_backend(region), max_parallel_threads=1)
                self._engines[shape] = (simulator, Template(shape, region))
        return self._engines[shape]


class IBMGenerator:
    """IBM's runtime client with a fake device in local testing mode.

    Raises:
        BackendUnavailableError: if no fake device is named, or it is not known.
    """

    def __init__(self, device: str | None) -> None:
        if device is None or not device.startswith(("fake_", "ideal_")):
            raise BackendUnavailableError(
                f"generator circuits run on fake devices of the ibm backend only, got device {device!r}; set "
                "QPU_DEVICE=fake_torino, say. Trained policies need no QPU"
            )
        from qpu_service.ibm.config import config_from_environment
        from qpu_service.ibm.local import LocalRuntime

        self._runtime = LocalRuntime(config_from_environment(device, {}))
        self._device = load_fake_device(device.replace("ideal_", "fake_", 1))
        self._templates: dict[GeneratorShape, tuple[Template, tuple[int, ...]]] = {}

    @property
    def name(self) -> str:
        """``ibm:`` and the device."""
        return f"ibm:{self._runtime.device_name}"

    def run(self, circuits: GeneratorBatch) -> GeneratorCounts:
        """See GeneratorBackend."""
        started_s = time.monotonic()
        template, places = self._template(circuits.shape)
        bound = [self._on_device(template.bind(angles), places) for angles in circuits.angles]
        job = self._runtime.submit(
            bound, shots=circuits.shots, tags=(), seed=circuits.seed % (2**31 - 1), max_execution_s=None
        )
        weights = 1 << np.arange(circuits.shape.num_qubits)
        num_outcomes = circuits.shape.num_outcomes
        counts = [np.bincount(bits.astype(np.int64) @ weights, minlength=num_outcomes) for bits in job.bits()]
        return GeneratorCounts(
            counts=np.stack(counts).astype(np.int64),
            backend_name=self.name,
            execution_s=time.monotonic() - started_s,
        )

    def close(self) -> None:
        """See GeneratorBackend."""
        self._runtime.close()
        self._templates.clear()

    def _template(self, shape: GeneratorShape) -> tuple[Template, tuple[int, ...]]:
        if shape not in self._templates:
            region = cut_region(self._device, shape.num_qubits)
            self._runtime.prepare(region.physical_qubits)
            self._templates[shape] = (Template(shape, region), region.physical_qubits)
        return self._templates[shape]

    def _on_device(self, small: Any, places: tuple[int, ...]) -> Any:
        """The region's circuit at its place on the whole device."""
        from qiskit import QuantumCircuit

        whole = QuantumCircuit(self._device.num_qubits)
        for register in small.cregs:
            whole.add_register(register)
        whole.compose(small, qubits=places, clbits=small.clbits, inplace=True)
        return whole
