"""Offline copies of IBM devices: by name, and cut down to the few qubits that a circuit needs.

Ten qubits of a 127-qubit noise model take Aer ten times as long as a ten-qubit model, so only a connected region of the
device is kept, the one whose two-qubit gates have the smallest errors.
"""

import inspect
from dataclasses import dataclass
from typing import Any

from qpu_service.errors import BackendUnavailableError


@dataclass(frozen=True, slots=True)
class DeviceRegion:
    """A few connected qubits of a device, renumbered from 0, with what Qiskit asks of a backend."""

    name: str
    target: Any
    dt: float | None
    physical_qubits: tuple[int, ...]
    version: int = 2
    """Qiskit's backend interface that ``target`` and ``operation_names`` belong to."""

    @property
    def operation_names(self) -> list[str]:
        """Names of the region's gates."""
        return list(self.target.operation_names)


def load_fake_device(name: str) -> Any:
    """Make the fake device called ``name`` (a BackendV2), for example ``fake_torino``.

    Raises:
        BackendUnavailableError: if qiskit-ibm-runtime is missing or has no such device.
    """
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise BackendUnavailableError(
            f"device {name!r} needs the package qiskit-ibm-runtime; install it or unset QPU_DEVICE"
        ) from error
    classes: dict[str, Any] = {
        device_name: cls
        for cls in vars(fake_provider).values()
        if inspect.isclass(cls) and isinstance(device_name := getattr(cls, "backend_name", None), str)
    }
    if name not in classes:
        some = ", ".join(sorted(classes)[:: max(1, len(classes) // 8)])
        raise BackendUnavailableError(
            f"no fake device is called {name!r}; set QPU_DEVICE to one of {len(classes)}, among them: {some}"
        )
    return classes[name]()


def cut_region(device: Any, num_qubits: int) -> DeviceRegion:
    """Keep ``num_qubits`` connected qubits of a device.

    Raises:
        BackendUnavailableError: if the device has no connected region of this size.
    """
    from qiskit.transpiler import Target

    errors = _pair_errors(device.target)
    regions = [_grow(start, errors, num_qubits) for start in range(device.num_qubits)]
    whole = [region for region in regions if len(region) == num_qubits]
    if not whole:
        raise BackendUnavailableError(
            f"device {device.name} has {device.num_qubits} qubits and no connected region of {num_qubits}; "
            "choose a larger device or smaller circuits"
        )
    physical = min(whole, key=lambda region: _inner_error(region, errors))
    place = {qubit: index for index, qubit in enumerate(physical)}
    properties = device.target.qubit_properties
    target = Target(
        num_qubits=num_qubits,
        dt=device.dt,
        qubit_properties=[properties[qubit] for qubit in physical] if properties else None,
    )
    for operation_name in device.target.operation_names:
        kept = {
            tuple(place[qubit] for qubit in qubits): what
            for qubits, what in device.target[operation_name].items()
            if qubits is not None and all(qubit in place for qubit in qubits)
        }
        if kept:
            target.add_instruction(device.target.operation_from_name(operation_name), kept)
    return DeviceRegion(device.name, target, device.dt, tuple(physical))


def _pair_errors(target: Any) -> dict[frozenset[int], float]:
    """Smallest error of a two-qubit gate on each coupled pair; 1 where it is not known."""
    errors: dict[frozenset[int], float] = {}
    for operation_name in target.operation_names:
        for qubits, what in target[operation_name].items():
            if qubits is not None and len(qubits) == 2:
                error = 1.0 if what is None or what.error is None else what.error
                pair = frozenset(qubits)
                errors[pair] = min(error, errors.get(pair, 1.0))
    return errors


def _grow(start: int, errors: dict[frozenset[int], float], num_qubits: int) -> list[int]:
    """Add the neighbour with the smallest error until the region is large enough or has no neighbour."""
    region = [start]
    while len(region) < num_qubits:
        border = [
            (error, next(iter(pair.difference(region))))
            for pair, error in errors.items()
            if len(pair.intersection(region)) == 1
        ]
        if not border:
            break
        region.append(min(border)[1])
    return region


def _inner_error(region: list[int], errors: dict[frozenset[int], float]) -> float:
    inside = [error for pair, error in errors.items() if pair.issubset(region)]
    return sum(inside) / len(inside) if inside else 0.0
