"""A run's goal: reached twice in a row, not taken back by its last round, counted anew where the run is made longer."""

import dataclasses

import pytest

from cluster.checkpoint import load_newest
from tests.unit.cluster.test_session import CONFIG, Run


@pytest.mark.parametrize(("returns", "expected"), [([-9, -5, -5], True), ([-5, -9, -5], False), ([-4], False)], ids=str)
def test_a_goal_counts_when_two_rounds_in_a_row_reach_it(tmp_path, returns, expected):
    run = Run(tmp_path / "run", dataclasses.replace(CONFIG, stop_return=-5.0))
    for mean in returns:
        run.tests.returns = (mean, mean)
        run.advance(100)
    assert run.session.is_done is expected


@pytest.mark.parametrize("is_resumed", [False, True])
def test_a_worse_last_round_does_not_take_back_a_goal_that_was_reached(tmp_path, is_resumed):
    config = dataclasses.replace(CONFIG, stop_return=-5.0)
    run = Run(tmp_path / "run", config)
    run.tests.returns = (-4.0, -4.0)
    for _ in range(2):
        run.advance(100)
    # What was learned since the second round is tested before the run ends, and ten episodes are few.
    run.advance(10)
    run.tests.returns = (-9.0, -9.0)
    run.session.finish()
    assert run.rounds == [100, 200, 210]
    if is_resumed:
        run = Run(tmp_path / "run", config, checkpoint=load_newest(run.directory.checkpoints), inserted=210)
    assert run.session.is_done


def test_a_run_that_is_made_longer_must_reach_its_goal_anew(tmp_path):
    config = dataclasses.replace(CONFIG, stop_return=-5.0)
    run = Run(tmp_path / "run", config)
    run.tests.returns = (-4.0, -4.0)
    for _ in range(2):
        run.advance(100)
    run.session.save()
    checkpoint = load_newest(run.directory.checkpoints)
    assert Run(tmp_path / "run", config, checkpoint=checkpoint, inserted=200).session.is_done
    longer = dataclasses.replace(config, total_steps=config.total_steps + 100)
    resumed = Run(tmp_path / "run", longer, checkpoint=checkpoint, inserted=200)
    assert not resumed.session.is_done
