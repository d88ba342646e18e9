"""Settings of the IBM backend: where they come from, what is refused, that reading them costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from qpu_service.budget import BudgetLimits
from qpu_service.errors import BackendUnavailableError
from qpu_service.ibm.config import IBMConfig, config_from_environment, default_journal_dir


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    config = config_from_environment(
        None,
        {
            "QPU_DEVICE": "ibm_fez",
            "QPU_MODE": "batch",
            "QPU_SAMPLER": "executor",
            "QPU_FRACTIONAL_GATES": "1",
            "QPU_READOUT_MITIGATION": "1",
            "QPU_DEADLINE_SECONDS": "60",
            "QPU_BUDGET_SECONDS": "12.5",
            "QPU_BUDGET_JOBS": "3",
            "QPU_JOURNAL_DIR": str(tmp_path),
            "QPU_REP_DELAY_SECONDS": "0.0001",
        },
    )
    assert config == IBMConfig(
        device="ibm_fez",
        mode="batch",
        sampler="executor",
        use_fractional_gates=True,
        corrects_readout=True,
        deadline_s=60.0,
        budget=BudgetLimits(seconds=12.5, jobs=3),
        journal_dir=tmp_path,
        repetition_delay_s=0.0001,
    )
    assert not config.is_local


def test_an_empty_environment_is_the_least_busy_device_in_job_mode() -> None:
    config = config_from_environment(None, {"QPU_DEVICE": " "})
    assert config == IBMConfig()
    assert (config.device, config.mode, config.has_budget) == (None, "job", False)


def test_an_argument_overrides_the_environments_device() -> None:
    assert config_from_environment("fake_fez", {"QPU_DEVICE": "ibm_fez"}).device == "fake_fez"


@pytest.mark.parametrize(
    ("device", "named", "accepted"),
    [
        (None, "", None),
        (None, "ibm_fez", {"ibm_fez"}),
        ("ibm_fez", "ibm_fez, ibm_torino,", {"ibm_fez", "ibm_torino"}),
        ("ibm_fez", "ibm_torino", {"ibm_fez"}),
        (None, "ibm_fez,", None),
    ],
)
def test_bits_of_the_devices_that_were_named_will_do(device: str | None, named: str, accepted: set[str] | None) -> None:
    config = config_from_environment(device, {"QPU_DEVICE": named})
    assert config.accepted_devices == accepted
    assert "," not in (config.device or "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("QPU_MODE", "turbo", "mode must be one of job, batch, session, got 'turbo'"),
        ("QPU_SAMPLER", "old", "sampler must be one of auto, legacy, executor"),
        ("QPU_FRACTIONAL_GATES", "maybe", "QPU_FRACTIONAL_GATES must be 1 or 0, got 'maybe'"),
        ("QPU_BUDGET_SECONDS", "ten", "QPU_BUDGET_SECONDS must be a number, got 'ten'"),
        ("QPU_BUDGET_SECONDS", "-1", "must be finite and 0 or more, got -1.0"),
        ("QPU_DEADLINE_SECONDS", "0", "deadline_s must be positive"),
        ("QPU_REP_DELAY_SECONDS", "-1", "repetition_delay_s must be 0 or more"),
    ],
)
def test_impossible_settings_are_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(BackendUnavailableError, match=message):
        config_from_environment("fake_fez", {name: value})


def test_the_journal_has_a_home(tmp_path: Path) -> None:
    assert default_journal_dir({"XDG_STATE_HOME": str(tmp_path)}) == tmp_path / "hdqnn-rl" / "ibm"
    assert default_journal_dir({}) == Path.home() / ".local" / "state" / "hdqnn-rl" / "ibm"


def test_importing_the_settings_imports_no_quantum_package() -> None:
    code = (
        "import sys, qpu_service.ibm.config, qpu_service.ibm.usage, qpu_service.retry, qpu_service.budget, "
        "qpu_service.job_journal, qpu_service.readout;"
        "print(sorted({'qiskit', 'qiskit_aer', 'qiskit_ibm_runtime'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
