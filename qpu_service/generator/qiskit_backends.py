"""Generator circuits on Qiskit: Aer, Aer with a device's noise, and IBM's client in local testing mode.

A shape is transpiled once, with its angles as parameters; afterwards numbers are put in. Nothing is bound at run time:
Aer silently ignores values bound to controlled gates.
"""

import time
from typing import Any

import numpy as np
from jaxtyping import Float64

from qpu_service.backends.fake_device import DeviceRegion, cut_region, load_fake_device
from qpu_service.errors import BackendFailedError, BackendUnavailableError
from qpu_service.generator.circuit import GeneratorShape
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
        self._engines: dict[GeneratorShape, tuple[Any, Any, Any]] = {}

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
        simulator, template, parameters = self._engine(circuits.shape)
        bound = [_bind(template, parameters, angles) for angles in circuits.angles]
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

    def _engine(self, shape: GeneratorShape) -> tuple[Any, Any, Any]:
        if shape not in self._engines:
            from qiskit_aer import AerSimulator
            from qiskit_aer.noise import NoiseModel

            template, parameters = _template(shape)
            if self._device is None:
                simulator = AerSimulator(method="statevector", max_parallel_threads=1)
            else:
                region = cut_region(self._device, shape.num_qubits)
                template = _transpile(template, region)
                simulator = AerSimulator(noise_model=NoiseModel.from_backend(region), max_parallel_threads=1)
            self._engines[shape] = (simulator, template, parameters)
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
        self._templates: dict[GeneratorShape, tuple[Any, Any]] = {}

    @property
    def name(self) -> str:
        """``ibm:`` and the device."""
        return f"ibm:{self._runtime.device_name}"

    def run(self, circuits: GeneratorBatch) -> GeneratorCounts:
        """See GeneratorBackend."""
        started_s = time.monotonic()
        template, parameters = self._template(circuits.shape)
        bound = [_bind(template, parameters, angles) for angles in circuits.angles]
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

    def _template(self, shape: GeneratorShape) -> tuple[Any, Any]:
        if shape not in self._templates:
            from qiskit import QuantumCircuit

            region = cut_region(self._device, shape.num_qubits)
            template, parameters = _template(shape)
            small = _transpile(template, region)
            whole = QuantumCircuit(self._device.num_qubits, name="generator")
            for register in small.cregs:
                whole.add_register(register)
            whole.compose(small, qubits=region.physical_qubits, clbits=small.clbits, inplace=True)
            self._runtime.prepare(region.physical_qubits)
            self._templates[shape] = (whole, parameters)
        return self._templates[shape]


def _template(shape: GeneratorShape) -> tuple[Any, Any]:
    """Measured circuit with a parameter per angle."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    num_qubits = shape.num_qubits
    parameters = ParameterVector("angle", shape.num_angles)
    circuit = QuantumCircuit(num_qubits)
    angle = iter(parameters)
    for _ in range(shape.depth):
        for q in range(num_qubits):
            if shape.family == "u3_cu3":
                circuit.u(next(angle), next(angle), next(angle), q)
            else:
                circuit.ry(next(angle), q)
        for q in range(num_qubits if shape.family == "u3_cu3" else num_qubits - 1):
            if shape.family == "u3_cu3":
                circuit.cu(next(angle), next(angle), next(angle), 0, q, (q + 1) % num_qubits)
            else:
                circuit.cx(q, q + 1)
    circuit.measure_all()
    return circuit, parameters


def _transpile(circuit: Any, region: DeviceRegion) -> Any:
    from qiskit import generate_preset_pass_manager

    return generate_preset_pass_manager(optimization_level=1, target=region.target, seed_transpiler=0).run(circuit)


def _bind(template: Any, parameters: Any, angles: Float64[np.ndarray, "A"]) -> Any:
    kept = set(template.parameters)  # transpiling drops angles that change nothing, such as phases of |0>
    values = {parameter: float(value) for parameter, value in zip(parameters, angles, strict=True) if parameter in kept}
    return template.assign_parameters(values)
