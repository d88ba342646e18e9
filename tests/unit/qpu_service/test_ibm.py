"""The IBM backend on simulated devices, for real: local testing mode, no network, no money. About 10 s."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from qpu_service.backends.registry import make_backend
from qpu_service.errors import BackendUnavailableError, InvalidCircuitError
from qpu_service.ibm import redaction
from qpu_service.ibm.config import IBMConfig
from qpu_service.ibm.connect import make_ibm_backend
from qpu_service.ibm.local import LocalRuntime
from qpu_service.ibm.samplers import sampler_class
from qpu_service.ibm.usage import MAX_EXECUTIONS, UsageModel, split_into_jobs
from qpu_service.types import circuit_seeds
from tests.conformance.circuits import exact_probabilities, outcome_index, random_circuits
from tests.unit.qpu_service.ibm_process import assert_right, flips
from tests.unit.qpu_service.ibm_process import make_backend as make_backend_process
from tests.unit.qpu_service.ibm_service import SECONDS_PER_JOB, Killed, ScriptedService


def local(device: str, **more: str) -> Any:
    return make_ibm_backend(environment={"QPU_DEVICE": device, **more})


def law_statistic(bits: np.ndarray, probabilities: np.ndarray) -> tuple[float, float]:
    """Pearson's statistic over outcomes, and the limit that a right law exceeds with probability 1e-9."""
    counts = np.bincount(outcome_index(bits), minlength=len(probabilities))
    expected = probabilities * len(bits)
    kept = expected > 5
    statistic = float(np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept]))
    return statistic, float(chi2.isf(1e-9, max(1, int(kept.sum()))))


@pytest.mark.parametrize("sampler", ["legacy", "executor"])
@pytest.mark.parametrize("device", ["ideal_torino", "ideal_sherbrooke", "ideal_fractional"])
def test_a_device_without_noise_follows_qiskits_statevector(device: str, sampler: str) -> None:
    circuits = random_circuits(3, 3, 4, shots=4000, seed=8)
    backend = local(device, QPU_SAMPLER=sampler, QPU_FRACTIONAL_GATES="1" if "fractional" in device else "0")
    measured = backend.run(circuits)
    assert measured.backend_name == f"ibm:{device}"
    for row, probabilities in enumerate(exact_probabilities(circuits)):
        statistic, limit = law_statistic(measured.bits[row], probabilities)
        assert statistic < limit
    backend.close()


def test_noise_of_a_133_qubit_device_shows_and_is_small() -> None:
    circuits = random_circuits(2, 3, 4, shots=4000)
    angles = np.zeros_like(circuits.angles)
    angles[:, 0, :, 0] = np.pi
    backend = local("fake_torino")
    ones = backend.run(replace(circuits, angles=angles)).bits
    assert (local("ideal_torino").run(replace(circuits, angles=angles)).bits == 1).all()
    # The best readouts of this device err in 0.5 %: 24,000 bits without 48 errors have a probability below 1e-9.
    assert 0.002 < 1 - ones.mean() < 0.05
    errors = backend.readout_errors(circuits)
    assert errors.one_given_zero.shape == (2, 3)
    assert (errors.one_given_zero > 0.002).all()
    assert (errors.one_given_zero < 0.05).all()
    backend.close()


def test_the_registry_makes_it() -> None:
    backend = make_backend("ibm", device="ideal_torino")
    assert backend.name == "ibm:ideal_torino"
    assert backend.run(random_circuits(2, 3, 2)).bits.shape == (2, 1, 3)
    backend.close()
    backend.close()


def test_seeds_decide_the_bits_and_other_seeds_give_others() -> None:
    circuits = random_circuits(3, 4, 3, shots=60)
    backend = local("ideal_torino")
    first = backend.run(circuits).bits
    assert (backend.run(circuits).bits == first).all()
    assert (local("ideal_torino").run(circuits).bits == first).all()
    assert (backend.run(replace(circuits, seeds=circuit_seeds(9, 3))).bits != first).any(axis=(1, 2)).all()


