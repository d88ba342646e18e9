"""Backends by name."""

import subprocess
import sys

import pytest

from qpu_service.backends.registry import BACKENDS, backend_name_from_environment, make_backend
from qpu_service.errors import BackendUnavailableError, UnknownBackendError


def test_every_known_name_makes_a_backend_of_that_name() -> None:
    for name in ("statevector", "aer"):
        backend = make_backend(name)
        assert backend.name == name
        backend.close()


def test_a_simulator_gets_ready_for_the_circuits_to_come() -> None:
    (shape,) = make_backend("statevector", num_qubits=13)._scratch  # type: ignore[attr-defined]
    assert shape == (0, 1, 13)


@pytest.mark.parametrize("name", ["qasm", "", "Statevector", "aer "])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownBackendError) as raised:
        make_backend(name)
    assert repr(name) in str(raised.value)
    assert all(known in str(raised.value) for known in BACKENDS)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "statevector"), ({"QPU_BACKEND": ""}, "statevector"), ({"QPU_BACKEND": "aer"}, "aer")],
)
def test_environment_names_the_backend(environment: dict[str, str], expected: str) -> None:
    assert backend_name_from_environment(environment=environment) == expected


def test_environment_default_can_be_given() -> None:
    assert backend_name_from_environment("aer", environment={}) == "aer"


def test_a_typo_in_the_environment_never_falls_back() -> None:
    with pytest.raises(UnknownBackendError, match="statevektor"):
        backend_name_from_environment(environment={"QPU_BACKEND": "statevektor"})


def test_statevector_has_no_device() -> None:
    with pytest.raises(BackendUnavailableError, match="fake_torino"):
        make_backend("statevector", device="fake_torino")


def test_naming_backends_imports_no_simulator() -> None:
    code = "import sys, qpu_service.backends, qpu_service.worker, qpu_service.sampler;" + (
        "print(sorted({'qiskit', 'qiskit_aer', 'qiskit_ibm_runtime', 'numba', 'ray', 'torch'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
