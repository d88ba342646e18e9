"""Cutting steps into segments, and keeping unfinished ones across a restart."""

import numpy as np

from actors.segments import SegmentBuilder, Step
from replay.types import Segment, TransitionSpec

SPEC = TransitionSpec(observation_size=2, action_size=1, circuit_parameters_size=3, num_bits=2)


def step(t):
    return Step(
        observation=np.full(2, t, np.float32),
        action=np.full(1, t + 0.5, np.float32),
        reward=float(t),
        discount=1.0,
        circuit_parameters=np.full(3, t + 0.25, np.float32),
        bits=np.array([t % 2, 1], np.uint8),
        policy_version=2**32 - 1 - t,
    )


def builder_with(count):
    builder = SegmentBuilder()
    for t in range(count):
        builder.append(step(t))
    return builder


def test_cut_gives_valid_columns_and_forgets_the_steps():
    builder = builder_with(3)
    segment = Segment(actor_id=0, incarnation=1, sequence=0, **builder.cut(np.full(2, 9, np.float32)))
    segment.check(SPEC)
    assert segment.observations[:, 0].tolist() == [0, 1, 2, 9]
    assert segment.policy_versions.tolist() == [2**32 - 1, 2**32 - 2, 2**32 - 3]
    assert len(builder) == 0


def test_state_and_restore_keep_unfinished_steps():
    builder = builder_with(3)
    copy = SegmentBuilder()
    copy.restore(builder.state())
    assert len(builder) == 3, "reading the state took the steps away"
    last = np.full(2, 9, np.float32)
    restored = copy.cut(last)
    for name, column in builder.cut(last).items():
        np.testing.assert_array_equal(restored[name], column, err_msg=name)
        assert restored[name].dtype == column.dtype, name


def test_an_empty_builder_stays_empty():
    builder = builder_with(1)
    builder.restore(SegmentBuilder().state())
    assert len(builder) == 0