def test_a_simulation_leaves_journal_and_budget_of_real_devices_alone(tmp_path: Path) -> None:
    service = ScriptedService()
    service.script["result"] = [Killed()]
    with pytest.raises(Killed):
        make_backend_process(service, tmp_path).run(flips([9, 3]))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for _ in range(2):
        simulated = local("ideal_manila", QPU_JOURNAL_DIR=str(tmp_path), QPU_BUDGET_JOBS="1", QPU_BUDGET_SECONDS="1")
        assert_right(simulated.run(flips([9, 3])).bits, [9, 3])
        assert_right(simulated.run(flips([6], seed=6)).bits, [6])
        simulated.close()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    real = make_backend_process(service, tmp_path)
    assert real.run(flips([9, 3])).job_id == "job-1"
    assert (real.spending().jobs, real.spending().spent_s) == (1, SECONDS_PER_JOB)


def test_readout_errors_are_taken_out_where_that_is_asked_for() -> None:
    """Prepared 0 and 1: a mean's standard error is 0.003 at most, the errors of fake_manila are 0.02 to 0.04."""
    numbers = [0, 15, 5]
    circuits = replace(flips(numbers), shots=4_000, entangler_pairs=np.zeros((3, 3, 2), np.int16))
    truth = np.array(numbers)[:, None] >> np.arange(4) & 1
    wrong = {}
    for flag in ("0", "1"):
        backend = local("fake_manila", QPU_READOUT_MITIGATION=flag)
        measured = backend.run(circuits)
        assert (backend.run(circuits).bits == measured.bits).all(), "asking again gives the same bits"
        wrong[flag] = np.abs(measured.bits.mean(axis=1) - truth).mean()
        backend.close()
    assert wrong["0"] > 0.015
    assert wrong["1"] < wrong["0"] / 3


def test_a_simulation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    backend = local("ideal_torino")
    backend.run(random_circuits(1, 2, 1))
    assert list(tmp_path.iterdir())
    backend.close()
    assert list(tmp_path.iterdir()) == []


def test_more_qubits_than_a_device_has_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="no connected region of 6"):
        local("ideal_manila").run(random_circuits(1, 6, 1))


def test_unknown_devices_and_missing_fractional_gates_are_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="fake_atlantis"):
        local("fake_atlantis")
    with pytest.raises(BackendUnavailableError, match="no fractional gates"):
        local("fake_torino", QPU_FRACTIONAL_GATES="1")


def test_only_the_noise_of_the_qubits_in_use_is_simulated() -> None:
    runtime = LocalRuntime(IBMConfig(device="fake_torino"))
    runtime.prepare((0, 1, 2))
    assert runtime._simulator is not None
    noise = runtime._simulator.options.noise_model
    assert {qubit for qubits in noise._local_readout_errors for qubit in qubits} == {0, 1, 2}


# Without a token, without a budget, with nonsense in the environment: nothing is connected to.


@pytest.mark.parametrize("device", ["", "ibm_fez"])
def test_hardware_needs_a_token(device: str) -> None:
    with pytest.raises(BackendUnavailableError, match=r"QISKIT_IBM_TOKEN, which is not set.*fake_torino"):
        make_ibm_backend(environment={"QPU_DEVICE": device})


def test_hardware_needs_a_budget() -> None:
    def connect(**_: object) -> None:
        raise AssertionError

    with pytest.raises(BackendUnavailableError, match="no budget is set; set QPU_BUDGET_SECONDS"):
        make_ibm_backend(environment={"QISKIT_IBM_TOKEN": "t" * 20}, make_service=connect)


