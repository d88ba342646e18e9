"""The report of an experiment: every seed's numbers, statistics with intervals, tables and a figure.

Only finished runs are judged, always by the last policy; runs that are missing are named, never left out in silence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import ConfigError
from cluster.experiment.figure import Curve, draw_figure
from cluster.experiment.grid import Experiment
from cluster.experiment.results import RunResult, read_result, write_curves, write_finals
from cluster.experiment.runs import experiment_runs
from cluster.experiment.statistics import Bootstrap, common_points
from cluster.experiment.tables import markdown

_NUM_THRESHOLDS = 41
Groups = Mapping[str, Sequence[RunResult]]


def write_report(experiment: Experiment) -> str:
    """Write the report's files into the experiment's directory; returns the tables as Markdown.

    Raises:
        ConfigError: if no run is finished.
    """
    runs = experiment_runs(experiment)
    results = [result for run in runs if (result := read_result(run)) is not None]
    finished = [result for result in results if result.is_finished]
    if not finished:
        raise ConfigError(
            f"no run of {experiment.name} in {experiment.directory} is finished; expected at least one: run "
            "`hdqnn experiment FILE` without --report first"
        )
    bootstrap = Bootstrap(experiment.bootstrap_resamples)
    grouped = _group(experiment, finished)
    names = {result.name for result in finished}
    content = {
        "experiment": experiment.name,
        "unfinished": [run.planned.name for run in runs if run.planned.name not in names],
        "score": _score_text(experiment),
        "interval": f"95 % percentile bootstrap over seeds, {bootstrap.resamples} resamples",
        "environments": {
            env_id: _environment(experiment, env_id, groups, bootstrap) for env_id, groups in grouped.items()
        },
        "improvement_over_all_environments": _over_all(experiment, grouped, bootstrap),
    }
    directory = report_directory(experiment)
    directory.mkdir(parents=True, exist_ok=True)
    write_curves(runs, directory / "curves.csv")
    write_finals(finished, directory / "finals.csv")
    (directory / "statistics.json").write_text(json.dumps(content, indent=1) + "\n")
    text = markdown(content)
    (directory / "report.md").write_text(text)
    curves = {
        env_id: [_curve(name, group, bootstrap) for name, group in groups.items()] for env_id, groups in grouped.items()
    }
    draw_figure(curves, directory / "curves.png", experiment.goals)
    return text


def report_directory(experiment: Experiment) -> Path:
    """Where the report is."""
    return experiment.directory / "report"


def _group(experiment: Experiment, results: Sequence[RunResult]) -> dict[str, dict[str, list[RunResult]]]:
    """Environment → group → runs, in the order of the file; groups without a finished run are left out."""
    return {
        env_id: {group: members for group in groups if (members := _members(results, env_id, group))}
        for env_id, groups in experiment.environments().items()
        if any(result.env_id == env_id for result in results)
    }


def _members(results: Sequence[RunResult], env_id: str, group: str) -> list[RunResult]:
    return [result for result in results if (result.env_id, result.group) == (env_id, group)]


def _scores(results: Sequence[RunResult]) -> np.ndarray:
    return np.array([result.score for result in results], dtype=np.float64)


def _environment(experiment: Experiment, env_id: str, groups: Groups, bootstrap: Bootstrap) -> dict[str, Any]:
    goal = experiment.goals.get(env_id)
    baseline = _baseline(experiment, groups)
    every_score = np.concatenate([_scores(results) for results in groups.values()])
    thresholds = np.linspace(every_score.min(), every_score.max(), _NUM_THRESHOLDS)

    def judge(name: str, results: Sequence[RunResult]) -> dict[str, Any]:
        scores = _scores(results)
        profile = bootstrap.profile(scores, thresholds)
        return {
            "seeds": [result.seed for result in results],
            "scores": scores.tolist(),
            "env_steps": [result.env_step for result in results],
            **asdict(bootstrap.summary(scores)),
            "lowest": float(scores.min()),
            "highest": float(scores.max()),
            "optimality_gap": None if goal is None else asdict(bootstrap.optimality_gap(scores, goal)),
            "reached_goal": None if goal is None else int((scores >= goal).sum()),
            "improvement": None
            if baseline is None or baseline == name
            else asdict(bootstrap.improvement([scores], [_scores(groups[baseline])])),
            "profile": {name: getattr(profile, name).tolist() for name in ("value", "low", "high")},
        }

    return {
        "goal": goal,
        "baseline": baseline,
        "profile_thresholds": thresholds.tolist(),
        "groups": {name: judge(name, results) for name, results in groups.items()},
    }


def _baseline(experiment: Experiment, groups: Groups) -> str | None:
    return next((name for name in experiment.baselines if name in groups), None)


def _over_all(experiment: Experiment, grouped: Mapping[str, Groups], bootstrap: Bootstrap) -> dict[str, Any]:
    """Improvement averaged over environments, of the groups that every environment has."""
    baselines = {env_id: name for env_id, groups in grouped.items() if (name := _baseline(experiment, groups))}
    if len(grouped) < 2 or len(baselines) < len(grouped):
        return {}
    theirs = [_scores(groups[baselines[env_id]]) for env_id, groups in grouped.items()]
    shared = set.intersection(*map(set, grouped.values())) - set(baselines.values())
    return {
        name: asdict(bootstrap.improvement([_scores(groups[name]) for groups in grouped.values()], theirs))
        for name in next(iter(grouped.values()))
        if name in shared
    }


def _curve(name: str, results: Sequence[RunResult], bootstrap: Bootstrap) -> Curve:
    steps, values = common_points([result.curve for result in results])
    return Curve(name, steps, bootstrap.curve(values), values)


def _score_text(experiment: Experiment) -> str:
    if experiment.final_episodes:
        return f"mean return of {experiment.final_episodes} test episodes of the last policy"
    return "mean return of the last test round"
