"""A grid made in pieces: results that were kept elsewhere count, those of another configuration are refused."""

import json
import shutil

import pytest

from cluster.errors import ConfigError
from cluster.experiment.report import write_report
from cluster.experiment.results import read_result
from tests.unit.cluster.experiment.places import add_round, finish, make_experiment, make_runs
from tests.unit.cluster.experiment.test_scheduler import Machine, schedule

RESULTS = {"results": "kept"}


def finished(tmp_path, index=0, returns=(-1.25, -2, -3), **fields):
    run = make_runs(tmp_path, **RESULTS, **fields)[index]
    finish(run, returns)
    add_round(run, 200, [-9, -8.12345])
    add_round(run, 604, [-2, -3])
    run.keep()
    return run


def test_a_kept_run_needs_nothing_and_says_what_it_reached(tmp_path):
    before = finished(tmp_path)
    rounds = before.test_rounds()
    shutil.rmtree(tmp_path / "runs")
    run, *others = make_runs(tmp_path, **RESULTS)
    assert run.next_task() is None
    assert [other.next_task() for other in others] == ["train"] * 3
    assert run.final_returns() == [-1.25, -2, -3]
    assert run.test_rounds() == rounds
    assert [row["mean_return"] for row in rounds] == [-8.562, -2.5]
    assert run.env_step() == run.planned.config.total_steps


def test_the_scheduler_keeps_every_finished_run_and_makes_only_the_missing(tmp_path):
    finished(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    runs = make_runs(tmp_path, **RESULTS)
    finish(runs[1], [-1, -1, -1])  # finished before, but not kept: the file had no place for results then
    machine = Machine(runs)
    outcome, _ = schedule(runs, machine)
    assert sorted(outcome.done) == sorted(run.planned.name for run in runs)
    assert {name for _, name in machine.started} == {run.planned.name for run in runs[2:]}
    assert sorted(path.stem for path in (tmp_path / "kept").glob("*")) == sorted(run.planned.name for run in runs)


def test_the_report_is_the_same_from_kept_results_alone(tmp_path):
    for index in range(4):
        finished(tmp_path, index, [-index, -2, -3])
    experiment = make_experiment(tmp_path, **RESULTS)
    first = write_report(experiment)
    curves = (tmp_path / "runs" / "report" / "curves.csv").read_text()
    shutil.rmtree(tmp_path / "runs")
    assert write_report(experiment) == first
    assert (tmp_path / "runs" / "report" / "curves.csv").read_text() == curves


def test_a_result_of_another_configuration_is_refused_by_the_field_that_differs(tmp_path):
    finished(tmp_path)
    run = make_runs(tmp_path, **RESULTS, overrides={"td3": {"batch_size": 32}})[0]
    with pytest.raises(ConfigError, match=r"kept/smoke-pqc-s1\.json was made with td3\.batch_size = 64 and not 32"):
        run.next_task()


def test_fields_that_came_later_are_not_compared(tmp_path):
    path = finished(tmp_path)._kept
    content = json.loads(path.read_text())
    del content["config"]["td3.precision"]
    content["config"]["td3.of_old"] = 3
    path.write_text(json.dumps(content))
    shutil.rmtree(tmp_path / "runs")
    assert make_runs(tmp_path, **RESULTS)[0].next_task() is None


@pytest.mark.parametrize("changed", [{"final_episodes": 4}, {"final_seed": 7}, {"overrides": {"total_steps": 700}}])
def test_a_shorter_run_or_other_final_episodes_do_not_count(tmp_path, changed):
    finished(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    assert make_runs(tmp_path, **RESULTS, **changed)[0].next_task() == "train"


def test_a_longer_result_does_not_stand_for_a_shorter_run(tmp_path):
    finished(tmp_path)
    shutil.rmtree(tmp_path / "runs")
    run = make_runs(tmp_path, **RESULTS, overrides={"total_steps": 300})[0]
    with pytest.raises(ConfigError, match=r"smoke-pqc-s1\.json was made with total_steps = 600 and not 300"):
        run.next_task()


def test_a_round_at_the_end_does_not_take_the_place_of_the_one_before(tmp_path):
    run = make_runs(tmp_path, overrides={"total_steps": 700})[0]
    finish(run, [-1, -2, -3])
    for env_step, value in ((200, -9), (604, -5), (708, -2)):
        add_round(run, env_step, [value])
    assert read_result(run).curve == {200: -9, 600: -5, 700: -2}


def test_a_broken_result_is_named(tmp_path):
    run = finished(tmp_path)
    run._kept.write_text("{")
    with pytest.raises(ConfigError, match=r"cannot read the result .*smoke-pqc-s1\.json.*remove it to have its run"):
        run.next_task()


def test_results_say_where_they_came_from_and_are_a_line_per_round(tmp_path):
    text = finished(tmp_path)._kept.read_text()
    made = json.loads(text)["made"]
    assert str(tmp_path) not in text
    assert made["cores"] >= 1
    assert {"version", "commit", "processor", "gpu", "torch", "python"} <= made.keys()
    assert sum('"env_step"' in line for line in text.splitlines()) == 2


def test_without_a_place_nothing_is_kept(tmp_path):
    run = make_runs(tmp_path)[0]
    finish(run, [-1, -2, -3])
    run.keep()
    assert not list(tmp_path.glob("**/smoke-pqc-s1.json"))
