"""Statistics against formulae of their own: sorting, counting pairs, and every resample of a small sample."""

import itertools

import numpy as np
import pytest

from cluster.experiment.statistics import Bootstrap, common_points, interquartile_mean, probability_of_improvement

RNG = np.random.default_rng(11)
BOOTSTRAP = Bootstrap(resamples=20_000)


@pytest.mark.parametrize("num_runs", [1, 2, 3, 4, 5, 7, 8, 10])
def test_interquartile_mean_is_the_mean_of_the_middle_half(num_runs):
    scores = RNG.normal(size=num_runs)
    cut = num_runs // 4
    assert interquartile_mean(scores) == pytest.approx(np.mean(sorted(scores)[cut : num_runs - cut]))


def test_improvement_counts_pairs_and_ties_half():
    ours, theirs = np.array([3.0, 1.0, 2.0]), np.array([2.0, 0.0])
    better = sum((x > y) + 0.5 * (x == y) for x, y in itertools.product(ours, theirs))
    assert better == 4.5
    assert probability_of_improvement(ours, theirs) == pytest.approx(better / 6)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - better / 6)


def test_interval_of_the_mean_is_that_of_all_resamples():
    """All 4⁴ resamples are known, so the bootstrap's percentiles have exact values to come close to."""
    scores = np.array([1.0, 5.0, 6.0, 20.0])
    means = np.array([np.mean(sample) for sample in itertools.product(scores, repeat=4)])
    low, high = np.percentile(means, [2.5, 97.5])
    found = BOOTSTRAP.summary(scores).mean
    assert found.value == pytest.approx(8.0)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.3)


def test_estimates_and_intervals_are_those_of_rliable():
    """Its version 1.2.0 gave these numbers with 50,000 resamples (20,000 for the improvement) and pandas 2.3."""
    scores = np.array([-152, -466, -195, -160, -210, -148, -333, -171, -158, -240], np.float64)
    others = np.array([-151, -149, -158, -155, -150, -171, -149, -152, -165, -154], np.float64)
    summary = BOOTSTRAP.summary(scores)
    found = [
        summary.iqm,
        summary.mean,
        BOOTSTRAP.optimality_gap(scores, -200),
        BOOTSTRAP.improvement([scores], [others]),
    ]
    expected = [(-189, -276.5, -159.5), (-223.3, -289.4, -171.7), (44.9, 3.0, 102.1), (0.205, 0.02, 0.44)]
    for interval, (value, low, high) in zip(found, expected, strict=True):
        assert interval.value == pytest.approx(value)
        assert (interval.low, interval.high) == pytest.approx((low, high), rel=0.05, abs=0.015)


def test_interval_of_the_improvement_resamples_both_sides():
    ours, theirs = np.array([1.0, 4.0, 5.0]), np.array([2.0, 3.0, 0.0])
    resamples = list(itertools.product(range(3), repeat=3))
    every = [
        np.mean([[(x > y) for y in theirs[list(second)]] for x in ours[list(first)]])
        for first, second in itertools.product(resamples, resamples)
    ]
    low, high = np.percentile(every, [2.5, 97.5])
    found = BOOTSTRAP.improvement([ours], [theirs])
    assert found.value == pytest.approx(7 / 9)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_improvement_is_averaged_over_tasks_that_are_resampled_apart():
    """Independent tasks: the interval of the average of two is about √2 narrower than that of each."""
    ours, theirs = RNG.normal(0.5, size=30), RNG.normal(size=30)
    one = BOOTSTRAP.improvement([ours], [theirs])
    two = BOOTSTRAP.improvement([ours, ours[:29]], [theirs, theirs])
    assert two.value == pytest.approx(one.value, abs=0.02)
    assert (two.high - two.low) == pytest.approx((one.high - one.low) / np.sqrt(2), rel=0.08)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    """200 samples of 30 at 95 %: a right interval covers fewer than 176 or more than 199 once in about 10,000."""
    small = Bootstrap(resamples=500)
    covered = 0
    for _ in range(200):
        interval = small.summary(RNG.normal(3.0, 2.0, size=30)).mean
        covered += interval.low <= 3.0 <= interval.high
    assert 176 <= covered <= 199


def test_optimality_gap_does_not_reward_what_is_above_the_goal():
    gap = BOOTSTRAP.optimality_gap(np.array([-300.0, -100.0, -250.0, -150.0]), goal=-200.0)
    assert gap.value == pytest.approx((100 + 0 + 50 + 0) / 4)
    assert 0 <= gap.low < gap.value < gap.high <= 100


def test_profile_is_the_share_of_runs_above_each_threshold():
    scores, thresholds = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 1.0, 2.0, 4.0, 5.0])
    band = BOOTSTRAP.profile(scores, thresholds)
    np.testing.assert_allclose(band.value, [1, 0.75, 0.25, 0.25, 0])
    assert (band.low <= band.value).all()
    assert (band.value <= band.high).all()


def test_curve_is_the_summary_of_each_point():
    scores = RNG.normal(size=(8, 5))
    band = BOOTSTRAP.curve(scores)
    for point in range(5):
        alone = BOOTSTRAP.summary(scores[:, point]).iqm
        assert band.value[point] == pytest.approx(alone.value)
        assert (band.low[point], band.high[point]) == pytest.approx((alone.low, alone.high), abs=0.06)


def test_the_same_scores_give_the_same_interval():
    scores = RNG.normal(size=6)
    assert BOOTSTRAP.summary(scores) == BOOTSTRAP.summary(scores)
    assert BOOTSTRAP.summary(scores) != Bootstrap(resamples=20_000, seed=1).summary(scores)


def test_one_run_has_no_interval_but_its_value():
    summary = BOOTSTRAP.summary(np.array([-7.0]))
    assert (summary.iqm.value, summary.iqm.low, summary.iqm.high) == (-7.0, -7.0, -7.0)
    assert BOOTSTRAP.improvement([np.array([1.0])], [np.array([0.0, 2.0])]).value == 0.5


def test_common_points_are_those_of_every_run():
    steps, values = common_points([{100: 1.0, 300: 3.0, 200: 2.0}, {200: 5.0, 300: 6.0, 400: 7.0}])
    assert steps == [200, 300]
    np.testing.assert_array_equal(values, [[2, 3], [5, 6]])
