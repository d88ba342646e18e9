"""Bounds on age and policy version, draws by priority, first in first out, and where transitions come from."""

import numpy as np
import pytest

from replay.errors import ReplayConfigError, ReplayError
from replay.memory_replay import MemoryReplay
from replay.mirror import Mirror
from replay.rate_limiter import SampleToInsertRatio
from replay.sampling import SampleRule
from replay.types import Origin
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment


def filled_mirror(num_segments=10, *, capacity=100, is_prioritised=False, **overrides) -> Mirror:
    """Segment k has four transitions with rewards 4k to 4k+3 and policy version k."""
    mirror = Mirror(SPEC, capacity, is_prioritised=is_prioritised)
    for k in range(num_segments):
        versions = np.full(4, k, np.uint32)
        mirror.append(make_segment(4, sequence=k, first=4 * k, policy_versions=versions, **overrides))
    return mirror


def chi_square(rewards, expected) -> float:
    counts = np.bincount(rewards.astype(int), minlength=len(expected))
    assert (counts[expected == 0] == 0).all()
    wanted = len(rewards) * expected[expected > 0] / expected.sum()
    return float(((counts[expected > 0] - wanted) ** 2 / wanted).sum())


@pytest.mark.parametrize("is_prioritised", [False, True])
@pytest.mark.parametrize(
    ("rule", "first"),
    [
        (SampleRule(min_policy_version=6), 24),
        (SampleRule(min_policy_version=199), 796),
        (SampleRule(newest=10), 790),
        (SampleRule(newest=10_000), 0),
        (SampleRule(newest=30, min_policy_version=195), 780),
    ],
    ids=["half", "one segment", "age", "age beyond all", "both"],
)
def test_only_what_the_rule_allows_and_in_proportion(rule, first, is_prioritised):
    """Chi-square against 799 or fewer degrees of freedom, mean + 5.5 sigma; false-alarm rate 1e-6 each, fixed seeds."""
    mirror = filled_mirror(200, capacity=800, is_prioritised=is_prioritised)
    expected = np.zeros(800)
    expected[first:] = 1.0
    if is_prioritised:
        errors = np.linspace(0.0, 40.0, 800).astype(np.float32)
        mirror.update_priorities(np.arange(800), errors)
        expected *= np.maximum(errors, 1.0) ** 0.4
    rewards = mirror.sample(20_000, np.random.default_rng(2), rule).reward
    freedom = np.count_nonzero(expected) - 1
    assert chi_square(rewards, expected) < freedom + 5.5 * np.sqrt(2 * freedom) + 15


def test_the_plain_rule_changes_no_bit():
    mirror = filled_mirror()
    ages = np.random.default_rng(9).integers(0, 40, 64)
    assert_same_batch(mirror.sample(64, np.random.default_rng(9)), mirror.gather(ages))
    assert_same_batch(mirror.sample(64, np.random.default_rng(9), SampleRule()), mirror.gather(ages))


def test_nothing_new_enough_says_what_to_do():
    with pytest.raises(ReplayError, match="new enough for this sample rule; wait for newer ones, or loosen"):
        filled_mirror().sample(4, np.random.default_rng(0), SampleRule(min_policy_version=11))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_step": 0}, "n_step must be at least 1, got 0"),
        ({"n_step": 3}, "n_step is 3, so discount_factor must be given"),
        ({"discount_factor": 0.0}, "discount_factor must be above 0 and at most 1, got 0.0"),
        ({"discount_factor": float("nan")}, "discount_factor must be above 0"),
        ({"newest": -1}, "newest must not be negative, got -1"),
        ({"min_policy_version": -2}, "min_policy_version must not be negative, got -2"),
    ],
)
def test_impossible_rules_are_refused(fields, message):
    with pytest.raises(ReplayConfigError, match=message):
        SampleRule(**fields)