def test_a_service_that_refuses_is_a_clear_error_without_the_token(tmp_path: Path) -> None:
    token = "canary-token-0123456789"  # noqa: S105 - made up

    def connect(**given: Any) -> None:
        assert given["token"] == token
        assert given["channel"] == "ibm_quantum_platform"
        raise RuntimeError(f"no luck with {given['token']}")

    environment = {"QISKIT_IBM_TOKEN": token, "QPU_BUDGET_JOBS": "1", "QPU_JOURNAL_DIR": str(tmp_path)}
    with pytest.raises(BackendUnavailableError, match=r"no luck with \[secret\].*QISKIT_IBM_TOKEN") as raised:
        make_ibm_backend("ibm_fez", environment=environment, make_service=connect)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.fixture
def _restored_logging() -> Iterator[None]:
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.usefixtures("_restored_logging")
def test_a_protected_secret_is_in_no_record_of_any_logger(caplog: pytest.LogCaptureFixture) -> None:
    redaction.protect("my-secret-key-1")
    caplog.set_level(logging.DEBUG)
    logging.getLogger("somebody.else").debug("key=%s", "my-secret-key-1")
    logging.getLogger("somebody.else").debug("nothing to hide: %d", 7)
    try:
        raise ValueError("my-secret-key-1 is wrong")
    except ValueError:
        logging.getLogger("somebody.else").exception("failed")
    shown = "".join(logging.Formatter().format(record) for record in caplog.records)
    assert "my-secret-key-1" not in shown
    assert shown.count("[secret]") == 3  # the argument, the exception, and the line that raised it
    assert "nothing to hide: 7" in shown


@pytest.mark.usefixtures("_restored_logging")
def test_the_clients_loggers_stay_above_debug() -> None:
    logging.getLogger("qiskit_ibm_runtime").setLevel(logging.DEBUG)
    redaction.protect("my-secret-key-1")
    assert not logging.getLogger("qiskit_ibm_runtime.api.session").isEnabledFor(logging.DEBUG)


def test_simulated_jobs_have_no_budget() -> None:
    backend = local("ideal_torino", QPU_BUDGET_JOBS="1", QPU_BUDGET_SECONDS="0")
    for seed in (1, 2):
        backend.run(random_circuits(1, 3, 2, seed=seed))
    assert (backend.health().budget_left_s, backend.health().budget_left_jobs) == (None, None)
    backend.close()


def test_a_missing_sampler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import qiskit_ibm_runtime

    assert sampler_class("auto").__name__ == "SamplerV2"
    monkeypatch.delattr(qiskit_ibm_runtime, "SamplerV2")
    assert sampler_class("auto").__module__ == "qiskit_ibm_runtime.executor_sampler.sampler"
    with pytest.raises(BackendUnavailableError, match="no legacy sampler"):
        sampler_class("legacy")


# What a job costs and may hold.


def test_usage_is_ibms_quick_formula() -> None:
    model = UsageModel()
    assert model.seconds(executions=10_000) == pytest.approx(2 + 0.00035 * 10_000)
    assert model.seconds(executions=10, jobs=5) == pytest.approx(10 + 0.0035)


def test_jobs_hold_at_most_what_ibm_allows() -> None:
    loads, sizes = np.full((10, 2), 100), np.full(10, 10)
    assert split_into_jobs(loads, sizes, MAX_EXECUTIONS // 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    loads[:, 1] = 13_400_000
    assert split_into_jobs(loads, sizes, 1) == [slice(n, n + 2) for n in range(0, 10, 2)]
    assert split_into_jobs(loads // 1000, sizes * 100_000, 1) == [slice(n, n + 2) for n in range(0, 10, 2)]
    assert split_into_jobs(loads[:0], sizes[:0], 1) == []


def test_a_circuit_that_fits_into_no_job_is_refused() -> None:
    with pytest.raises(InvalidCircuitError, match="circuit 1 with 5 instructions and 3 shots does not fit"):
        split_into_jobs(np.array([[1], [26_800_001]]), np.array([4, 5]), 3)
