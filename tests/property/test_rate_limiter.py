import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import ReplayConfigError
from replay.rate_limiter import SampleToInsertRatio
from replay.types import ReplayCounts


@given(
    samples_per_insert=st.integers(1, 300),
    min_size=st.integers(1, 500),
    extra_slack=st.integers(0, 400),
    insert=st.integers(1, 64),
    sample=st.integers(1, 300),
    moves=st.lists(st.booleans(), max_size=200),
)
@settings(max_examples=150, deadline=None)
def test_agrees_with_an_integer_model(samples_per_insert, min_size, extra_slack, insert, sample, moves):
    slack = samples_per_insert + extra_slack
    limiter = SampleToInsertRatio(samples_per_insert, min_size, slack)
    inserted = sampled = 0
    for is_insert in moves:
        counts = ReplayCounts(inserted=inserted, sampled=sampled)
        centre = min_size * samples_per_insert
        may_insert = inserted < min_size or (inserted + insert) * samples_per_insert - sampled <= centre + slack
        may_sample = inserted >= min_size and inserted * samples_per_insert - sampled - sample >= centre - slack
        assert limiter.can_insert(counts, insert) == may_insert
        assert limiter.can_sample(counts, sample) == may_sample
        if is_insert and may_insert:
            inserted += insert
        elif may_sample:
            sampled += sample


@given(
    samples_per_insert=st.floats(0.01, 300),
    min_size=st.integers(1, 2000),
    slack=st.floats(1, 3000),
    insert=st.integers(1, 300),
    sample=st.integers(1, 300),
    writers=st.integers(1, 5),
    greedy=st.randoms(use_true_random=False),
)
@settings(max_examples=150, deadline=None)
def test_what_check_chunks_allows_never_stops_both(
    samples_per_insert, min_size, slack, insert, sample, writers, greedy
):
    try:
        limiter = SampleToInsertRatio(samples_per_insert, min_size, slack)
        limiter.check_chunks(largest_insert=insert, largest_sample=sample)
    except ReplayConfigError:
        return
    inserted = sampled = 0
    for _ in range(300):
        counts = ReplayCounts(inserted=inserted, sampled=sampled)
        may_insert, may_sample = limiter.can_insert(counts, insert), limiter.can_sample(counts, sample)
        assert may_insert or may_sample
        if may_insert and (not may_sample or greedy.random() < 0.5):
            # All writers asked before any of them inserted.
            inserted += insert * greedy.randint(1, writers)
        else:
            sampled += sample


@given(samples_per_insert=st.integers(1, 50), insert=st.integers(1, 40), sample=st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_check_chunks_is_tight(samples_per_insert, insert, sample):
    """What it refuses does stop both sides, for some reachable error."""
    slack = (samples_per_insert * insert + sample) // 2 - 1
    if slack < samples_per_insert:
        return
    limiter = SampleToInsertRatio(samples_per_insert, 1, slack)
    with pytest.raises(ReplayConfigError):
        limiter.check_chunks(largest_insert=insert, largest_sample=sample)
    excess = sample - slack - 1
    inserted = 10_000
    counts = ReplayCounts(inserted=inserted, sampled=(inserted - 1) * samples_per_insert - excess)
    assert not limiter.can_sample(counts, sample)
    assert not limiter.can_insert(counts, insert)


@pytest.mark.parametrize("learner_speed", [0.1, 1.0, 10.0])
def test_update_ratio_comes_out_whatever_the_speeds(learner_speed):
    limiter = SampleToInsertRatio.from_update_ratio(
        updates_per_step=0.5, batch_size=256, learning_starts=1000, slack_steps=200
    )
    limiter.check_chunks(largest_insert=64, largest_sample=256)
    inserted = updates = 0
    credit = 0.0
    while inserted < 50_000:
        if limiter.can_insert(ReplayCounts(inserted=inserted, sampled=updates * 256), 64):
            inserted += 64
        credit = min(credit + 64 * learner_speed, 1000.0)
        while credit >= 1 and limiter.can_sample(ReplayCounts(inserted=inserted, sampled=updates * 256), 256):
            updates += 1
            credit -= 1
            assert updates <= max(0, 0.5 * (inserted - 1000)), "the learner led"
    assert 0 <= 0.5 * (inserted - 1000) - updates <= 0.5 * 200


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((0.0, 10, 10.0), ["samples_per_insert", "above 0", "got 0.0"]),
        ((math.nan, 10, 10.0), ["samples_per_insert", "finite", "got nan"]),
        ((4.0, 0, 10.0), ["min_size_to_sample", "at least 1", "got 0"]),
        ((4.0, 10, 3.0), ["error_buffer", "at least max(1, samples_per_insert) = 4.0", "got 3.0", "for ever"]),
        ((0.1, 10, 0.5), ["error_buffer", "= 1.0", "got 0.5"]),
        ((0.1, 10, math.inf), ["error_buffer", "finite"]),
    ],
    ids=["zero", "nan", "min size", "buffer", "buffer below one", "infinite"],
)
def test_settings_that_stop_both_sides_are_refused(arguments, parts):
    with pytest.raises(ReplayConfigError) as caught:
        SampleToInsertRatio(*arguments)
    for part in parts:
        assert part in str(caught.value)


def test_long_segments_are_refused_with_the_slack_that_works():
    limiter = SampleToInsertRatio.from_update_ratio(
        updates_per_step=1, batch_size=256, learning_starts=1000, slack_steps=100
    )
    with pytest.raises(ReplayConfigError) as caught:
        limiter.check_chunks(largest_insert=64 * 8, largest_sample=256)
    for part in [
        "error_buffer is 12800",
        "inserting 512",
        "sampling 256",
        "at least 65664.0",
        "slack of 513 environment steps",
    ]:
        assert part in str(caught.value)
    SampleToInsertRatio.from_update_ratio(
        updates_per_step=1, batch_size=256, learning_starts=1000, slack_steps=513
    ).check_chunks(largest_insert=512, largest_sample=256)
