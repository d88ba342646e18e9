"""The agent learns: a small circuit in the policy balances the pendulum within the preset's steps."""

import dataclasses
import io

import pytest

from actors.config import EvaluationConfig
from cluster.command_train import resolve_backend
from cluster.presets import get_preset
from cluster.progress import Progress
from cluster.run_directory import create_run_directory
from cluster.synchronous import train_synchronous
from learner.config import PolicyConfig
from qpu_service.circuit import CircuitShape

RANDOM_RETURN = -1200.0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_of_three_seeds_reach_the_bar(tmp_path, seed):
    preset = get_preset("pendulum")
    config = resolve_backend(
        dataclasses.replace(
            preset,
            seed=seed,
            run_dir=tmp_path / "run",
            synchronous=True,
            num_threads=1,
            policy=PolicyConfig(circuit=CircuitShape(num_qubits=4, num_layers=3)),
            evaluation=EvaluationConfig(period_steps=1_000),
        )
    )
    run = create_run_directory(config, "pendulum")
    session = train_synchronous(config, run, None, Progress(io.StringIO()), lambda: False)
    assert session.env_step <= preset.total_steps
    assert min(session.rounds.returns[-2:]) >= preset.stop_return > RANDOM_RETURN
