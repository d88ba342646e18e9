"""The faults of ``hdqnn bench faults`` that a replay is put through, once each and shortened; about 35 s, asleep."""

import pytest

from benchmarks.faults.process import STEPS
from benchmarks.faults.replay_faults import make_faults, measure, measure_emptied
from benchmarks.faults.stage import Stage

pytestmark = pytest.mark.redis

FAULTS = make_faults(dark_s=1.5, period_s=3.0, short_s=1.2)
"""Longer than the processes wait for an answer, so that every fault is noticed."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with Stage.start(tmp_path_factory.mktemp("stage")) as started:
        yield started


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_or_doubled_and_everybody_goes_on(stage, name):
    result = measure(stage, FAULTS[name], repeats=1, window_s=1.0)
    assert result["acknowledged"] > 10
    assert result["lost"] == result["duplicated"] == result["unknown"] == 0
    # A deadlock would run into the stage's patience; this is for what merely crawls.
    assert result["recovery_p95_s"] < 30


def test_in_the_end_the_learner_holds_every_transition_once(stage):
    """Runs last: it ends the actors and the learner."""
    assert len(stage.sampled()) > 100
    stage.stop_actors()
    held = stage.stop_learner()
    assert held == STEPS * len(stage.stored()) > 1_000


def test_an_emptied_server_ends_every_process_with_an_error_that_says_so():
    result = measure_emptied(repeats=1)
    assert result["silent"] == 0
    assert result["recovery_p95_s"] < 10
