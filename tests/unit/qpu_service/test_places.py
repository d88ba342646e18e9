"""Which backend and device each worker owns."""

import pytest

from qpu_service.places import WorkerPlace, worker_places


@pytest.mark.parametrize(
    ("backends", "devices", "num_workers", "expected"),
    [
        ("statevector", None, 1, [("statevector", None)]),
        ("statevector", None, 3, [("statevector", None)] * 3),
        ("ibm", "ibm_a,ibm_b", 1, [("ibm", "ibm_a"), ("ibm", "ibm_b")]),
        ("ibm, ibm ,aer", "ibm_a,ibm_b,", 1, [("ibm", "ibm_a"), ("ibm", "ibm_b"), ("aer", None)]),
        ("statevector,aer", None, 5, [("statevector", None), ("aer", None)] * 2 + [("statevector", None)]),
    ],
)
def test_names_are_dealt_out_in_turn(
    backends: str, devices: str | None, num_workers: int, expected: list[tuple[str, str | None]]
) -> None:
    assert worker_places(backends, devices, num_workers) == [WorkerPlace(*place) for place in expected]
