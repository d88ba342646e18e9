"""Sampling on a real server: what is drawn, what is counted, and what several learners see of each other."""

import numpy as np
import pytest

from replay.errors import ReplayConfigError, ReplayError
from replay.redis_sampler import RedisSampler
from replay.redis_writer import RedisWriter
from replay.sampling import SampleRule
from replay.types import ReplayCounts, TransitionSpec
from tests.integration.redis_fixtures import CAPACITY, LIMITER, client, run_id, server, writer  # noqa: F401
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment

pytestmark = pytest.mark.redis


@pytest.fixture
def make_sampler(server, run_id):
    opened = []

    def make(learner_id="one", **options):
        opened.append(
            RedisSampler.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, learner_id=learner_id, **options)
        )
        return opened[-1]

    yield make
    for sampler in opened:
        sampler.close()


def fill(writer, lengths, *, first=0):
    """Segment k acted with policy version k throughout; transition t has reward t."""
    for sequence, steps in enumerate(lengths):
        versions = np.full(steps, sequence, np.uint32)
        writer.insert(make_segment(steps, sequence=sequence, first=first, policy_versions=versions))
        first += steps
    return first


def test_whole_transitions_come_back(writer, make_sampler, run_id, client):
    fill(writer, [4, 1, 7, 2])
    sampler = make_sampler()
    batch = sampler.sample(200, np.random.default_rng(0))
    segments = [make_segment(s, sequence=k, first=f) for k, (s, f) in enumerate([(4, 0), (1, 4), (7, 5), (2, 12)])]
    rows = batch.reward.astype(int)
    for name, column in (
        ("observation", [s.observations[:-1] for s in segments]),
        ("next_observation", [s.observations[1:] for s in segments]),
        ("action", [s.actions for s in segments]),
        ("discount", [s.discounts for s in segments]),
        ("circuit_parameters", [s.circuit_parameters for s in segments]),
        ("bits", [s.bits.astype(np.float32) for s in segments]),
        ("policy_versions", [np.full(len(s), k, np.uint32) for k, s in enumerate(segments)]),
    ):
        got = getattr(batch, name)
        np.testing.assert_array_equal(got, np.concatenate(column)[rows], err_msg=name)
        assert got.flags.c_contiguous
        assert got.flags.writeable


@pytest.mark.parametrize(
    ("rule", "first"),
    [
        (SampleRule(), 10),
        (SampleRule(newest=13), 37),
        (SampleRule(newest=1000), 10),
        (SampleRule(min_policy_version=9), 36),
        (SampleRule(newest=20, min_policy_version=8), 35),
    ],
    ids=["all", "age", "age beyond all", "version", "both"],
)
def test_draws_are_uniform_over_what_the_rule_allows(writer, make_sampler, rule, first):
    """Chi-square with at most 39 degrees of freedom; false-alarm rate 1e-6, and the seed is fixed."""
    lengths = [4, 6, 1, 9, 2, 2, 8, 3, 1, 5, 9]
    assert fill(writer, lengths) == 50  # ten have fallen out
    rewards = make_sampler().sample(10_000, np.random.default_rng(3), rule).reward
    values, counts = np.unique(rewards, return_counts=True)
    assert values.tolist() == list(range(first, 50))
    expected = len(rewards) / len(values)
    assert ((counts - expected) ** 2 / expected).sum() < 101.0


def test_the_same_generator_draws_the_same_batch(writer, make_sampler):
    fill(writer, [5, 5, 5])
    sampler = make_sampler()
    batches = [sampler.sample(64, np.random.default_rng(5)) for _ in range(2)]
    assert_same_batch(*batches)
    assert not np.array_equal(batches[0].reward, sampler.sample(64, np.random.default_rng(6)).reward)


def test_learners_count_together_and_each_under_its_name(writer, make_sampler):
    fill(writer, [8, 8])
    one, two = make_sampler("one"), make_sampler("two")
    rng = np.random.default_rng(0)
    one.sample(5, rng)
    two.sample(7, rng)
    one.sample(1, rng)
    assert one.refresh() == two.refresh() == ReplayCounts(inserted=16, sampled=13)
    assert writer.poll().counts.sampled == 13
    again = make_sampler("one")
    assert (one.own_sampled, two.own_sampled, again.own_sampled) == (6, 7, 6)
    # A learner that goes on from an older checkpoint takes its later samples back.
    again.own_sampled = 5
    again.sample(2, rng)
    assert again.refresh().sampled == 5 + 2 + 7


def test_the_limiter_holds_for_all_learners(writer, make_sampler):
    fill(writer, [4, 4])
    one, two = make_sampler("one"), make_sampler("two")
    assert one.can_sample(16)
    assert not one.can_sample(17)
    two.sample(10, np.random.default_rng(0))
    one.refresh()
    assert one.can_sample(6)
    assert not one.can_sample(7)


