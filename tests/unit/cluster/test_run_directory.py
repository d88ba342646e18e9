"""What a run leaves behind: its directory, its rows, its picture, its line in a report."""

import json
import shutil

import pytest

from cluster.__main__ import run
from cluster.command_report import summarise
from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.metrics import MetricsWriter
from cluster.plot import draw_curve
from cluster.run_directory import RunDirectory, create_run_directory, drop_rows_after, open_run_directory, read_rows

PNG = b"\x89PNG"


def make_run(path, *, rounds=((100, [-5.0, -3.0]), (200, [-1.0, 0.0]), (300, [-2.0, -2.0])), **config):
    run_directory = create_run_directory(RunConfig(run_dir=path, **config), "preset")
    writer = MetricsWriter(run_directory)
    for env_step, returns in rounds:
        writer.evaluation(env_step=env_step, update_step=env_step // 2, version=env_step // 10, returns=returns)
        writer.metrics(
            env_step=env_step, update_step=1, values={"rollout/episode_return": -9.0, "learner/q_value": 1.5}
        )
    writer.close()
    return run_directory


def test_a_new_run_has_its_configuration_and_can_be_opened(tmp_path):
    config = RunConfig(run_dir=tmp_path / "a" / "b", seed=5)
    created = create_run_directory(config, "preset")
    assert open_run_directory(tmp_path / "a" / "b") == (created, config)


def test_a_copy_of_a_directory_is_another_one(tmp_path):
    original = create_run_directory(RunConfig(run_dir=tmp_path / "a"), "preset")
    shutil.copytree(original.path, tmp_path / "b")
    assert original.identity() == RunDirectory(tmp_path / "b" / ".." / "a").identity()
    assert original.identity() != RunDirectory(tmp_path / "b").identity()


def test_without_a_name_the_directory_tells_preset_time_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    created = create_run_directory(RunConfig(seed=7), "pendulum")
    assert created.path.parent.name == "runs"
    assert created.path.match("pendulum-[0-9]*-[0-9]*-s7")


def test_an_existing_directory_is_refused_and_untouched(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"exists already; expected a new one.*hdqnn resume .*--run-dir"):
        create_run_directory(RunConfig(run_dir=tmp_path), "preset")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the run directory"):
        create_run_directory(RunConfig(run_dir=tmp_path / "file" / "run"), "preset")


def test_rows_are_valid_json_with_both_clocks(tmp_path):
    run_directory = make_run(tmp_path / "run")
    rows = [json.loads(line) for line in run_directory.metrics.read_text().splitlines()]
    assert rows[0] == {"env_step": 100, "update_step": 1, "rollout/episode_return": -9.0, "learner/q_value": 1.5}
    rounds = [json.loads(line) for line in run_directory.evaluations.read_text().splitlines()]
    assert rounds[0] == {
        "env_step": 100,
        "update_step": 50,
        "policy_version": 10,
        "mean_return": -4.0,
        "returns": [-5.0, -3.0],
    }
    assert list(run_directory.tensorboard.glob("events.out.tfevents.*"))


def test_rows_reach_the_disk_as_they_are_written(tmp_path):
    run_directory = create_run_directory(RunConfig(run_dir=tmp_path / "run"), "preset")
    writer = MetricsWriter(run_directory)
    writer.metrics(env_step=1, update_step=0, values={})
    assert len(list(read_rows(run_directory.metrics))) == 1
    writer.close()


def test_a_resumed_run_appends(tmp_path):
    run_directory = make_run(tmp_path / "run")
    writer = MetricsWriter(run_directory)
    writer.metrics(env_step=400, update_step=0, values={})
    writer.close()
    assert [row["env_step"] for row in read_rows(run_directory.metrics)] == [100, 200, 300, 400]


def test_a_last_row_that_a_crash_cut_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"env_step": 1}\n{"env_step": 2}\n{"env_st')
    assert [row["env_step"] for row in read_rows(path)] == [1, 2]
    drop_rows_after(path, 1)
    assert path.read_text() == '{"env_step": 1}\n'
    assert list(read_rows(tmp_path / "missing.jsonl")) == []
    drop_rows_after(tmp_path / "missing.jsonl", 1)
    assert not (tmp_path / "missing.jsonl").exists()


def test_rows_are_kept_where_forgetting_the_newer_ones_fails(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"env_step": 1}\n{"env_step": 2}\n')

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", fail)
        with pytest.raises(OSError, match="No space"):
            drop_rows_after(path, 1)
    assert len(list(read_rows(path))) == 2


def test_a_path_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is not a run directory: it has no config\.yaml"):
        open_run_directory(tmp_path)


def test_the_curve_is_drawn_from_rows_and_rounds(tmp_path):
    run_directory = make_run(tmp_path / "run")
    assert draw_curve(run_directory, "title") == run_directory.curve
    assert run_directory.curve.read_bytes().startswith(PNG)


def test_nothing_to_draw_makes_no_picture(tmp_path):
    run_directory = make_run(tmp_path / "run", rounds=())
    assert draw_curve(run_directory, "title") is None
    assert not run_directory.curve.exists()


def test_a_summary_finds_last_best_and_first_round_at_the_goal(tmp_path):
    make_run(tmp_path / "run", block="linear", seed=3)
    row = summarise(tmp_path / "run", goal=-2.0)
    assert row == {
        "run": "run",
        "env_id": "Pendulum-v1",
        "block": "linear",
        "backend": "none",
        "seed": 3,
        "env_step": 300,
        "last": -2.0,
        "best": -0.5,
        "reached": 200,
    }
    assert summarise(tmp_path / "run", goal=0.0)["reached"] is None
    assert summarise(tmp_path / "run", goal=None)["reached"] is None


def test_a_goal_at_the_very_first_step_is_told(tmp_path, capsys):
    make_run(tmp_path / "run", rounds=((0, [0.0]),))
    assert run(["report", str(tmp_path / "run"), "--goal", "-1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 0.0 | 0.0 | 0 |")


def test_a_report_is_a_table_json_and_a_picture(tmp_path, capsys):
    make_run(tmp_path / "a", backend="statevector")
    make_run(tmp_path / "b", rounds=())
    arguments = ["report", str(tmp_path / "a"), str(tmp_path / "b"), "--goal", "-1"]
    assert run([*arguments, "--json", str(tmp_path / "r.json"), "--picture", str(tmp_path / "p.png")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| run | environment | block | backend | seed | steps | last test | best test | first test ≥ goal |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| a | Pendulum-v1 | pqc | statevector | 1 | 300 | -2.0 | -0.5 | 200 |",
        "| b | Pendulum-v1 | pqc | none | 1 | 0 | – | – | – |",
    ]
    assert [row["run"] for row in json.loads((tmp_path / "r.json").read_text())] == ["a", "b"]
    assert (tmp_path / "p.png").read_bytes().startswith(PNG)


def test_a_report_of_the_current_directory_names_it(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    assert run(["report", "."]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("| run | Pendulum-v1 |")


def test_paths_of_a_run(tmp_path):
    paths = RunDirectory(tmp_path)
    assert {paths.config.name, paths.metrics.name, paths.evaluations.name, paths.curve.name} == {
        "config.yaml",
        "metrics.jsonl",
        "evaluations.jsonl",
        "curve.png",
    }


def test_a_report_by_block_counts_every_seed(tmp_path, capsys):
    for seed, last in ((1, -100.0), (2, -300.0), (3, -200.0)):
        make_run(tmp_path / f"s{seed}", seed=seed, rounds=((100, [-900.0]), (200 * seed, [last])))
    assert run(["report", *(str(tmp_path / f"s{seed}") for seed in (1, 2, 3)), "--goal", "-200", "--by-block"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == "| Pendulum-v1 | pqc | 3 | -200.0 | -300.0 | -100.0 | 2 of 3 | 400 |"
