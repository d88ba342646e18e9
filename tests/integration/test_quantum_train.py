"""Teams of agents over a real Ray: the same numbers as in one process, and no round that a dead agent stops."""

import os
import signal

import numpy as np
import pytest

from cluster.quantum_train.build import LEADER, make_learner, task_spec
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.quantum_train.team import LocalTeam
from cluster.quantum_train.training import TeamTraining
from learner.quantum_train.config import GeneratorConfig, LearningConfig

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def runtime():
    from cluster.ray_runtime import ray_runtime

    with ray_runtime() as started:
        yield started


def test_ray_gives_the_numbers_of_one_process_and_survives_a_killed_agent(runtime):
    from cluster.quantum_train.ray_team import RayTeam

    config = QuantumTrainRunConfig(
        num_agents=2,
        hidden_sizes=(8,),
        episodes_per_round=2,
        generator=GeneratorConfig(depth=1, mapping_hidden=(4,)),
        learning=LearningConfig(num_epochs=2),
    )
    local, remote = LocalTeam(config), RayTeam(config, runtime.actor_options)
    try:
        here, there = (TeamTraining(config, make_learner(config, task_spec(config), LEADER)) for _ in range(2))
        here.run_round(local)
        there.run_round(remote)
        np.testing.assert_allclose(there.states[0].vector, here.states[0].vector, atol=1e-6)

        os.kill(remote.process_ids()[1], signal.SIGKILL)
        report = there.run_round(remote)
        assert sorted(report.agents) == [0]
        assert remote.num_restarts == 1
        assert sorted(there.run_round(remote).agents) == [0, 1]
    finally:
        local.close()
        remote.close()
