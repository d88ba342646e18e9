"""What the policy acts on and what the surrogate learns from, for each way to read several shots."""

import numpy as np
import pytest
import torch

from actors.policy import ActingPolicy
from learner.config import AgentSpec
from qpu_service.config import QPUConfig
from qpu_service.types import MeasurementBatch
from tests.unit.actors.fakes import POLICY

SPEC = AgentSpec(observation_size=2, action_low=(-1.0,), action_high=(1.0,))
SHOTS = np.array([[[1, 0, 0], [0, 1, 1], [0, 1, 1], [0, 1, 0]]], np.uint8)


class FixedShots:
    """Answers every request with the same four shots."""

    def submit(self, circuits):
        assert circuits.shots == 4
        assert len(circuits) == 1
        return self

    def result(self, timeout_s=None):
        return MeasurementBatch(bits=SHOTS, request_id="", backend_name="fixed")


@pytest.mark.parametrize(
    ("readout", "acts_on", "stored"),
    [
        ("sample", [1, 0, 0], [1, 0, 0]),
        ("most_probable", [0, 1, 1], [0, 1, 1]),
        ("mean", [0.25, 0.75, 0.5], [1, 0, 0]),
    ],
)
def test_readout(readout, acts_on, stored):
    torch.manual_seed(0)
    policy = ActingPolicy(SPEC, POLICY, "pqc", FixedShots(), np.random.default_rng(0), shots=4, readout=readout)
    pending = policy.begin(np.zeros((1, 2), np.float32))
    output = policy.finish(pending)
    assert output.bits.tolist() == [stored]
    assert output.bits.dtype == np.uint8
    expected = policy.network.decode(torch.tensor([acts_on], dtype=torch.float32), pending.links)
    np.testing.assert_array_equal(output.action, expected.detach().numpy())


def test_one_shot_has_nothing_to_reduce():
    with pytest.raises(ValueError, match=r"readout 'mean' needs several shots, got shots = 1; set qpu\.shots"):
        QPUConfig(readout="mean")
