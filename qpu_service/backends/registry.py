"""Which backends there are, and how a name becomes one. Never chooses another backend than the one asked for."""

import os
from collections.abc import Callable, Mapping
from typing import Final

from qpu_service.errors import BackendUnavailableError, UnknownBackendError
from qpu_service.interfaces import CircuitBackend

_Maker = Callable[[str | None, int, int], CircuitBackend]
"""Device, threads, qubits → backend."""


def make_backend(name: str, *, device: str | None = None, num_threads: int = 1, num_qubits: int = 1) -> CircuitBackend:
    """Build a backend.

    Args:
        name: one of ``BACKENDS``.
        device: device or noise model within the backend; None means the backend's own default.
        num_threads: CPU threads that a simulator may use.
        num_qubits: of the circuits to come; what has to be compiled for them is compiled now.

    Raises:
        UnknownBackendError: if no backend has this name.
        BackendUnavailableError: if its package or device is missing here.
    """
    return _maker(name)(device, num_threads, num_qubits)


def backend_name_from_environment(default: str = "statevector", *, environment: Mapping[str, str] = os.environ) -> str:
    """Name in QPU_BACKEND, or ``default`` where it is unset or empty; several workers may have a comma-separated list.

    Raises:
        UnknownBackendError: if no backend has one of these names.
    """
    names = environment.get("QPU_BACKEND", "").strip() or default
    for name in names.split(","):
        _maker(name.strip())
    return names


def _maker(name: str) -> _Maker:
    if name not in _MAKERS:
        raise UnknownBackendError(
            f"no backend is called {name!r}; set QPU_BACKEND or the backend option to one of: {', '.join(BACKENDS)}"
        )
    return _MAKERS[name]


def _make_statevector(device: str | None, num_threads: int, num_qubits: int) -> CircuitBackend:
    if device is not None:
        raise BackendUnavailableError(
            f"the statevector backend is exact and has no device, got device {device!r}; "
            "unset QPU_DEVICE, or use the aer backend for a noise model"
        )
    from qpu_service.backends.statevector import StatevectorBackend

    return StatevectorBackend(num_threads=num_threads, num_qubits=num_qubits)


def _make_aer(device: str | None, num_threads: int, num_qubits: int) -> CircuitBackend:  # noqa: ARG001 - nothing to compile
    from qpu_service.backends.aer import AerBackend

    return AerBackend(device=device, num_threads=num_threads)


def _make_ibm(device: str | None, num_threads: int, num_qubits: int) -> CircuitBackend:  # noqa: ARG001 - a device has neither
    from qpu_service.ibm.connect import make_ibm_backend

    return make_ibm_backend(device)


_MAKERS: Final[Mapping[str, _Maker]] = {
    "statevector": _make_statevector,
    "aer": _make_aer,
    "ibm": _make_ibm,
}

BACKENDS: Final[tuple[str, ...]] = tuple(_MAKERS)
"""Names that QPU_BACKEND may have."""
