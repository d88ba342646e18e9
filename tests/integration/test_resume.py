"""A run that was stopped, or killed, goes on: in lockstep bit for bit, over processes with all of its counters."""

import os
import shutil
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.config import read_config
from cluster.run_directory import RunDirectory, read_rows
from tests.commands import TINY, Command, hdqnn
from tests.environments import PREFIX
from tests.integration.stored_segments import assert_every_transition_is_there_once, read_replay

STEPS = 800
LOCKSTEP = ["train", "smoke", *TINY, "--synchronous", "--total-steps", str(STEPS), "--td3.learning-starts", "100"]
LOCKSTEP += ["--evaluation.period-steps", "150", "--log-period-steps", "60", "--run-dir", "run"]
SLOWLY = ["--env-id", f"{PREFIX}Slow-v0"]


def rows(path):
    """Rows without what depends on the machine."""
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(path)]


def newest_tensors(run):
    newest = sorted(run.checkpoints.glob("step_*"))[-1]
    return {f"{path.stem}.{k}": v for path in newest.glob("*.safetensors") for k, v in load_file(path).items()}


def assert_same_run(first, second):
    assert rows(first.metrics) == rows(second.metrics)
    assert rows(first.evaluations) == rows(second.evaluations)
    a, b = newest_tensors(first), newest_tensors(second)
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    finished = hdqnn(*LOCKSTEP, *SLOWLY, directory=directory)
    assert finished.code == 0, finished
    return RunDirectory(directory / "run")


