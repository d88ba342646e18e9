"""Experiments on disk as their commands would leave them, without running any."""

import json

import yaml

from cluster.config import write_config
from cluster.experiment.grid import read_experiment
from cluster.experiment.runs import experiment_runs


def make_experiment(tmp_path, **fields):
    path = tmp_path / "blocks.yaml"
    values = {"presets": "smoke", "blocks": ["pqc", "zeros"], "seeds": 2, "final_episodes": 3, **fields}
    path.write_text(yaml.safe_dump(values))
    return read_experiment(path, tmp_path / "runs")


def make_runs(tmp_path, **fields):
    return experiment_runs(make_experiment(tmp_path, **fields))


def begin(run, *, has_checkpoint=True, config=None):
    """What `hdqnn train` leaves when it is stopped."""
    run.run.path.mkdir(parents=True)
    write_config(config or run.planned.config, run.run.config)
    if has_checkpoint:
        checkpoint = run.run.checkpoints / "step_000000000100"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")


def add_round(run, env_step, returns):
    row = {
        "env_step": env_step,
        "update_step": env_step - 50,
        "policy_version": 1,
        "mean_return": sum(returns) / len(returns),
        "returns": list(returns),
    }
    with run.run.evaluations.open("a") as file:
        file.write(json.dumps(row) + "\n")


def evaluate(run, returns):
    """What `hdqnn evaluate --json` leaves."""
    run._unfinished_final.write_text(json.dumps({"returns": list(returns)}))


def finish(run, returns):
    """A run that is trained and evaluated."""
    begin(run)
    run.record("train")
    evaluate(run, returns)
    run.record("evaluate")
