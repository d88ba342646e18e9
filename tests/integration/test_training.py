"""Real runs through Ray and Valkey: what they leave behind, how much they learned, and on which backend they acted."""

import json
import re
import time

import numpy as np
import pytest
import yaml

from benchmarks.faults.processes import descendants, process_title
from cluster.run_directory import RunDirectory, read_rows
from tests.commands import ROOT, TINY, Command, hdqnn, replay_servers
from tests.environments import PREFIX
from tests.integration.stored_segments import assert_every_transition_is_there_once, read_replay

pytestmark = [pytest.mark.ray, pytest.mark.redis]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The smoke preset exactly as the documentation says to run it, and the processes that it had at its end."""
    directory = tmp_path_factory.mktemp("smoke")
    with Command(["train", "smoke", "--run-dir", "run"], directory) as command:
        run = RunDirectory(directory / "run")
        command.wait_until(lambda: run.evaluations.exists() and run.evaluations.read_text())
        pids = [*descendants(command.process.pid), *replay_servers(directory)]
        return run, command.wait(), pids


def test_smoke_ends_well_and_says_where_everything_is(smoke):
    run, finished, _ = smoke
    assert finished.code == 0, finished
    assert finished.err == ""
    assert finished.out.startswith(
        "training Pendulum-v1 for 600 steps: pqc (10 qubits, 10 layers, backend statevector)"
    )
    for part in ("done after", "last test round: mean return", "tensorboard --logdir run", "hdqnn evaluate run"):
        assert part in finished.out
    expected = {
        "config.yaml",
        "metrics.jsonl",
        "evaluations.jsonl",
        "curve.png",
        "checkpoints",
        "tensorboard",
        "replay",
    }
    assert expected <= {path.name for path in run.path.iterdir()}


def test_smoke_rows_and_rounds_are_whole(smoke):
    run, _, _ = smoke
    rounds = list(read_rows(run.evaluations))
    assert len(rounds) >= 3
    for row in rounds:
        assert row.keys() == {"env_step", "update_step", "policy_version", "mean_return", "returns"}
        assert len(row["returns"]) == 2
        assert row["mean_return"] == pytest.approx(sum(row["returns"]) / 2)
        assert all(-2000 < value < 0 for value in row["returns"])
    steps = [(row["env_step"], row["update_step"]) for row in read_rows(run.metrics)]
    assert steps == sorted(set(steps))
    assert steps[-1] >= (600, 400)


def test_smoke_makes_exactly_the_configured_updates_per_step(smoke):
    run, _, _ = smoke
    last = list(read_rows(run.metrics))[-1]
    assert last["update_step"] == last["env_step"] - 200
    assert last["replay/sampled"] == 64 * last["update_step"]


def test_smoke_leaves_no_process(smoke):
    _, _, pids = smoke
    assert len(pids) > 3
    deadline_s = time.monotonic() + 20
    while left := [title for title in map(process_title, pids) if "ray" in title or "valkey" in title]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.1)


def test_smoke_stored_every_transition_once_with_its_circuit(smoke):
    run, _, _ = smoke
    segments, counters = read_replay(run.path)
    assert_every_transition_is_there_once(segments, counters)
    assert {segment.backend_name for segment in segments} == {"statevector"}
    assert {segment.bits.shape[1] for segment in segments} == {10}
    assert {segment.circuit_parameters.shape[1] for segment in segments} == {220}
    assert all(segment.bits.any(axis=0).any() for segment in segments)
    assert segments[-1].policy_versions.max() > segments[0].policy_versions.max() >= 1


def test_smoke_can_be_evaluated_and_reported(smoke):
    run, _, _ = smoke
    directory = run.path.parent
    files = ("--json", "e.json", "--trajectories", "steps.npz")
    finished = hdqnn("evaluate", "run", "--episodes", "2", *files, directory=directory)
    assert finished.code == 0, finished
    result = json.loads((directory / "e.json").read_text())
    with np.load(directory / "steps.npz", allow_pickle=False) as steps:
        assert steps["observation"].shape == (400, 3)
        assert np.bincount(steps["episode"], steps["reward"]).tolist() == pytest.approx(result["returns"])
    assert (len(result["returns"]), result["backend"], result["env_id"]) == (2, "statevector", "Pendulum-v1")
    assert f"mean return {result['mean_return']:.1f} over 2 episodes" in finished.out
    finished = hdqnn("report", "run", directory=directory)
    assert finished.code == 0, finished
    assert "| run | Pendulum-v1 | pqc | statevector | 1 |" in finished.out


def test_an_exported_policy_plays_the_same_episodes_without_its_run(smoke, tmp_path):
    run, _, _ = smoke
    finished = hdqnn("export", str(run.path), "policy.safetensors", directory=tmp_path)
    assert finished.code == 0, finished.err
    assert "hdqnn evaluate policy.safetensors" in finished.out
    for what, name in ((str(run.path), "run"), ("policy.safetensors", "file")):
        finished = hdqnn("evaluate", what, "--episodes", "2", "--json", f"{name}.json", directory=tmp_path)
        assert finished.code == 0, finished.err
    assert (tmp_path / "file.json").read_text() == (tmp_path / "run.json").read_text()


def test_the_backend_is_the_one_asked_for_on_every_transition(tmp_path):
    arguments = ["train", "smoke", *TINY, "--run-dir", "run", "--total-steps", "260"]
    finished = hdqnn(*arguments, directory=tmp_path, QPU_BACKEND="aer")
    assert finished.code == 0, finished
    assert "backend aer" in finished.out
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["backend"] == "aer"
    segments, counters = read_replay(tmp_path / "run")
    assert_every_transition_is_there_once(segments, counters)
    assert {segment.backend_name for segment in segments} == {"aer"}


def test_nan_in_the_middle_of_a_run_ends_it_with_one_message(tmp_path):
    arguments = ["train", "smoke", *TINY, "--run-dir", "run", "--env-id", f"{PREFIX}NaNLater-v0"]
    with Command(arguments, tmp_path) as command:
        finished = command.wait()
        assert descendants(command.process.pid) == replay_servers(tmp_path) == []
    assert finished.code == 2, finished
    assert "NaNLater-v0 returned the reward nan" in finished.err
    assert "expected finite" in finished.err
    assert finished.err.count("\n") == 1
    assert "Traceback" not in finished.out + finished.err


OWN_TASK = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)[0]


@pytest.mark.parametrize("how", [["--synchronous"], []], ids=["one process", "ray"])
def test_a_task_of_ones_own_lies_where_the_command_is_called(tmp_path, how):
    (tmp_path / "my_tasks.py").write_text(OWN_TASK)
    own = ["--env-id", "my_tasks:Hold-v0", "--total-steps", "300", "--td3.learning-starts", "100", *TINY, *how]
    finished = hdqnn("train", "pendulum", "--run-dir", "run", *own, directory=tmp_path)
    assert (finished.code, finished.err) == (0, ""), finished
    assert "training my_tasks:Hold-v0 for 300 steps" in finished.out
    assert list(read_rows(RunDirectory(tmp_path / "run").metrics))[-1]["env_step"] >= 300
    tested = hdqnn("evaluate", "run", "--episodes", "2", directory=tmp_path)
    assert tested.code == 0, tested