def test_a_stopped_lockstep_run_goes_on_bit_for_bit(tmp_path, uninterrupted):
    run = RunDirectory(tmp_path / "run")
    with Command([*LOCKSTEP, *SLOWLY], tmp_path) as command:
        command.wait_until(lambda: len(rows(run.metrics)) >= 3)
        beside = hdqnn("resume", "run", directory=tmp_path)
        command.process.send_signal(signal.SIGTERM)
        finished = command.wait()
    assert beside.code == 2, "two processes trained in one directory"
    assert f"process {command.process.pid} is training in run" in beside.err
    assert beside.err.count("\n") == 1
    assert finished.code == 130, finished
    assert finished.err == ""
    assert "stopped and saved after" in finished.out
    assert "hdqnn resume run" in finished.out
    finished = hdqnn("resume", "run", directory=tmp_path)
    assert finished.code == 0, finished
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
def test_a_killed_lockstep_run_goes_on_bit_for_bit_from_its_last_checkpoint(tmp_path, uninterrupted, is_damaged):
    run = RunDirectory(tmp_path / "run")
    with Command([*LOCKSTEP, *SLOWLY, "--checkpoint.period-steps", "200"], tmp_path) as command:
        # Rows beyond the checkpoint must be forgotten, so it is killed well after it.
        command.wait_until(lambda: any(row["env_step"] >= 440 for row in rows(run.metrics)))
        os.kill(command.process.pid, signal.SIGKILL)
        assert command.wait().code == -signal.SIGKILL
    if is_damaged:
        newest = sorted(run.checkpoints.glob("step_*"))[-1] / "learner.safetensors"
        damaged = bytearray(newest.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        newest.write_bytes(damaged)
    finished = hdqnn("resume", "run", directory=tmp_path)
    assert finished.code == 0, finished
    assert ("is damaged" in finished.err) is is_damaged
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize("has_first", [True, False], ids=["only the one of its start", "none at all"])
def test_a_lockstep_run_killed_before_its_first_checkpoint_was_due_goes_on_bit_for_bit(
    tmp_path, uninterrupted, has_first
):
    run = RunDirectory(tmp_path / "run")
    with Command([*LOCKSTEP, *SLOWLY], tmp_path) as command:
        command.wait_until(lambda: len(rows(run.metrics)) >= 3)
        os.kill(command.process.pid, signal.SIGKILL)
        command.wait()
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_000000000000"]
    assert (run.replay / "journal.bin").stat().st_size > 0
    if not has_first:
        # As where the disk was full at the start.
        shutil.rmtree(run.checkpoints)
    finished = hdqnn("resume", "run", directory=tmp_path)
    assert finished.code == 0, finished
    assert ("starts again from its first step" in finished.err) is not has_first
    assert_same_run(run, uninterrupted)


def test_a_run_can_be_made_longer(tmp_path):
    short = [argument if argument != str(STEPS) else "300" for argument in LOCKSTEP]
    assert hdqnn(*short, directory=tmp_path).code == 0
    finished = hdqnn("resume", "run", "--total-steps", "400", directory=tmp_path)
    assert finished.code == 0, finished
    run = RunDirectory(tmp_path / "run")
    steps = [row["env_step"] for row in rows(run.metrics)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 400
    assert rows(run.metrics)[-1]["update_step"] == 300
    assert read_config(run.config).total_steps == 400, "stopped now, it would be resumed to its first length"
    again = hdqnn("resume", "run", directory=tmp_path)
    assert "for 400 steps" in again.out, again


@pytest.fixture(scope="module")
def stopped_and_resumed(tmp_path_factory):
    """A run over processes that was stopped with Ctrl-C and resumed to its end: both ends, what was stored between."""
    directory = tmp_path_factory.mktemp("distributed")
    run = RunDirectory(directory / "run")
    arguments = ["train", "smoke", *TINY, *SLOWLY, "--run-dir", "run", "--td3.updates-per-step", "0.5"]
    arguments += ["--actors.num-actors", "2", "--qpu.num-workers", "2", "--total-steps", "100000"]
    with Command(arguments, directory) as command:
        command.wait_until(lambda: rows(run.metrics) and rows(run.metrics)[-1]["env_step"] >= 700)
        command.press_ctrl_c()
        stopped = command.wait()
    before = read_replay(run.path)
    total_steps = before[1]["inserted"] + 400
    resumed = hdqnn("resume", "run", "--total-steps", total_steps, directory=directory)
    return run, stopped, before, resumed, read_replay(run.path)


@pytest.mark.ray
@pytest.mark.redis
def test_ctrl_c_saves_a_distributed_run_and_says_how_to_go_on(stopped_and_resumed):
    _, stopped, (segments, counters), _, _ = stopped_and_resumed
    assert stopped.code == 130, stopped
    assert stopped.err == ""
    assert "stopped and saved after" in stopped.out
    assert "go on with:   hdqnn resume run" in stopped.out
    sequences = assert_every_transition_is_there_once(segments, counters)
    assert {actor_id for actor_id, _ in sequences} == {0, 1}


@pytest.mark.ray
@pytest.mark.redis
def test_a_resumed_distributed_run_keeps_its_replay_and_goes_on_counting(stopped_and_resumed):
    run, _, (_, before), resumed, (segments, after) = stopped_and_resumed
    assert resumed.code == 0, resumed
    assert resumed.err == ""
    assert after["inserted"] >= before["inserted"] + 400
    sequences = assert_every_transition_is_there_once(segments, after)
    assert set(sequences) == {(0, 1), (1, 1), (0, 2), (1, 2)}
    metrics = rows(run.metrics)
    assert metrics[-1]["replay/size"] == metrics[-1]["env_step"] == after["inserted"]
    assert metrics[-1]["update_step"] == pytest.approx(0.5 * (after["inserted"] - 200), abs=1)
    clocks = [(row["env_step"], row["update_step"]) for row in metrics]
    assert clocks == sorted(set(clocks))


@pytest.mark.ray
@pytest.mark.redis
def test_versions_go_on_after_a_resume(stopped_and_resumed):
    run, _, (old, counters), _, (segments, after) = stopped_and_resumed
    new = segments[len(old) :]
    assert after["policy_version"] > counters["policy_version"]
    assert max(segment.policy_versions.max() for segment in new) > counters["policy_version"]
    assert min(segment.policy_versions.min() for segment in new) > 0, "a new actor acted with unpublished parameters"
    versions = [row["policy_version"] for row in rows(run.evaluations)]
    assert versions == sorted(set(versions))


@pytest.mark.ray
@pytest.mark.redis
def test_a_run_that_waits_for_its_last_round_can_be_stopped_and_makes_it_after_a_resume(tmp_path):
    run = RunDirectory(tmp_path / "run")
    arguments = ["train", "smoke", *TINY, *SLOWLY, "--run-dir", "run", "--total-steps", "260"]
    # 60 episodes of 20 steps of 5 ms: a round takes 6 s, and there is no other one.
    arguments += ["--log-period-steps", "260", "--evaluation.period-steps", "1000", "--evaluation.num-episodes", "60"]
    with Command(arguments, tmp_path) as command:
        command.wait_until(lambda: rows(run.metrics))
        command.press_ctrl_c()
        stopped = command.wait()
    assert stopped.code == 130, stopped
    assert rows(run.evaluations) == []
    assert "go on with:   hdqnn resume run" in stopped.out
    resumed = hdqnn("resume", "run", directory=tmp_path)
    assert resumed.code == 0, resumed
    last = rows(run.metrics)[-1]
    assert last["update_step"] == last["env_step"] - 200
    (tested,) = rows(run.evaluations)
    assert (tested["env_step"], tested["update_step"]) == (last["env_step"], last["update_step"])
