"""What writers and the learner see of each other through a real server."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from replay.codec import frame_bytes
from replay.errors import (
    InvalidSegmentError,
    ReplayConfigError,
    ReplayError,
    ReplayLostError,
    SequenceGapError,
)
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.types import ReplayCounts
from tests.integration.redis_fixtures import (  # noqa: F401 - fixtures are used by name
    CAPACITY,
    LIMITER,
    client,
    held_rewards,
    learner,
    run_id,
    server,
    writer,
)
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment

pytestmark = pytest.mark.redis


def test_what_writers_insert_the_learner_samples(writer, learner):
    for sequence in range(5):
        assert writer.insert(make_segment(sequence=sequence, first=4 * sequence)).is_new
    assert len(learner) == 0
    assert learner.refresh() == ReplayCounts(inserted=20, sampled=0)
    batch = learner.sample(500, np.random.default_rng(0))
    assert set(batch.reward) == set(range(20))
    # Of make_segment: what belongs together stayed together.
    np.testing.assert_array_equal(batch.action[:, 0], batch.reward + 0.5)
    np.testing.assert_array_equal(batch.circuit_parameters[:, 3], batch.reward + 0.25)
    np.testing.assert_array_equal(batch.next_observation, batch.observation + 1)
    np.testing.assert_array_equal(batch.bits @ (2.0 ** np.arange(10)), batch.reward)
    assert writer.poll().counts == ReplayCounts(inserted=20, sampled=0)
    learner.refresh()
    assert writer.poll().counts == ReplayCounts(inserted=20, sampled=500)


def test_a_retry_changes_nothing(writer, learner):
    first = make_segment(sequence=0)
    assert writer.insert(first).is_new
    assert writer.insert(make_segment(sequence=1)).is_new
    late = writer.insert(first)
    assert not late.is_new
    assert late.counts.inserted == 8
    learner.refresh()
    assert len(learner) == 8


def test_many_in_one_round_trip_keep_their_order(writer, learner):
    assert not writer.insert_many([]).is_new
    segments = [make_segment(3, sequence=s, first=10 * s) for s in range(6)]
    reply = writer.insert_many(segments)
    assert reply.is_new
    assert reply.counts.inserted == 18
    assert not writer.insert_many(segments).is_new
    assert writer.insert_many([*segments, make_segment(sequence=6, first=100)]).is_new
    learner.refresh()
    assert held_rewards(learner) == [10 * s + t for s in range(6) for t in range(3)] + [100, 101, 102, 103]


def test_a_gap_is_an_error(writer):
    writer.insert(make_segment(actor_id=5, incarnation=2))
    with pytest.raises(SequenceGapError) as caught:
        writer.insert_many([make_segment(actor_id=5, incarnation=2, sequence=s) for s in (2, 3)])
    for part in ["actor 5", "incarnation 2", "sent sequence 2", "expected 1"]:
        assert part in str(caught.value)
    assert writer.poll().counts.inserted == 4


def test_incarnations_count_up_and_apart(writer):
    assert [writer.register_actor(7), writer.register_actor(7), writer.register_actor(8)] == [1, 2, 1]
    assert writer.insert(make_segment(actor_id=7, incarnation=1)).is_new
    assert writer.insert(make_segment(actor_id=7, incarnation=2)).is_new
    assert not writer.insert(make_segment(actor_id=7, incarnation=1)).is_new


def test_limiter_and_policy_version_are_in_the_reply(writer, learner):
    replies = [writer.insert(make_segment(sequence=s)) for s in range(4)]
    assert [reply.can_insert for reply in replies] == [True, True, True, False]
    learner.announce_policy_version(12)
    assert writer.poll().policy_version == 12
    assert not learner.can_sample(1)
    learner.refresh()
    assert learner.can_sample(32)
    assert not learner.can_sample(33)
    learner.sample(8, np.random.default_rng(0))
    assert not writer.poll().can_insert
    learner.refresh()
    assert writer.poll().can_insert


def test_old_segments_leave_the_server_and_the_mirror(writer, learner, client, run_id):
    for sequence in range(25):
        writer.insert(make_segment(4, sequence=sequence, first=4 * sequence))
    assert learner.refresh().inserted == 100
    assert held_rewards(learner) == list(range(60, 100))
    assert len(client.keys(f"hdqnn:{{{run_id}}}:segment:*")) == 10
    assert client.llen(f"hdqnn:{{{run_id}}}:lengths") == 10


def test_a_slow_learner_counts_what_it_missed(server, run_id, writer, learner, caplog):
    for sequence in range(25):
        writer.insert(make_segment(4, sequence=sequence))
    learner.refresh()
    assert learner.num_missed_segments == 15
    assert "segments fall out of the server before they are read" in caplog.text
    late = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY)
    assert late.num_missed_segments == 0
    late.close()


def test_capacity_in_bytes(server, run_id, client):
    size = frame_bytes(4, SPEC)
    writer = RedisWriter.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, capacity_bytes=3 * size)
    for sequence in range(8):
        writer.insert(make_segment(4, sequence=sequence))
    assert [client.strlen(key) for key in client.keys(f"hdqnn:{{{run_id}}}:segment:*")] == [size] * 3
    writer.close()


def test_a_restarted_learner_rebuilds_its_mirror(server, run_id, writer, learner):
    for sequence in range(15):
        writer.insert(make_segment(1 + sequence % 4, sequence=sequence, first=10 * sequence))
    learner.refresh()
    learner.set_sampled(123)
    again = RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, dataset_id=learner.dataset_id)
    assert again.counts() == learner.refresh()
    assert again.counts().sampled == 123
    assert_same_batch(again.sample(64, np.random.default_rng(4)), learner.sample(64, np.random.default_rng(4)))
    again.close()


def test_many_segments_come_in_bounded_pieces(writer, learner, monkeypatch):
    monkeypatch.setattr("replay.redis_tail._REPLY_BYTES", 600)
    for sequence in range(40):
        writer.insert(make_segment(1, sequence=sequence, first=sequence))
    learner.refresh()
    assert held_rewards(learner) == list(range(40))


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"spec": replace(SPEC, action_size=3)}, ["transition sizes", "action=2", "action=3", "another run name"]),
        ({"capacity": CAPACITY + 1}, ["capacity '40'", "'41'"]),
    ],
    ids=["spec", "capacity"],
)
def test_another_schema_is_refused(server, writer, run_id, overrides, parts):
    run_id = writer.dataset.run_id
    arguments = {"spec": SPEC, "limiter": LIMITER, "capacity": CAPACITY, **overrides}
    with pytest.raises(ReplayConfigError) as caught:
        RedisReplay.connect(server.url, run_id, **arguments)
    for part in [run_id, *parts]:
        assert part in str(caught.value)


def test_another_dataset_than_the_checkpoint_is_refused(server, run_id, writer):
    with pytest.raises(ReplayLostError, match="no longer holds the data of run"):
        RedisReplay.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, dataset_id="0123456789abcdef")
    with pytest.raises(ReplayLostError):
        RedisReplay.connect(server.url, run_id + "x", SPEC, LIMITER, CAPACITY, dataset_id="0123456789abcdef")


def test_an_idle_refresh_writes_nothing(learner, client):
    learner.insert(make_segment(8))
    learner.refresh()
    learner.sample(4, np.random.default_rng(0))
    learner.refresh()
    before = client.info("commandstats")["cmdstat_hset"]["calls"]
    for _ in range(3):
        learner.refresh()
    assert client.info("commandstats")["cmdstat_hset"]["calls"] == before


def test_bad_frames_are_counted_and_skipped(writer, learner, client, run_id, caplog):
    for sequence in range(3):
        writer.insert(make_segment(sequence=sequence, first=4 * sequence, actor_id=9))
    key = f"hdqnn:{{{run_id}}}:segment:1"
    frame = bytearray(client.get(key))
    frame[-1] ^= 1
    client.set(key, bytes(frame))
    with caplog.at_level(logging.WARNING):
        learner.refresh()
    assert held_rewards(learner) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert learner.num_rejected_frames == 1
    assert "skipped bad frame 1 (1 so far): crc32 differs" in caplog.text
    assert "actor 9" in caplog.text


@pytest.mark.parametrize(
    ("segment", "part"),
    [
        (make_segment(CAPACITY + 1), "41 transitions does not fit a replay of 40"),
        (
            make_segment(actor_id=3, rewards=np.full(4, np.nan, np.float32)),
            "rewards of actor 3 is not finite at step 0",
        ),
    ],
    ids=["length", "nan"],
)
def test_refused_segments_leave_no_trace(writer, segment, part):
    with pytest.raises(InvalidSegmentError) as caught:
        writer.insert(segment)
    assert part in str(caught.value)
    assert writer.poll().counts.inserted == 0


def test_a_refused_segment_among_others_leaves_them_for_a_retry(writer):
    segments = [make_segment(sequence=sequence) for sequence in range(3)]
    bad = replace(segments[1], rewards=np.full(4, np.inf, np.float32))
    with pytest.raises(InvalidSegmentError):
        writer.insert_many([segments[0], bad, segments[2]])
    assert writer.insert_many(segments).counts.inserted == 12


def test_an_unknown_server_error_is_one_of_ours(writer, client, run_id):
    client.set(f"hdqnn:{{{run_id}}}:lengths", "not a list")
    with pytest.raises(ReplayError, match=r"answered with an error .*WRONGTYPE"):
        writer.insert(make_segment())