def test_first_in_first_out_gives_each_transition_to_one_learner(writer, make_sampler):
    rng = np.random.default_rng(0)
    learners = [make_sampler("one"), make_sampler("two")]
    seen, inserted = [], 0
    for sequence in range(60):
        steps = int(rng.integers(1, 7))
        writer.insert(make_segment(steps, sequence=sequence, first=inserted))
        inserted += steps
        seen += learners[sequence % 2].take(int(rng.integers(0, 12))).reward.tolist()
        learners[0].refresh()
    seen += learners[0].take(100).reward.tolist()
    assert seen == list(range(inserted))
    assert len(learners[1].take(3).reward) == 0
    assert learners[0].refresh().sampled == inserted
    assert [learner.num_missed for learner in learners] == [0, 0]


def test_first_in_first_out_says_what_it_missed_and_keeps_to_the_rule(writer, make_sampler):
    fill(writer, [5] * 12)
    sampler = make_sampler()
    assert sampler.take(7).reward.tolist() == list(range(20, 27))
    assert sampler.num_missed == 20
    assert sampler.take(4, SampleRule(min_policy_version=6)).reward.tolist() == [30, 31, 32, 33]
    assert sampler.take(9, SampleRule(newest=3)).reward.tolist() == [57, 58, 59]


def test_a_batch_whose_answer_was_lost_is_given_again(writer, make_sampler):
    fill(writer, [6, 6, 6])
    one, two = make_sampler("one"), make_sampler("two")
    one.take(2)
    before = one.own_sampled
    lost = one.take(5).reward.tolist()
    one.own_sampled = before  # what a learner that never got the answer knows
    assert two.take(3).reward.tolist() == [7, 8, 9]
    assert one.take(5).reward.tolist() == lost == [2, 3, 4, 5, 6]
    assert one.take(5).reward.tolist() == [10, 11, 12, 13, 14]
    assert one.refresh().sampled == 15


def test_transitions_that_are_not_finite_are_left_out(writer, make_sampler, client, run_id, caplog):
    fill(writer, [4, 4])
    frame = bytearray(client.get(f"hdqnn:{{{run_id}}}:segment:0"))
    frame[192:196] = np.float32(np.nan).tobytes()
    client.set(f"hdqnn:{{{run_id}}}:segment:0", bytes(frame))
    sampler = make_sampler()
    batch = sampler.sample(100, np.random.default_rng(1))
    assert len(batch.reward) == 100
    assert set(batch.reward.tolist()) == {1, 2, 3, 4, 5, 6, 7}
    assert sampler.num_rejected > 0
    assert "not finite" in caplog.text


def test_a_cut_frame_costs_only_its_own_transitions(writer, make_sampler, client, run_id):
    fill(writer, [4, 4])
    client.set(f"hdqnn:{{{run_id}}}:segment:1", b"\x80\x04cgarbage")
    assert set(make_sampler().sample(100, np.random.default_rng(1)).reward.tolist()) == {0, 1, 2, 3}


def test_nothing_to_draw_says_so(writer, make_sampler):
    sampler = make_sampler()
    assert not sampler.can_sample(1)
    with pytest.raises(ReplayError, match="gave 0 of 3 transitions"):
        sampler.sample(3, np.random.default_rng(0))
    fill(writer, [4])
    with pytest.raises(ReplayError, match="gave 0 of 3 transitions"):
        sampler.sample(3, np.random.default_rng(0), SampleRule(min_policy_version=1))
    assert sampler.refresh().sampled == 0


def test_what_needs_a_mirror_is_refused(make_sampler):
    sampler = make_sampler()
    with pytest.raises(ReplayConfigError, match="single steps, the rule wants returns of 3; sample from a mirror"):
        sampler.sample(1, np.random.default_rng(0), SampleRule(n_step=3, discount_factor=0.9))
    with pytest.raises(ReplayConfigError, match="keeps no priorities"):
        sampler.update_priorities(np.arange(1), np.ones(1, np.float32))
    with pytest.raises(ReplayConfigError, match="a name without colons, got 'a:b'"):
        make_sampler("a:b")


def test_a_run_without_circuit_has_empty_columns(server, run_id):
    spec = TransitionSpec(observation_size=3, action_size=2)
    writer = RedisWriter.connect(server.url, run_id, spec, LIMITER, CAPACITY)
    writer.insert(make_segment(4, spec=spec))
    sampler = RedisSampler.connect(server.url, run_id, spec, LIMITER, CAPACITY, learner_id="x")
    batch = sampler.sample(5, np.random.default_rng(0))
    assert batch.circuit_parameters.shape == batch.bits.shape == (5, 0)
    sampler.close()
    writer.close()
