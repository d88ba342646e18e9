"""Devices that are simulated on this machine, through the runtime client's local testing mode.

The same circuits, sampler and results as for real hardware, but no queue, no network and nothing to pay. Only the noise
of the qubits in use is simulated: the noise model of a whole 133-qubit device takes seconds to build and to apply.
"""

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from jaxtyping import UInt8

from qpu_service.backends.fake_device import DeviceRegion, load_fake_device
from qpu_service.errors import BackendUnavailableError
from qpu_service.ibm.config import IBMConfig
from qpu_service.ibm.samplers import as_pubs, make_sampler, read_bits, sampler_class

_KEPT_JOBS = 64
"""Ended jobs that can still be read, as a real service would offer them."""


class LocalRuntime:
    """A fake device; satisfies Runtime.

    Args:
        config: ``device`` is ``fake_…`` (with the device's noise) or ``ideal_…`` (without).

    Raises:
        BackendUnavailableError: if there is no such device, or it has not the fractional gates that were asked for.
    """

    def __init__(self, config: IBMConfig) -> None:
        name = config.device or ""
        self._has_noise = not name.startswith("ideal_")
        self._device = load_fake_device(name if self._has_noise else name.replace("ideal_", "fake_", 1))
        self._name = name
        self._config = config
        if config.use_fractional_gates and "rx" not in self._device.target.operation_names:
            raise BackendUnavailableError(
                f"device {name} has no fractional gates; unset QPU_FRACTIONAL_GATES or choose a device with RX and RZZ"
            )
        self._sampler = sampler_class(config.sampler)
        self._simulator: Any | None = None
        self._jobs: OrderedDict[str, LocalJob] = OrderedDict()

    @property
    def device_name(self) -> str:
        """The device's name."""
        return self._name

    def target_of(self, device_name: str) -> Any:  # noqa: ARG002 - there is one device
        """Target of the whole device."""
        return self._device.target

    @property
    def repetition_delay_s(self) -> float:
        """Pause between executions of the device that is imitated."""
        return self._config.repetition_delay_s or float(getattr(self._device, "default_rep_delay", None) or 250e-6)

    @property
    def is_billed(self) -> bool:
        """Simulating is free."""
        return False

    @property
    def poll_interval_s(self) -> float:
        """Jobs are done when they are submitted."""
        return 0.0

    @property
    def session_id(self) -> str | None:
        """There are no sessions here."""
        return None

    def prepare(self, qubits: Sequence[int]) -> None:
        """Build the simulator with the noise of these qubits."""
        from qiskit_aer import AerSimulator

        noise = _noise_of(self._device, qubits) if self._has_noise else None
        simulator = AerSimulator.from_backend(self._device, noise_model=noise)
        # Local testing mode copies its backend for every job; a copy of a noise model takes longer than the circuits.
        simulator.__deepcopy__ = lambda _memo: simulator
        self._simulator = simulator

    def submit(
        self,
        circuits: Sequence[Any],
        *,
        shots: int,
        tags: Sequence[str],  # noqa: ARG002 - a simulator keeps no tags
        seed: int,
        max_execution_s: int | None,  # noqa: ARG002 - nothing is charged
    ) -> "LocalJob":
        """Simulate at once."""
        sampler = make_sampler(self._sampler, self._simulator)
        if self._sampler.__module__ == "qiskit_ibm_runtime.sampler":
            # The client-side sampler would start every circuit of a job with the same seed.
            sampler.options.simulator.seed_simulator = seed
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*have no effect in local testing mode")
            result = sampler.run(as_pubs(circuits), shots=shots).result()
        job = LocalJob(f"local-{uuid4().hex[:12]}", read_bits(result, shots))
        self._jobs[job.job_id] = job
        while len(self._jobs) > _KEPT_JOBS:
            self._jobs.popitem(last=False)
        return job

    def find(self, tags: Sequence[str]) -> list["LocalJob"]:  # noqa: ARG002 - see submit
        """Nothing: what was simulated died with its process."""
        return []

    def job(self, job_id: str) -> "LocalJob | None":
        """A job of this process."""
        return self._jobs.get(job_id)

    def session_usage_s(self, session_id: str | None) -> float | None:  # noqa: ARG002 - there are none
        """Nothing is charged for sessions."""
        return None

    def reopen(self) -> None:
        """There are no sessions here."""

    def switch_device(self) -> bool:
        """A fake device was asked for by name."""
        return False

    def close(self) -> None:
        """Forget the simulator and its jobs."""
        self._jobs.clear()
        self._simulator = None


class LocalJob:
    """A job that has already happened; satisfies DeviceJob."""

    def __init__(self, job_id: str, bits: list[UInt8[np.ndarray, "S N"]]) -> None:
        self._job_id = job_id
        self._bits = bits

    @property
    def job_id(self) -> str:
        """Name within this process."""
        return self._job_id

    def session_id(self) -> str | None:
        """There are no sessions here."""
        return None

    def status(self) -> str:
        """DONE."""
        return "DONE"

    def failure(self) -> str:
        """Nothing failed."""
        return ""

    def bits(self) -> list[UInt8[np.ndarray, "S N"]]:
        """Bits of every circuit."""
        return self._bits

    def usage_s(self) -> float | None:
        """Nothing is charged."""
        return 0.0

    def cancel(self) -> None:
        """Too late."""


def _noise_of(device: Any, qubits: Sequence[int]) -> Any:
    """Noise model of some qubits of a device, under their own numbers."""
    from qiskit.transpiler import Target
    from qiskit_aer.noise import NoiseModel

    kept = set(qubits)
    part = Target(num_qubits=device.num_qubits, dt=device.dt, qubit_properties=device.target.qubit_properties)
    for name in device.target.operation_names:
        inside = {
            place: reported
            for place, reported in (device.target[name] or {}).items()
            if place is not None and kept.issuperset(place)
        }
        if inside:
            part.add_instruction(device.target.operation_from_name(name), inside)
    return NoiseModel.from_backend(DeviceRegion(device.name, part, device.dt, tuple(qubits)))
