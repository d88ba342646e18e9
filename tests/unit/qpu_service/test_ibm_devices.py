"""Bits belong to the device that measured them, also where several devices share a journal. About 3 s."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qpu_service.backends.fake_device import load_fake_device
from qpu_service.ibm import backend as ibm_backend
from qpu_service.readout import ReadoutErrors, correct_bits
from tests.unit.qpu_service.ibm_process import assert_right, flips, make_backend
from tests.unit.qpu_service.ibm_service import Killed, ScriptedService

NAMES = ("ibm_torino", "ibm_fez")


def test_another_device_measures_the_same_circuits_itself(tmp_path: Path) -> None:
    service = ScriptedService(names=NAMES)
    for name in (*NAMES, *NAMES):
        measured = make_backend(service, tmp_path, device=name).run(flips([9, 3]))
        assert measured.backend_name == f"ibm:{name}"
        assert measured.job_id == f"job-{1 + NAMES.index(name)}"
        assert_right(measured.bits, [9, 3])
    assert [job.device for job in service.paid] == list(NAMES)


def test_a_job_on_another_device_is_left_alone(tmp_path: Path) -> None:
    service = ScriptedService(names=NAMES)
    service.script["result"] = [Killed()]
    with pytest.raises(Killed):
        make_backend(service, tmp_path, device="ibm_torino").run(flips([9]))
    service.paid[0].statuses = ["RUNNING"]  # a queue that the other device's work does not wait for
    fez = make_backend(service, tmp_path, device="ibm_fez", deadline_s=30.0)
    assert fez.run(flips([9])).backend_name == "ibm:ibm_fez"
    assert len(fez.spending().reserved) == 1, "torino's job is not over"
    service.paid[0].statuses = ["DONE"]
    torino = make_backend(service, tmp_path, device="ibm_torino")
    assert torino.run(flips([9])).job_id == "job-1"
    assert len(service.paid) == 2


@pytest.mark.parametrize(
    "settings",
    [{"device": None}, {"device": "ibm_fez", "other_devices": ("ibm_torino",)}],
    ids=["least busy", "device of another worker"],
)
def test_where_either_device_will_do_the_job_is_taken_up_under_its_own_name(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    service = ScriptedService(names=NAMES)
    service.script["result"] = [Killed()]
    with pytest.raises(Killed):
        make_backend(service, tmp_path, device="ibm_torino").run(flips([9, 3]))
    service.devices.reverse()  # fez is the least busy one by now
    backend = make_backend(service, tmp_path, **settings)
    assert backend.name == "ibm:ibm_fez"
    measured = backend.run(flips([9, 3]))
    assert_right(measured.bits, [9, 3])
    assert (measured.backend_name, measured.job_id) == ("ibm:ibm_torino", "job-1")
    both = backend.run(flips([9, 3, 12]))
    assert_right(both.bits, [9, 3, 12])
    assert both.backend_name == "ibm:ibm_torino,ibm_fez"
    assert [job.device for job in service.paid] == list(NAMES)


def test_readout_is_corrected_by_the_errors_of_the_device_that_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = record_corrections(monkeypatch)
    service = ScriptedService(names=NAMES)
    service.devices[1].target = load_fake_device("fake_lima").target
    circuits = replace(flips([9, 3]), shots=50)
    torino = make_backend(service, tmp_path, device="ibm_torino")
    torino.run(circuits)
    service.devices.reverse()
    other = make_backend(service, tmp_path, device=None, corrects_readout=True)
    assert other.run(circuits).backend_name == "ibm:ibm_torino"
    (errors,) = used
    assert (errors.one_given_zero == torino.readout_errors(circuits).one_given_zero).all()
    assert (errors.one_given_zero != other.readout_errors(circuits).one_given_zero).all()


def test_readout_is_corrected_by_the_errors_of_the_day_on_which_the_job_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = record_corrections(monkeypatch)
    service = ScriptedService(names=NAMES)
    service.script["result"] = [Killed()]
    circuits = replace(flips([9, 3]), shots=50)
    before = make_backend(service, tmp_path, device="ibm_torino", corrects_readout=True)
    with pytest.raises(Killed):
        before.run(circuits)
    at_that_time = before.readout_errors(circuits).one_given_zero
    service.devices[0].target = load_fake_device("fake_lima").target  # calibrated anew, and the best qubits are others
    after = make_backend(service, tmp_path, device="ibm_torino", corrects_readout=True)
    assert after.run(circuits).job_id == "job-1"
    assert after.run(replace(flips([9, 3, 12]), shots=50)).job_id == "job-1,job-2"
    today = after.readout_errors(replace(flips([9, 3, 12]), shots=50)).one_given_zero
    assert (np.abs(at_that_time - today[:2]) > 1e-3).any(axis=1).all()
    np.testing.assert_allclose(used[0].one_given_zero, at_that_time, atol=1e-6)
    np.testing.assert_allclose(used[1].one_given_zero, [*at_that_time, today[2]], atol=1e-6)


def record_corrections(monkeypatch: pytest.MonkeyPatch) -> list[ReadoutErrors]:
    """Fills with the errors by which bits were corrected."""
    used: list[ReadoutErrors] = []

    def correct(bits: np.ndarray, errors: ReadoutErrors, seeds: np.ndarray) -> np.ndarray:
        used.append(errors)
        return correct_bits(bits, errors, seeds)

    monkeypatch.setattr(ibm_backend, "correct_bits", correct)
    return used
