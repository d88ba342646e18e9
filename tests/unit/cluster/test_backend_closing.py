"""Whoever makes a QPU backend closes it, also when its run fails: a paid session stays open otherwise. About 10 s."""

import dataclasses
import io

import pytest

import cluster.command_evaluate
import cluster.synchronous
from actors.environment import agent_spec
from cluster.build import make_learner
from cluster.policy_file import write_policy
from cluster.presets import get_preset
from cluster.progress import Progress
from cluster.run_directory import create_run_directory
from learner.parameters import VersionedParameters
from qpu_service.backends.statevector import StatevectorBackend
from qpu_service.errors import BackendFailedError


class Backend:
    """Real circuits; fails in run ``failing_run``, and is not asked after it was closed."""

    name = "statevector"

    def __init__(self, failing_run=None):
        self._simulator, self._failing_run = StatevectorBackend(), failing_run
        self.runs, self.closed = 0, 0

    def run(self, circuits):
        assert not self.closed
        self.runs += 1
        if self.runs == self._failing_run:
            raise BackendFailedError("the cryostat is warm")
        return self._simulator.run(circuits)

    def close(self):
        self.closed += 1
        self._simulator.close()


@pytest.fixture
def config():
    smoke = get_preset("smoke")
    circuit = dataclasses.replace(smoke.policy.circuit, num_qubits=3, num_layers=2)
    return dataclasses.replace(
        smoke,
        policy=dataclasses.replace(smoke.policy, circuit=circuit, hidden_size=16),
        total_steps=20,
        synchronous=True,
        backend="statevector",
        num_threads=1,
        compile=False,
        evaluation=dataclasses.replace(smoke.evaluation, period_steps=20, num_episodes=1),
    )


@pytest.mark.parametrize("failing_run", [None, 1, 7])
def test_evaluate_closes_its_backend(config, tmp_path, monkeypatch, capsys, failing_run):
    arrays = make_learner(config, agent_spec(config.env_id)).policy_parameters()
    write_policy(tmp_path / "policy", config, VersionedParameters(version=1, arrays=arrays, env_step=1, update_step=1))
    backend = Backend(failing_run)
    monkeypatch.setattr(cluster.command_evaluate, "make_backend", lambda *_args, **_named: backend)
    monkeypatch.delenv("QPU_BACKEND", raising=False)
    arguments = [str(tmp_path / "policy"), "--episodes", "1"]
    if failing_run is None:
        assert cluster.command_evaluate.run(arguments) == 0
        assert "mean return" in capsys.readouterr().out
    else:
        with pytest.raises(BackendFailedError, match="cryostat"):
            cluster.command_evaluate.run(arguments)
    assert backend.closed == 1


@pytest.mark.parametrize("failing_run", [None, 1, 7])
def test_a_lockstep_run_closes_its_backend(config, tmp_path, monkeypatch, failing_run):
    config = dataclasses.replace(
        config, run_dir=tmp_path / "run", td3=dataclasses.replace(config.td3, learning_starts=8)
    )
    backend = Backend(failing_run)
    monkeypatch.setattr(cluster.synchronous, "make_backend", lambda *_args, **_named: backend)
    arguments = (config, create_run_directory(config, ""), None, Progress(io.StringIO()), lambda: False)
    if failing_run is None:
        assert cluster.synchronous.train_synchronous(*arguments).is_done
    else:
        with pytest.raises(BackendFailedError, match="cryostat"):
            cluster.synchronous.train_synchronous(*arguments)
    assert backend.closed == 1


def test_a_lockstep_run_that_cannot_begin_closes_its_backend(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, run_dir=tmp_path / "run")
    backend = Backend()
    monkeypatch.setattr(cluster.synchronous, "make_backend", lambda *_args, **_named: backend)
    run = create_run_directory(config, "")
    run.replay.write_text("a file where the replay is to be")
    with pytest.raises(OSError, match="replay"):
        cluster.synchronous.train_synchronous(config, run, None, Progress(io.StringIO()), lambda: False)
    assert backend.closed == 1
