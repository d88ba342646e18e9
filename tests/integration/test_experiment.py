"""An experiment as people run it: killed in the middle, stopped with Ctrl-C, finished, reported."""

import json
import os
import signal
import time

import pytest
import yaml

from cluster.run_directory import read_rows
from tests.commands import Command, descendants, hdqnn, process_title
from tests.environments import PREFIX

EXPERIMENT = {
    "presets": ["smoke"],
    "blocks": ["linear", "zeros"],
    "seeds": 2,
    "overrides": {
        "env_id": f"{PREFIX}Slow-v0",
        "synchronous": True,
        "total_steps": 300,
        "td3": {"learning_starts": 60, "batch_size": 16},
        "critic.hidden_size": 16,
        "policy": {"hidden_size": 16, "circuit": {"num_qubits": 3, "num_layers": 2}},
        "evaluation.period_steps": 100,
        "log_period_steps": 40,
        "checkpoint.period_steps": 80,
        "num_threads": 1,
    },
    "baseline": "zeros",
    "final_episodes": 3,
    "bootstrap_resamples": 200,
}
RUNS = [f"smoke-{block}-s{seed}" for seed in (1, 2) for block in ("linear", "zeros")]


def runs_below(directory):
    """Process ids that still work on runs of this experiment."""
    pids = [int(lock.read_text() or 0) for lock in directory.glob("smoke-*/lock")]
    return [pid for pid in pids if str(directory.name) in process_title(pid)]


def wait_until(is_so, timeout_s=240.0):
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Killed while its first runs were under way, stopped with Ctrl-C later, and then left alone."""
    directory = tmp_path_factory.mktemp("experiment")
    (directory / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    arguments = ["experiment", "tiny.yaml", "--parallel", "2"]
    place = directory / "runs" / "tiny"
    with Command(arguments, directory) as command:
        command.wait_until(lambda: all(any(place.glob(f"{name}/checkpoints/step_*")) for name in RUNS[:2]))
        beside = hdqnn(*arguments, directory=directory)
        os.kill(command.process.pid, signal.SIGKILL)
        command.wait()
        wait_until(lambda: not runs_below(place))
    killed = {name: sorted(path.name for path in (place / name / "checkpoints").glob("step_*")) for name in RUNS[:2]}
    with Command(arguments, directory) as command:
        command.wait_until(lambda: any(place.glob(f"{RUNS[2]}/checkpoints/step_*")))
        command.press_ctrl_c()
        stopped = command.wait()
        left = [*descendants(command.process.pid), *runs_below(place)]
    last = hdqnn(*arguments, directory=directory, timeout_s=240.0)
    return directory, place, beside, killed, stopped, left, last


def test_two_experiments_never_share_a_directory(finished):
    _, _, beside, *_ = finished
    assert beside.code == 2
    assert "is training in runs/tiny" in beside.err


def test_a_killed_experiment_lets_its_runs_save_and_goes_on_with_them(finished):
    _, place, _, killed, *_ = finished
    assert all(killed.values())
    for name in RUNS[:2]:
        log = (place / "logs" / f"{name}.log").read_text()
        commands = [line.split()[2] for line in log.splitlines() if line.startswith("$ hdqnn")]
        assert commands[:2] == ["train", "resume"]
        assert commands[-1] == "evaluate"


def test_ctrl_c_saves_what_runs_and_leaves_no_process(finished):
    *_, stopped, left, _ = finished
    assert stopped.code == 130, stopped
    assert "stopping" in stopped.out
    assert "go on with:   hdqnn experiment tiny.yaml" in stopped.out
    assert stopped.err == ""
    assert left == []


def test_every_run_ends_whole_and_is_reported(finished):
    _, place, *_, last = finished
    assert last.code == 0, last
    assert "4 of 4 runs done" in last.out
    assert not (place / "set-aside").exists()
    for name in RUNS:
        steps = [row["env_step"] for row in read_rows(place / name / "evaluations.jsonl")]
        assert steps == sorted(set(steps))
        assert steps[-1] >= 300
        assert len(json.loads((place / name / "final.json").read_text())["returns"]) == 3
    content = json.loads((place / "report" / "statistics.json").read_text())
    (environment,) = content["environments"].values()
    assert {name: group["seeds"] for name, group in environment["groups"].items()} == {
        "linear": [1, 2],
        "zeros": [1, 2],
    }
    assert content["unfinished"] == []
    assert {path.name for path in (place / "report").iterdir()} == {
        *("curves.csv", "curves.png", "finals.csv", "report.md", "statistics.json"),
    }
    assert (place / "report" / "report.md").read_text() in last.out


def test_a_finished_experiment_starts_nothing_and_gives_the_same_report(finished):
    directory, place, *_ = finished
    before = (place / "report" / "statistics.json").read_text()
    again = hdqnn("experiment", "tiny.yaml", directory=directory)
    assert again.code == 0, again
    assert (place / "report" / "statistics.json").read_text() == before
    plan = hdqnn("experiment", "tiny.yaml", "--dry-run", directory=directory)
    assert plan.out == "4 runs, 4 finished; 1 side by side\n"


def test_a_failing_run_is_reported_with_its_log_and_the_rest_goes_on(tmp_path):
    values = {**EXPERIMENT, "presets": ["smoke"], "seeds": 1, "final_episodes": 0}
    values["variants"] = {"well": {"env_id": "Pendulum-v1"}, "badly": {"env_id": f"{PREFIX}NaNSoon-v0"}}
    values.update(blocks=["zeros"], baseline=None)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(values))
    finished = hdqnn("experiment", "tiny.yaml", "--parallel", "1", directory=tmp_path)
    assert finished.code == 1, finished
    assert "smoke-badly-zeros-s1: FAILED, train ended with 2" in finished.out
    assert "failed:       smoke-badly-zeros-s1, log runs/tiny/logs/smoke-badly-zeros-s1.log" in finished.out
    assert "Not finished, so in none of the tables: smoke-badly-zeros-s1." in finished.out
    assert "| zeros well | 1 |" in finished.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.yaml"], "cannot read the experiment none.yaml"),
        (["tiny.yaml", "--parallel", "0"], "--parallel must be at least 1, got 0"),
        (["tiny.yaml", "--report"], "no run of tiny in runs/tiny is finished"),
    ],
)
def test_bad_calls_are_refused_with_one_line(tmp_path, arguments, message):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    finished = hdqnn("experiment", *arguments, directory=tmp_path)
    assert finished.code == 2
    assert message in finished.err
    assert finished.err.count("\n") == 1
