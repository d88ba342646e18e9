"""Which backend and device each QPU worker owns."""

from dataclasses import dataclass

from qpu_service.ibm.config import is_simulated


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which backend, on which device, one worker owns."""

    backend: str
    device: str | None

    @property
    def is_real_device(self) -> bool:
        """Whether circuits are paid for: the worker then needs an account, and the journal and budget of the others."""
        return self.backend == "ibm" and not is_simulated(self.device)


def worker_places(backends: str, devices: str | None, num_workers: int) -> list[WorkerPlace]:
    """Backend and device of each worker: the comma-separated lists are dealt out in turn.

    Args:
        backends: such as ``statevector`` or ``ibm,ibm,aer``.
        devices: such as ``ibm_torino,ibm_fez``; an empty entry means the backend's default.
        num_workers: how many workers there are; at least one for every backend and device named.
    """
    names = [name.strip() for name in backends.split(",")]
    places = [device.strip() or None for device in devices.split(",")] if devices else [None]
    count = max(num_workers, len(names), len(places))
    return [WorkerPlace(names[i % len(names)], places[i % len(places)]) for i in range(count)]