def test_priorities_follow_their_transitions_round_the_ring():
    """A model with one weight per index; 300 appends into a ring of 50, so every slot is used many times."""
    rng = np.random.default_rng(4)
    mirror, model, inserted, largest = Mirror(SPEC, 50, is_prioritised=True), {}, 0, 1.0
    for sequence in range(300):
        steps = int(rng.integers(1, 9))
        mirror.append(make_segment(steps, sequence=sequence, first=inserted))
        model |= dict.fromkeys(range(inserted, inserted + steps), largest)
        inserted += steps
        batch = mirror.sample(16, rng)
        assert batch.indices.tolist() == batch.reward.tolist()
        chosen, places = np.unique(batch.indices, return_index=True)
        errors = (5 * rng.standard_normal(len(places))).astype(np.float32)
        # One index that fell out long ago must change nothing.
        mirror.update_priorities(np.append(chosen, -1), np.append(errors, np.float32(1e9)))
        model |= dict(zip(chosen.tolist(), (np.maximum(abs(errors), 1) ** 0.4).astype(np.float32), strict=True))
        largest = max(largest, *model.values())
        held = range(inserted - len(mirror), inserted)
        np.testing.assert_array_equal(mirror.priorities()["priorities"], [model[i] for i in held])


def test_a_uniform_mirror_takes_no_priorities():
    with pytest.raises(ReplayConfigError, match="draws uniformly and keeps no priorities"):
        filled_mirror().update_priorities(np.arange(3), np.ones(3, np.float32))


def test_first_in_first_out_gives_each_transition_once():
    mirror = Mirror(SPEC, 60)
    seen, index, inserted = [], 0, 0
    rng = np.random.default_rng(0)
    for sequence in range(100):
        steps = int(rng.integers(1, 7))
        mirror.append(make_segment(steps, sequence=sequence, first=inserted))
        inserted += steps
        batch, index = mirror.take(index, int(rng.integers(0, 12)))
        seen += batch.reward.tolist()
    rest, index = mirror.take(index, 1000)
    seen += rest.reward.tolist()
    assert seen == list(range(inserted))
    empty, index = mirror.take(index, 5)
    assert len(empty.reward) == 0
    assert index == inserted


def test_first_in_first_out_skips_what_is_gone_and_what_is_too_old():
    mirror = filled_mirror(30, capacity=40)
    batch, index = mirror.take(0, 6)
    assert batch.reward.tolist() == [80, 81, 82, 83, 84, 85]
    batch, index = mirror.take(index, 3, SampleRule(min_policy_version=25))
    assert batch.reward.tolist() == [100, 101, 102]
    batch, index = mirror.take(index, 50, SampleRule(newest=5))
    assert batch.reward.tolist() == [115, 116, 117, 118, 119]
    assert mirror.take(index, 1)[1] == index == 120


def test_every_transition_tells_where_it_comes_from():
    mirror = Mirror(SPEC, 12)
    for sequence, (actor_id, name) in enumerate([(1, "aer"), (2**32 - 1, "ibm:x"), (3, "aer"), (4, "statevector")]):
        mirror.append(make_segment(4, actor_id=actor_id, sequence=sequence, backend_name=name))
    batch = mirror.gather(np.array([0, 5, 11]))
    assert mirror.origins(batch.indices) == [
        Origin(actor_id=2**32 - 1, backend_name="ibm:x", policy_version=7),
        Origin(actor_id=3, backend_name="aer", policy_version=8),
        Origin(actor_id=4, backend_name="statevector", policy_version=10),
    ]
    with pytest.raises(ReplayError, match=r"must be of transitions held, 4..15, got 3..3"):
        mirror.origins(np.array([3]))


def test_a_restored_replay_draws_by_the_same_priorities(tmp_path):
    limiter = SampleToInsertRatio(1.0, 1, 1e6)
    replay = MemoryReplay(SPEC, limiter, 50, tmp_path / "journal", is_prioritised=True)
    rng = np.random.default_rng(0)
    for sequence in range(37):
        replay.insert(make_segment(1 + sequence % 5, sequence=sequence, first=10 * sequence))
        batch = replay.sample(8, rng)
        replay.update_priorities(batch.indices, (3 * rng.standard_normal(8)).astype(np.float32))
    again = MemoryReplay.restore(SPEC, limiter, 50, tmp_path / "journal", replay.state(), is_prioritised=True)
    again.restore_priorities(replay.priorities())
    for seed in range(5):
        batches = [r.sample(32, np.random.default_rng(seed)) for r in (replay, again)]
        assert_same_batch(*batches)
        assert (batches[0].indices == batches[1].indices).all()
        for r in (replay, again):
            r.update_priorities(batches[0].indices, batches[0].action[:, 0])
    assert_same_batch(replay.take(60, 20)[0], again.take(60, 20)[0])
