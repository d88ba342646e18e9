"""``hdqnn doctor`` and the configured QPU backend: a circuit is really measured, and no secret is shown. About 5 s."""

import pytest

from cluster import command_doctor
from qpu_service.errors import BackendUnavailableError
from tests.integration.ibm_http import DEVICE, FakeIBM

TOKEN = "canary-api-key-77aa"  # noqa: S105 - made up, so that it can be looked for


@pytest.fixture
def qpu(monkeypatch, tmp_path):
    """Configure the backend; returns what doctor says of it."""

    def check(backend, device=None, **environment):
        monkeypatch.setenv("QPU_BACKEND", backend)
        monkeypatch.setenv("QPU_JOURNAL_DIR", str(tmp_path))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if device is None:
            monkeypatch.delenv("QPU_DEVICE", raising=False)
        else:
            monkeypatch.setenv("QPU_DEVICE", device)
        return command_doctor._backend()

    return check


def test_every_configured_backend_measures_the_known_circuit(qpu):
    said = qpu("statevector,ibm", ",fake_manila")
    assert said.startswith("statevector: known circuit right in 100.0% of the bits, ibm on fake_manila: known circuit")


def test_every_call_measures_anew(qpu, tmp_path):
    with FakeIBM() as ibm:
        ibm.polls_before_done = 0
        for _ in range(2):
            qpu("ibm", DEVICE, **ibm.environment(tmp_path))
        assert len(ibm.jobs) == 2


def test_bits_in_the_wrong_order_are_noticed(qpu, monkeypatch):
    from dataclasses import replace

    from qpu_service.backends.statevector import StatevectorBackend

    run = StatevectorBackend.run

    def reversed_bits(self, circuits):
        measured = run(self, circuits)
        return replace(measured, bits=measured.bits[..., ::-1].copy())

    monkeypatch.setattr(StatevectorBackend, "run", reversed_bits)
    with pytest.raises(RuntimeError, match="statevector measured the known circuit right in 0% of the bits"):
        qpu("statevector")


def test_no_secret_is_shown(qpu, monkeypatch, capsys):
    def refuse(*_, **named):
        raise ConnectionError(f"401 for apikey={named['token']}")

    monkeypatch.setattr("qpu_service.ibm.connect._client_service", lambda: refuse)
    settings = {"QISKIT_IBM_TOKEN": TOKEN, "QPU_BUDGET_SECONDS": "1"}
    with pytest.raises(BackendUnavailableError):
        qpu("ibm", "ibm_x", **settings)
    for name in ("_packages", "_learner", "_replay_server", "_ray"):
        monkeypatch.setattr(command_doctor, name, lambda: "skipped")
    monkeypatch.setattr(command_doctor, "_environment", lambda _: "skipped")
    assert command_doctor.run([]) == 1
    said = capsys.readouterr()
    assert "FAIL  QPU backend" in said.out
    assert TOKEN not in said.out + said.err
