"""Runs of Quantum-Train agents from the command line, in one process: files, resume, evaluation, refusals."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cluster.__main__ import run as hdqnn
from cluster.checkpoint import load_newest
from cluster.errors import EXIT_DONE, EXIT_REFUSED
from cluster.quantum_train.command import parse
from cluster.quantum_train.config import QuantumTrainRunConfig, is_quantum_train, read_config, write_config
from cluster.quantum_train.presets import DESCRIPTIONS, PRESETS
from cluster.run_directory import RunDirectory, read_rows

TINY = [
    "--synchronous",
    *("--hidden-sizes", "8", "--generator.depth", "1", "--episodes-per-round", "2"),
    *("--tests.period-rounds", "3", "--tests.num-episodes", "2", "--checkpoint.period-steps", "100"),
]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("QPU_BACKEND", "QPU_DEVICE", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def train(path, *arguments, preset="qtrl-cartpole", steps=400):
    return hdqnn(["train", preset, *TINY, "--total-steps", str(steps), "--run-dir", str(path), *arguments])


def rows(path):
    kept = list(read_rows(RunDirectory(path).metrics))
    return [{name: value for name, value in row.items() if not name.startswith("time/")} for row in kept]


def test_every_preset_is_described_and_survives_its_file(tmp_path):
    assert PRESETS.keys() == DESCRIPTIONS.keys()
    for name, preset in PRESETS.items():
        write_config(preset, tmp_path / "config.yaml")
        assert read_config(tmp_path / "config.yaml") == preset, name
    assert is_quantum_train(tmp_path)


def test_short_flags_are_the_long_ones(monkeypatch):
    config = parse("qtrl-cartpole", ["--agents", "4", "--depth", "3"])
    assert (config.num_agents, config.generator.depth, config.backend) == (4, 3, "statevector")
    monkeypatch.setenv("QPU_BACKEND", "aer")
    measured = parse("qtrl-cartpole", ["--shots", "100"])
    assert (measured.backend, measured.gradient.method, measured.gradient.shots) == ("aer", "spsa", 100)
    assert parse("qtrl-cartpole", ["--parametrisation", "classical"]).backend is None


def test_a_run_leaves_everything_and_repeats(tmp_path):
    assert train(tmp_path / "a", "--agents", "2") == EXIT_DONE
    left = {path.name for path in (tmp_path / "a").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "evaluations.jsonl", "checkpoints", "curve.png"} <= left
    row = rows(tmp_path / "a")[-1]
    assert {"agent/0/episode_return", "agent/1/episode_return", "rollout/episode_return"} <= row.keys()
    assert train(tmp_path / "b", "--agents", "2") == EXIT_DONE
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_a_run_ends_after_so_many_rounds(tmp_path):
    assert train(tmp_path / "run", "--total-rounds", "4", steps=100_000) == EXIT_DONE
    assert rows(tmp_path / "run")[-1]["team/round"] == 4
    with pytest.raises(SystemExit):
        train(tmp_path / "none", "--total-rounds", "0")


@pytest.mark.parametrize("extra", [[], ["--sharing", "federated", "--agents", "2"], ["--gradient.method", "spsa"]])
def test_resume_goes_on_bit_for_bit(tmp_path, extra):
    assert train(tmp_path / "whole", *extra, steps=500) == EXIT_DONE
    assert train(tmp_path / "parts", *extra, steps=200) == EXIT_DONE
    assert hdqnn(["resume", str(tmp_path / "parts"), "--total-steps", "500"]) == EXIT_DONE
    whole, parts = (load_newest(RunDirectory(tmp_path / name).checkpoints) for name in ("whole", "parts"))
    assert whole.scalars["env_step"] == parts.scalars["env_step"]
    for name, tensor in whole.tensors["agents"].items():
        assert torch.equal(tensor, parts.tensors["agents"][name]), name
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    assert read_config(RunDirectory(tmp_path / "parts").config).total_steps == 500


def test_a_run_that_is_made_longer_must_reach_its_goal_anew(tmp_path):
    assert train(tmp_path / "run", "--stop-return", "1", steps=100_000) == EXIT_DONE
    first = rows(tmp_path / "run")[-1]["env_step"]
    assert hdqnn(["resume", str(tmp_path / "run"), "--total-steps", "200000"]) == EXIT_DONE
    second = rows(tmp_path / "run")[-1]["env_step"]
    assert first < second < 100_000


def test_evaluation_with_exact_weights_with_shots_and_as_a_plain_network(tmp_path, capsys):
    assert train(tmp_path / "run") == EXIT_DONE
    arguments = ["evaluate", str(tmp_path / "run"), "--episodes", "3", "--json", str(tmp_path / "result.json")]
    assert hdqnn(arguments) == EXIT_DONE
    exact = json.loads((tmp_path / "result.json").read_text())
    assert len(exact["returns"]) == 3
    assert exact["shots"] is None
    assert hdqnn([*arguments, "--shots", "16"]) == EXIT_DONE
    noisy = json.loads((tmp_path / "result.json").read_text())
    assert noisy["shots"] == 16
    assert "weights from 16 shots" in capsys.readouterr().out
    newest = load_newest(RunDirectory(tmp_path / "run").checkpoints).path
    plain = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    plain.load_state_dict(load_file(newest / "policy.safetensors"))


def test_report_reads_these_runs(tmp_path, capsys):
    assert train(tmp_path / "run", "--agents", "2") == EXIT_DONE
    capsys.readouterr()
    assert hdqnn(["report", str(tmp_path / "run"), "--picture", str(tmp_path / "picture.png")]) == EXIT_DONE
    assert "quantum_train L=1 K=2" in capsys.readouterr().out
    assert (tmp_path / "picture.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env-id", "Nope-v0"], "cannot make environment 'Nope-v0'"),
        (["--backend", "nope", "--gradient.method", "spsa"], "no backend is called 'nope'"),
        (["--agents", "0"], "num_agents must be at least 1, got 0"),
        (["--parametrisation", "classical", "--sharing", "federated"], "a classical policy has none"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, capsys, arguments, message):
    with_message = None
    try:
        code = train(tmp_path / "run", *arguments)
    except SystemExit as error:
        code, with_message = error.code, error
    assert code != EXIT_DONE
    assert not (tmp_path / "run").exists()
    captured = capsys.readouterr()
    assert message in captured.err + captured.out or with_message is not None
    assert code == EXIT_REFUSED or code == 1


def test_unknown_fields_of_a_file_are_named(tmp_path):
    write_config(QuantumTrainRunConfig(), tmp_path / "config.yaml")
    with (tmp_path / "config.yaml").open("a") as file:
        file.write("nonsense: 1\n")
    with pytest.raises(ValueError, match="unknown fields \\['nonsense'\\]"):
        read_config(tmp_path / "config.yaml")


def test_classical_control_has_the_same_network(tmp_path):
    assert train(tmp_path / "run", "--parametrisation", "classical") == EXIT_DONE
    newest = load_newest(RunDirectory(tmp_path / "run").checkpoints)
    assert np.sum([tensor.numel() for tensor in newest.tensors["policy"].values()]) == 4 * 8 + 8 + 8 * 2 + 2
