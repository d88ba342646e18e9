"""Requests that this machine cannot hold are refused with their size."""

from pathlib import Path

import pytest

from qpu_service.backends.memory import check_memory, memory_bytes
from qpu_service.backends.scratch import make_scratch
from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.errors import InvalidCircuitError
from tests.conformance.circuits import random_circuits


def test_a_container_with_less_memory_than_the_machine_is_the_limit(tmp_path: Path) -> None:
    (tmp_path / "limited").write_text("1048576\n")
    (tmp_path / "unlimited").write_text("max\n")
    unlimited, limited, missing = (str(tmp_path / name) for name in ("unlimited", "limited", "missing"))
    assert memory_bytes((unlimited, limited, missing)) == 1 << 20
    assert memory_bytes((unlimited, missing)) == memory_bytes(()) > 1 << 24


def test_the_message_says_need_limit_and_what_to_do() -> None:
    with pytest.raises(
        InvalidCircuitError, match=r"^states need 1,073,741,824 MiB, but this machine has [\d,]+ MiB; ask for less$"
    ):
        check_memory(1 << 50, "states", "less")


def test_what_fits_passes() -> None:
    check_memory(1 << 27, "states", "less")


def test_a_plan_that_does_not_fit_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidCircuitError, match=r"20 qubits, .* 10000000000 layers.* need [\d,]+ MiB.*fewer qubits"):
        make_scratch(10**10, 20, 1)


def test_a_table_larger_than_the_machine_is_refused() -> None:
    circuits = random_circuits(100_000, 20, 1)
    with pytest.raises(InvalidCircuitError, match=r"shape \(100000, 1048576\) need 400,000 MiB.*bit_means"):
        StatevectorBackend().probabilities(circuits)


def test_bits_larger_than_the_machine_are_refused() -> None:
    circuits = random_circuits(1000, 20, 1, shots=10**9)
    with pytest.raises(InvalidCircuitError, match=r"need 19,073,487 MiB.*fewer shots"):
        StatevectorBackend().run(circuits)
