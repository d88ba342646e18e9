"""The command line as a function: usage, unknown commands, exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.__main__ import run
from cluster.output_file import prepare_output_file


def test_help_lists_every_command_and_every_exit_code(capsys):
    assert run(["--help"]) == 0
    captured = capsys.readouterr()
    for word in ("train", "resume", "evaluate", "report", "bench", "doctor", "exit codes: 0 done, 1", "130 stopped"):
        assert word in captured.out
    for word in ("replay", "hdqnn replay list | drop RUN"):
        assert word in captured.out
    assert captured.err == ""


def test_no_command_shows_the_usage_and_is_refused(capsys):
    assert run([]) == 2
    assert "usage: hdqnn COMMAND" in capsys.readouterr().out


def test_an_unknown_command_names_the_known_ones(capsys):
    assert run(["tran"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "unknown command 'tran'; expected one of train, resume" in captured.err


def test_nobody_waits_for_torch_or_numba_to_read_help_or_to_be_told_of_a_mistake(tmp_path):
    code = f"""if True:
        import os, sys
        from cluster.__main__ import run
        os.environ.pop("REDIS_URL", None)
        assert run(["replay", "list"]) == 2
        assert run(["train", "--help"]) == 0
        assert run(["train", "humanoids"]) == 2
        assert run(["train", "smoke", "--env-id", "CartPole-v1"]) == 2
        assert run(["export", {str(tmp_path)!r}, "policy.safetensors"]) == 2
        for command in ("resume", "evaluate", "report"):
            assert run([command, {str(tmp_path)!r}]) == 2
        sys.exit(bool({{"torch", "numba"}} & set(sys.modules)))
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_end_closes_what_it_opened(tmp_path, number):
    (tmp_path / "waiting.py").write_text(
        """if True:
        import sys, time
        def run(arguments):
            try:
                print("waiting", flush=True)
                time.sleep(60)
            finally:
                print("closed", flush=True)
        """
    )
    code = """if True:
        import cluster.__main__ as command_line
        command_line._COMMANDS["evaluate"] = ("waiting", "")
        command_line.main()
    """
    command = [sys.executable, "-c", code, "evaluate"]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parents[3]}:{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, b"closed\n")
    assert error.startswith(b"hdqnn: stopped at once")


@pytest.mark.parametrize("command", ["resume", "evaluate", "report"])
def test_a_path_that_is_no_run_is_refused(capsys, tmp_path, command):
    assert run([command, str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"hdqnn: {tmp_path} is not a run directory: it has no config.yaml")
    assert captured.err.count("\n") == 1


def test_train_help_names_presets_blocks_and_environment_variables(capsys):
    assert run(["train", "--help"]) == 0
    out = capsys.readouterr().out
    for word in ("humanoid", "random_bits", "--backend", "QPU_BACKEND", "REDIS_URL", "RAY_ADDRESS", "Ctrl-C"):
        assert word in out


def test_help_of_a_preset_lists_every_field_with_its_source(capsys):
    with pytest.raises(SystemExit) as raised:
        run(["train", "humanoid", "--help"])
    assert raised.value.code == 0
    out = capsys.readouterr().out
    for word in ("--td3.polyak-coefficient", "Source: paper", "--actors.num-actors", "--checkpoint.keep"):
        assert word in out


def test_a_run_that_is_to_end_before_it_began_is_refused(capsys, tmp_path):
    from cluster.checkpoint import save_checkpoint
    from cluster.presets import get_preset
    from cluster.run_directory import RunDirectory, write_config

    run_directory = RunDirectory(tmp_path)
    write_config(get_preset("smoke"), run_directory.config)
    save_checkpoint(run_directory.checkpoints, 1, {}, {"env_step": 1}, 1)
    assert run(["resume", str(tmp_path), "--total-steps", "0"]) == 2
    assert capsys.readouterr().err == "hdqnn: total_steps must be at least 1, got 0\n"
    assert run(["evaluate", str(tmp_path), "--episodes", "0"]) == 2
    assert capsys.readouterr().err == "hdqnn: --episodes must be at least 1, got 0\n"


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "run", "--json"],
        ["evaluate", "run", "--trajectories"],
        ["export", "run"],
        ["bench", "qpu", "--json"],
    ],
    ids=" ".join,
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(capsys, tmp_path, command):
    (tmp_path / "file").touch()
    assert run([*command, str(tmp_path / "file" / "below.json")]) == 2
    assert f"cannot write {tmp_path / 'file' / 'below.json'}: " in capsys.readouterr().err
    assert run([*command, str(tmp_path)]) == 2
    assert f"cannot write {tmp_path}: it is a directory; name a file" in capsys.readouterr().err


def test_the_directory_of_an_output_is_made(tmp_path):
    prepare_output_file(tmp_path / "new" / "deep" / "file.json")
    assert (tmp_path / "new" / "deep").is_dir()
    assert not (tmp_path / "new" / "deep" / "file.json").exists()
    prepare_output_file(None)


def test_generated_policies_leave_no_trajectories(capsys, tmp_path):
    (tmp_path / "config.yaml").write_text("method: quantum_train\n")
    assert run(["evaluate", str(tmp_path), "--trajectories", str(tmp_path / "steps.npz")]) == 2
    assert "--trajectories is for actor-learner runs" in capsys.readouterr().err


def test_ctrl_c_before_the_run_has_begun_ends_quietly(capsys, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.command_train.run", interrupt)
    assert run(["train"]) == 130
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert captured.err.count("\n") == 1


def test_a_report_of_all_runs_leaves_out_what_is_none(capsys, tmp_path):
    from cluster.presets import get_preset
    from cluster.run_directory import RunDirectory, write_config

    run_directory = RunDirectory(tmp_path / "smoke-1")
    run_directory.path.mkdir()
    write_config(get_preset("smoke"), run_directory.config)
    (tmp_path / "blocks" / "pqc-s1").mkdir(parents=True)
    everything = [str(path) for path in sorted(tmp_path.iterdir())]
    assert run(["report", *everything]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(f"hdqnn: left out {tmp_path / 'blocks'}, which is not a run directory")
    assert captured.err.count("\n") == 1
    assert captured.out.count("\n") == 3
    assert "| smoke-1 |" in captured.out
    assert run(["report", *everything, str(tmp_path / "gone")]) == 2, "a path that does not exist is a mistake"


@pytest.mark.parametrize(
    ("arguments", "goal"),
    [
        ([], -200.0),
        (["--env-id", "Pendulum-v1"], -200.0),
        (["--env-id", "Hopper-v4"], None),
        (["--env-id", "Hopper-v4", "--stop-return", "2000"], 2000.0),
        (["--env-id", "Hopper-v4", "--stop-return", "-200"], -200.0),
    ],
)
def test_a_presets_goal_holds_for_its_own_task_alone(arguments, goal):
    from cluster.command_train import parse_config

    assert parse_config("pendulum", arguments).stop_return == goal


def test_so_does_the_goal_of_generated_policies():
    from cluster.quantum_train.command import parse

    assert parse("qtrl-cartpole", []).stop_return == 495.0
    assert parse("qtrl-cartpole", ["--env-id", "Acrobot-v1"]).stop_return is None
