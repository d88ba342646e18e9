"""What a run needs next is read from its directory, whatever was killed when."""

import dataclasses
import json

import pytest

from cluster.errors import ConfigError
from tests.unit.cluster.experiment.places import begin, evaluate, finish, make_runs


def test_a_run_goes_from_train_over_evaluate_to_nothing(tmp_path):
    run = make_runs(tmp_path)[0]
    assert run.next_task() == "train"
    begin(run)
    assert run.next_task() == "resume"
    run.record("resume")
    assert run.next_task() == "evaluate"
    evaluate(run, [1, 2, 3])
    assert run.next_task() == "evaluate", "a result counts when its command has ended well"
    run.record("evaluate")
    assert run.next_task() is None
    assert run.final_returns() == [1, 2, 3]


def test_without_final_episodes_training_is_all(tmp_path):
    run = make_runs(tmp_path, final_episodes=0)[0]
    begin(run)
    run.record("train")
    assert run.next_task() is None


def test_more_final_episodes_are_run_anew(tmp_path):
    finish(make_runs(tmp_path)[0], [1, 2, 3])
    assert make_runs(tmp_path, final_episodes=4)[0].next_task() == "evaluate"


def test_a_longer_experiment_resumes_finished_runs_and_judges_them_anew(tmp_path):
    finish(make_runs(tmp_path)[0], [1, 2, 3])
    longer = make_runs(tmp_path, overrides={"total_steps": 900})[0]
    assert longer.next_task() == "resume"
    assert longer.arguments("resume", None) == ["resume", str(longer.run.path), "--total-steps", "900"]
    longer.record("resume")
    assert longer.next_task() == "evaluate"
    assert longer.final_returns() is None


def test_a_directory_without_a_checkpoint_is_set_aside_and_kept(tmp_path):
    run = make_runs(tmp_path)[0]
    for count in (1, 2):
        begin(run, has_checkpoint=False)
        (run.run.path / "mark").write_text(str(count))
        assert run.next_task() == "train"
        run.prepare("train")
        assert not run.run.path.exists()
    kept = sorted((tmp_path / "runs" / "set-aside").glob("*/mark"))
    assert [mark.read_text() for mark in kept] == ["1", "2"]


def test_a_resumed_directory_is_left_where_it_is(tmp_path):
    run = make_runs(tmp_path)[0]
    begin(run)
    run.prepare("resume")
    assert run.run.config.is_file()


def test_a_run_of_another_configuration_is_refused(tmp_path):
    run = make_runs(tmp_path)[0]
    begin(run)
    changed = make_runs(tmp_path, overrides={"td3.batch_size": 32})[0]
    with pytest.raises(ConfigError, match=r"smoke-pqc-s1 was made with td3\.batch_size = 64 and not 32;"):
        changed.next_task()


def test_a_longer_run_does_not_stand_for_a_shorter_one(tmp_path):
    finish(make_runs(tmp_path)[0], [1, 2, 3])
    shorter = make_runs(tmp_path, overrides={"total_steps": 300})[0]
    with pytest.raises(ConfigError, match=r"was made with total_steps = 600 and not 300"):
        shorter.next_task()


@pytest.mark.parametrize("schedule", [{"td3.final_learning_rate_share": 0.1}, {"critic.final_asymmetry": 0.4}])
def test_a_run_with_schedules_is_not_made_longer(tmp_path, schedule):
    # Its rates have fallen already where those of a run that was that long from the start have not.
    finish(make_runs(tmp_path, overrides=schedule)[0], [1, 2, 3])
    longer = make_runs(tmp_path, overrides={**schedule, "total_steps": 900})[0]
    with pytest.raises(ConfigError, match=r"was made with total_steps = 600 and not 900"):
        longer.next_task()


@pytest.mark.parametrize("change", [{"backend": "statevector"}, {"num_threads": 3}, {"total_steps": 10}])
def test_where_and_how_a_run_was_made_may_differ(tmp_path, change):
    run = make_runs(tmp_path)[0]
    begin(run, config=dataclasses.replace(run.planned.config, **change))
    assert run.next_task() == "resume"


def test_commands(tmp_path):
    run = make_runs(tmp_path, seeds=[4])[1]
    flags = ["--block", "zeros", "--seed", "4"]
    place = ["--run-dir", str(tmp_path / "runs" / "smoke-zeros-s4")]
    assert run.arguments("train", None) == ["train", "smoke", *flags, *place]
    assert run.arguments("train", 2) == ["train", "smoke", *flags, "--num-threads", "2", *place]
    assert run.arguments("evaluate", 2)[:6] == ["evaluate", place[1], "--episodes", "3", "--seed", "12345"]
    own = make_runs(tmp_path, overrides={"num_threads": 5})[0]
    assert own.arguments("train", 2).count("--num-threads") == 1


def test_steps_are_those_of_the_newest_whole_row(tmp_path):
    run = make_runs(tmp_path)[0]
    assert run.env_step() == 0
    begin(run)
    rows = [json.dumps({"env_step": step, "padding": "x" * 5_000}) for step in range(0, 3_000, 100)]
    run.run.metrics.write_text("\n".join(rows) + '\n{"env_step": 30')
    assert run.env_step() == 2_900
