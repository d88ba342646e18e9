"""Streams are independent of each other, and their numbers never change: they are part of a run's identity."""

import itertools

import numpy as np
import pytest

from cluster.seeding import Stream, derive_rng, derive_seed


def test_every_run_stream_and_index_has_its_own_seed():
    # One stream always has the same number of indices: numpy cannot tell trailing zeros from nothing.
    seeds = [
        derive_seed(run, stream, *indices)
        for run in range(4)
        for stream in Stream
        for indices in itertools.product(range(4), repeat=3)
    ]
    assert len(set(seeds)) == len(seeds)


def test_streams_are_uncorrelated():
    # 20 pairs of 10,000 numbers; the bound is five standard errors, false-alarm rate 1e-5, and the seed is fixed.
    draws = [derive_rng(1, stream).standard_normal(10_000) for stream in Stream]
    for first, second in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(10_000)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1, Stream.LEARNER), 3941715100300054245),
        ((1, Stream.REPLAY_SAMPLING), 2553429759821638025),
        ((1, Stream.EXPLORATION, 0, 1), 3528896416325759156),
        ((1, Stream.ENVIRONMENT, 0, 1, 7), 5062817750909601727),
        ((2, Stream.ACTING_CIRCUITS, 3, 1, 0), 697407682393360362),
        ((2, Stream.EVALUATION_EPISODES), 8217288371339677041),
        ((2**63, Stream.EVALUATION_CIRCUITS, 5), 8076993950005433941),
    ],
)
def test_seeds_never_change(arguments, expected):
    assert derive_seed(*arguments) == expected


def test_seeds_fit_what_takes_them():
    seeds = [derive_seed(run, stream) for run in range(200) for stream in Stream]
    assert min(seeds) >= 0
    assert max(seeds) < 2**63


def test_generators_repeat():
    first, second = derive_rng(3, Stream.EXPLORATION, 1, 2), derive_rng(3, Stream.EXPLORATION, 1, 2)
    np.testing.assert_array_equal(first.random(5), second.random(5))
