"""The report's files against what was put into the directories; the figure's lines; what is left out is named."""

import csv
import json

import numpy as np
import pytest

from cluster.errors import ConfigError
from cluster.experiment.figure import rolling_mean
from cluster.experiment.report import report_directory, write_report
from cluster.experiment.results import read_result
from cluster.experiment.runs import experiment_runs
from tests.unit.cluster.experiment.places import add_round, begin, finish, make_experiment

FIELDS = {"blocks": ["pqc", "zeros"], "seeds": 3, "goals": {"Pendulum-v1": -300.0}, "bootstrap_resamples": 200}
FINALS = {
    "smoke-pqc-s1": [-100, -200, -300],
    "smoke-pqc-s2": [-400, -400, -400],
    "smoke-pqc-s3": [-250, -300, -350],
    "smoke-zeros-s1": [-500, -500, -500],
    "smoke-zeros-s2": [-300, -300, -600],
}


@pytest.fixture
def experiment(tmp_path):
    """Five finished runs and one that has just begun."""
    experiment = make_experiment(tmp_path, baseline="zeros", **FIELDS)
    for run in experiment_runs(experiment):
        name = run.planned.name
        if name in FINALS:
            finish(run, FINALS[name])
        else:
            begin(run)
        for index, env_step in enumerate((204, 408, 612) if name in FINALS else (204,)):
            add_round(run, env_step, [-1000 + 100 * index + run.planned.seed, -1200.0])
    return experiment


def read(experiment, name):
    with (report_directory(experiment) / name).open() as file:
        return list(csv.DictReader(file))


def test_statistics_are_of_finished_runs_and_their_last_policies(experiment):
    text = write_report(experiment)
    content = json.loads((report_directory(experiment) / "statistics.json").read_text())
    assert content["unfinished"] == ["smoke-zeros-s3"]
    groups = content["environments"]["Pendulum-v1"]["groups"]
    assert groups["pqc"]["scores"] == [-200, -400, -300]
    assert groups["pqc"]["seeds"] == [1, 2, 3]
    assert groups["zeros"]["scores"] == [-500, -400]
    assert groups["pqc"]["mean"]["value"] == groups["pqc"]["iqm"]["value"] == -300
    assert groups["pqc"]["reached_goal"] == 2
    assert groups["pqc"]["optimality_gap"]["value"] == pytest.approx(100 / 3)
    assert groups["pqc"]["improvement"]["value"] == pytest.approx(5.5 / 6)
    assert groups["zeros"]["improvement"] is None
    profile, thresholds = groups["pqc"]["profile"], content["environments"]["Pendulum-v1"]["profile_thresholds"]
    assert (thresholds[0], thresholds[-1]) == (-500, -200)
    assert profile["value"] == [sum(score > tau for score in (-200, -400, -300)) / 3 for tau in thresholds]
    assert "| pqc | 3 | -300.0 [-400.0, -200.0] |" in text
    assert "P(better than zeros)" in text
    assert "| 2 of 3 |" in text
    assert "Not finished, so in none of the tables: smoke-zeros-s3." in text
    assert (report_directory(experiment) / "report.md").read_text() == text


def test_curves_hold_every_round_of_every_run_unrounded(experiment):
    write_report(experiment)
    rows = read(experiment, "curves.csv")
    assert len(rows) == 5 * 3 + 1
    row = next(row for row in rows if (row["block"], row["seed"], row["env_step"]) == ("pqc", "2", "408"))
    assert (row["environment"], row["group"], row["variant"]) == ("Pendulum-v1", "pqc", "default")
    found = [float(row[name]) for name in ("mean_return", "lowest_return", "highest_return")]
    assert found == [-1049, -1200, -898]
    finals = read(experiment, "finals.csv")
    assert len(finals) == 5
    assert [float(row["mean_return"]) for row in finals if row["block"] == "zeros"] == [-500, -400]
    assert {row["episodes"] for row in finals} == {"3"}


def test_rounds_are_brought_to_the_steps_that_were_asked_for(experiment):
    result = read_result(experiment_runs(experiment)[0])
    assert list(result.curve) == [200, 400, 600]
    assert result.env_step == 612


def test_without_final_episodes_the_last_round_is_the_score(tmp_path):
    experiment = make_experiment(tmp_path, final_episodes=0, **FIELDS)
    run = experiment_runs(experiment)[0]
    begin(run)
    run.record("train")
    for env_step, returns in ((300, [-1, -1]), (600, [-10, -20])):
        add_round(run, env_step, returns)
    result = read_result(run)
    assert (result.is_finished, result.score) == (True, -15)
    assert "mean return of the last test round" in write_report(experiment)


def test_improvement_over_all_environments(tmp_path):
    fields = {"presets": ["smoke", "hopper"], "blocks": ["pqc", "zeros"], "seeds": 2, "bootstrap_resamples": 200}
    experiment = make_experiment(tmp_path, baseline="zeros", **fields)
    for run in experiment_runs(experiment):
        better = (run.planned.block == "pqc") == (run.planned.preset == "smoke")
        finish(run, [float(better)] * 3)
        add_round(run, 600, [0.0])
        add_round(run, 1_200, [1.0])
    text = write_report(experiment)
    content = json.loads((report_directory(experiment) / "statistics.json").read_text())
    assert content["improvement_over_all_environments"]["pqc"]["value"] == 0.5
    values = [env["groups"]["pqc"]["improvement"]["value"] for env in content["environments"].values()]
    assert values == [1.0, 0.0]
    assert "## Over all environments" in text
    assert (report_directory(experiment) / "curves.png").stat().st_size > 10_000


def test_nothing_finished_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"no run of blocks .* is finished; .*without --report first"):
        write_report(make_experiment(tmp_path, **FIELDS))


def test_rolling_mean_starts_with_what_there_is():
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(rolling_mean(values, 2), [4, 3, 4, 7])
    np.testing.assert_allclose(rolling_mean(values, 10), [4, 3, 4, 5])
