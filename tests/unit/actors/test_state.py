"""A lockstep rollout that is saved and rebuilt goes on bit for bit."""

import json

import numpy as np
import pytest
from safetensors.torch import load, save

from actors.environment import agent_spec
from actors.state import restore_rollout, rollout_state
from learner.parameters import ParameterBoard
from tests.environments import PREFIX
from tests.unit.actors.fakes import COUNTING, RecordingWriter, transition_spec
from tests.unit.actors.rollouts import advance, make_policy, make_rollout, publish
from tests.unit.replay.segments import assert_same_segment

CASES = {
    # Counting's start depends on the instance's history, so it cannot be rebuilt; Seeded's depends on the seed alone.
    "short episodes": {"env_id": f"{PREFIX}Seeded-v0", "spec": agent_spec(f"{PREFIX}Seeded-v0")},
    "random start": {"env_id": "Pendulum-v1", "spec": agent_spec("Pendulum-v1"), "block": "random_bits"},
    "MuJoCo": {"env_id": "Hopper-v4", "spec": agent_spec("Hopper-v4")},
    "held noise": {"env_id": "Hopper-v4", "spec": agent_spec("Hopper-v4"), "longest_noise_hold": 5},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("num_rounds", [1, 3, 37])
def test_a_rebuilt_rollout_goes_on_bit_for_bit(case, num_rounds):
    board = ParameterBoard()
    settings = {**case, "num_envs": 3, "num_lanes": 2, "segment_length": 5, "learning_starts": 40, "board": board}
    original, writer, _ = make_rollout(**settings)
    policy = make_policy(case["spec"], case.get("block", "pqc"), seed=4)
    publish(board, writer, policy, version=2)
    advance(original, num_rounds)
    tensors, scalars = rollout_state(original)
    # Through the formats of a checkpoint, because that is where types get lost.
    tensors, scalars = load(save(tensors)), json.loads(json.dumps(scalars))

    already = RecordingWriter(writer.spec, inserted=writer.inserted, policy_version=writer.policy_version)
    # Nobody publishes again: the parameters that acted, and their version, come from the saved state alone.
    rebuilt, other_writer, _ = make_rollout(**{**settings, "board": ParameterBoard()}, writer=already)
    restore_rollout(rebuilt, tensors, scalars)
    before = len(writer.segments)
    advance(original, 40)
    advance(rebuilt, 40)
    assert len(other_writer.segments) > 10
    for first, second in zip(writer.segments[before:], other_writer.segments, strict=True):
        assert_same_segment(first, second)
    assert original.take_episodes() == rebuilt.take_episodes()
    assert original.take_returns() == rebuilt.take_returns()


def test_a_rollout_that_waits_for_bits_is_not_saved():
    rollout, _, _ = make_rollout()
    rollout.begin(rollout.lanes[0])
    with pytest.raises(ValueError, match="lane 0 waits for bits"):
        rollout_state(rollout)


def test_reading_the_state_changes_nothing():
    def segments(*, is_read):
        rollout, writer, _ = make_rollout(
            num_envs=2, writer=RecordingWriter(transition_spec(COUNTING)), segment_length=3
        )
        for _ in range(6):
            advance(rollout, 1)
            if is_read:
                for tensor in rollout_state(rollout)[0].values():
                    tensor.zero_()
        return writer.segments

    for plain, read in zip(segments(is_read=False), segments(is_read=True), strict=True):
        assert_same_segment(plain, read)
        assert np.any(read.observations)
