import numpy as np
import pytest

from replay.errors import (
    InvalidSegmentError,
    SequenceGapError,
)
from replay.interfaces import SegmentWriter, TransitionSource
from replay.memory_replay import MemoryReplay
from replay.rate_limiter import SampleToInsertRatio
from replay.types import ReplayCounts
from tests.unit.replay.segments import SPEC, make_segment

LIMITER = SampleToInsertRatio(2.0, 8, 16.0)


def make_replay(capacity: int = 20, journal=None) -> MemoryReplay:
    return MemoryReplay(SPEC, LIMITER, capacity, journal)


def test_satisfies_both_interfaces():
    replay = make_replay()
    writer: SegmentWriter = replay
    source: TransitionSource = replay
    assert writer.insert(make_segment()).is_new
    assert source.refresh() == ReplayCounts(inserted=4, sampled=0)


def test_a_retry_changes_nothing():
    replay = make_replay()
    first = make_segment(sequence=0)
    assert replay.insert(first).is_new
    assert replay.insert(make_segment(sequence=1)).is_new
    late = replay.insert(first)
    assert not late.is_new
    assert late.counts == ReplayCounts(inserted=8, sampled=0)
    assert len(replay) == 8


def test_actors_and_incarnations_count_apart():
    replay = make_replay()
    assert replay.register_actor(3) == 1
    assert replay.register_actor(3) == 2
    for actor_id, incarnation in ((3, 1), (3, 2), (4, 1)):
        assert replay.insert(make_segment(actor_id=actor_id, incarnation=incarnation)).is_new
    assert len(replay) == 12


def test_a_gap_is_an_error():
    replay = make_replay()
    replay.insert(make_segment(sequence=0))
    with pytest.raises(SequenceGapError) as caught:
        replay.insert(make_segment(actor_id=0, sequence=2))
    for part in ["actor 0", "incarnation 1", "sent sequence 2", "expected 1", "register the actor again"]:
        assert part in str(caught.value)
    assert replay.insert(make_segment(sequence=1)).is_new


@pytest.mark.parametrize(
    ("segment", "part"),
    [
        (make_segment(21), "21 transitions does not fit a replay of 20"),
        (make_segment(rewards=np.full(4, np.nan, np.float32)), "rewards of actor 0 is not finite at step 0"),
        (make_segment(actions=np.zeros((4, 9), np.float32)), "actions of actor 0 must be float32 (4, 2)"),
    ],
    ids=["length", "nan", "shape"],
)
def test_refused_segments_leave_no_trace(segment, part, tmp_path):
    replay = make_replay(journal=tmp_path / "journal")
    with pytest.raises(InvalidSegmentError) as caught:
        replay.insert(segment)
    assert part in str(caught.value)
    assert len(replay) == 0
    assert replay.state()["journal_offset"] == 0
    assert replay.insert(make_segment(sequence=0)).is_new


def test_limiter_and_policy_version_are_in_the_reply():
    replay = make_replay()
    assert replay.insert(make_segment(sequence=0)).can_insert
    assert not replay.can_sample(1)
    replay.announce_policy_version(7)
    # Excess may be 16; after 16 transitions it is (16 - 8) · 2 = 16, another 4 would make it 24.
    replies = [replay.insert(make_segment(sequence=s)) for s in (1, 2, 3)]
    assert [reply.can_insert for reply in replies] == [True, True, False]
    assert replay.poll().policy_version == 7
    assert replay.can_sample(32)
    assert not replay.can_sample(33)
    replay.sample(8, np.random.default_rng(0))
    assert replay.poll().can_insert
    assert replay.poll().counts == ReplayCounts(inserted=16, sampled=8)


def test_imports_neither_redis_nor_ray():
    import subprocess
    import sys

    code = (
        "import sys, replay.memory_replay; sys.exit(sum(m in sys.modules for m in ('redis', 'ray', 'torch', 'numba')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
