"""Agents over a Ray of the test's own: who fails again and again ends the run, who waits for a machine does not."""

import numpy as np
import pytest

from cluster.errors import RunFailedError
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.quantum_train.ray_team import RayTeam
from tests.unit.cluster.fake_ray import FakeRay, Handle, has_process

SILENT = 1


class TwoAgents(FakeRay):
    """Agent 0 answers at once, agent 1 never."""

    def __init__(self, *, is_placed):
        super().__init__(on_wait=self._answer)
        self.started, self._is_placed = [], is_placed

    def remote(self, _):
        return self

    def options(self, **_):
        def start(_, agent_id):
            self.started.append(Handle(agent_id))
            self.started[-1].is_placed = self._is_placed or agent_id != SILENT
            return self.started[-1]

        return type("Agent", (), {"remote": staticmethod(lambda *arguments: start(*arguments))})

    def put(self, value):
        return value

    def _answer(self, call):
        (handle,) = (one for one in self.started if call in one.calls)
        if handle.name != SILENT:
            call.answer = "gradient"


def team_over(monkeypatch, fake):
    monkeypatch.setattr("cluster.quantum_train.ray_team.ray", fake)
    return RayTeam(QuantumTrainRunConfig(num_agents=2, agent_timeout_s=0.01), {"num_cpus": 1}, has_process)


def test_an_agent_that_waits_for_a_machine_is_left_out_of_rounds_and_has_not_failed(monkeypatch):
    fake = TwoAgents(is_placed=False)
    team = team_over(monkeypatch, fake)
    for _ in range(8):
        assert team.gradients(np.zeros(3, np.float32), [0, SILENT]) == {0: "gradient"}
    assert team.num_restarts == 0
    # Nothing of the rounds before waits for it: only the newest handle of it is alive, and was not asked yet.
    alive = [handle for handle in fake.started if not handle.is_killed]
    assert [(handle.name, len(handle.calls)) for handle in alive] == [(0, 8), (SILENT, 0)]


def test_an_agent_that_has_a_machine_and_stays_silent_ends_the_run(monkeypatch):
    team = team_over(monkeypatch, TwoAgents(is_placed=True))
    for _ in range(4):
        team.gradients(np.zeros(3, np.float32), [0, SILENT])
    with pytest.raises(RunFailedError, match="agent 1 failed 5 times in a row, the last time with: no answer for 0 s"):
        team.gradients(np.zeros(3, np.float32), [0, SILENT])
    assert team.num_restarts == 5
