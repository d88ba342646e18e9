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


def test_agents_that_go_on_to_the_next_average_give_the_numbers_of_one_process(runtime):
    from cluster.quantum_train.ray_team import RayTeam

    config = QuantumTrainRunConfig(
        num_agents=2,
        hidden_sizes=(8,),
        episodes_per_round=2,
        generator=GeneratorConfig(depth=1, mapping_hidden=(4,)),
        sharing="parameters",
        sync_period_rounds=3,
    )
    local, remote = LocalTeam(config), RayTeam(config, runtime.actor_options)
    try:
        here, there = (TeamTraining(config, make_learner(config, task_spec(config), LEADER)) for _ in range(2))
        for _ in range(5):
            expected, found = here.run_round(local), there.run_round(remote)
            assert {i: report.returns for i, report in found.agents.items()} == {
                i: report.returns for i, report in expected.agents.items()
            }
            for ours, theirs in zip(there.states, here.states, strict=True):
                np.testing.assert_array_equal(ours.vector, theirs.vector)

        # In the middle of a period: a round that it has finished by now still counts, the next one goes on without it.
        os.kill(remote.process_ids()[1], signal.SIGKILL)
        answering = [sorted(there.run_round(remote).agents) for _ in range(4)]
        assert sorted(answering) == [[0], [0, 1], [0, 1], [0, 1]]
        assert answering[-1] == [0, 1]
        assert remote.num_restarts == 1
    finally:
        local.close()
        remote.close()
