"""Twenty updates of a small lockstep run, against numbers that were stored when the code was known to be right.

A change of these numbers is a change of what the agent learns. Where that is meant, say so in the commit and
store the new ones with

    HDQNN_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_synchronous.py

Losses and returns are compared everywhere; the hash of all parameters only where torch and the CPU are the same as
when it was stored, because other kernels round differently.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from cluster.run_directory import RunDirectory, read_rows
from tests.commands import TINY, clean_environment

GOLDEN = Path(__file__).with_name("synchronous.json")
ARGUMENTS = [
    *("train", "smoke", "--synchronous", *TINY, "--run-dir", "run"),
    # 4 environments with segments of one step: 5 rows of 4 updates each after the first 100 steps.
    *("--td3.learning-starts", "100", "--total-steps", "120", "--actors.segment-length", "1"),
    *("--log-period-steps", "4", "--evaluation.period-steps", "60", "--device", "cpu"),
    # Bits are those of plain torch; tests/unit/learner/test_acceleration.py holds the compiled path to its numbers.
    "--no-compile",
]
RUN_AND_LIST_MODULES = """
import sys
from cluster.__main__ import run
code = run(sys.argv[1:])
print("modules:", *sorted(set(sys.modules) & {"ray", "redis", "qiskit", "torch"}))
sys.exit(code)
"""


def train(directory):
    """Run it in a process of its own: determinism must not depend on what other tests did to torch."""
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, *ARGUMENTS]
    finished = subprocess.run(command, cwd=directory, env=clean_environment(), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return RunDirectory(directory / "run"), finished.stdout


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return train(tmp_path_factory.mktemp("first"))


def rows(path):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in read_rows(path)]


def parameters_sha256(run):
    """Hash of every parameter, target and optimiser state of the last checkpoint, by name."""
    digest = hashlib.sha256()
    path = max(run.checkpoints.glob("step_*"))
    for name, array in sorted(load_file(path / "learner.safetensors").items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def platform():
    return {"torch": torch.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


@pytest.fixture(scope="module")
def golden(first):
    run, _ = first
    if os.environ.get("HDQNN_UPDATE_GOLDEN"):
        stored = {
            **platform(),
            "parameters_sha256": parameters_sha256(run),
            "rows": [row for row in rows(run.metrics) if row["update_step"]],
            "evaluations": rows(run.evaluations),
        }
        GOLDEN.write_text(json.dumps(stored, indent=1) + "\n")
    return json.loads(GOLDEN.read_text())


def assert_close(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_losses_of_twenty_updates_are_the_stored_ones(first, golden):
    run, _ = first
    learning = [row for row in rows(run.metrics) if row["update_step"]]
    assert [row["update_step"] for row in learning] == [4, 8, 12, 16, 20]
    for name in ("critic_loss", "policy_loss", "surrogate_loss", "q_value"):
        assert all(f"learner/{name}" in row for row in learning)
    assert_close(learning, golden["rows"])


def test_returns_are_the_stored_ones(first, golden):
    run, _ = first
    assert_close(rows(run.evaluations), golden["evaluations"])


def test_parameters_are_the_stored_ones_bit_for_bit(first, golden):
    run, _ = first
    stored = {name: golden[name] for name in platform()}
    if stored != platform():
        pytest.skip(f"the hash was stored with {stored}, this is {platform()}: other kernels round differently")
    assert parameters_sha256(run) == golden["parameters_sha256"]


def test_the_same_run_again_is_the_same_bit_for_bit(first, tmp_path):
    run, _ = first
    again, _ = train(tmp_path)
    assert rows(again.metrics) == rows(run.metrics)
    assert rows(again.evaluations) == rows(run.evaluations)
    assert parameters_sha256(again) == parameters_sha256(run)
    assert again.config.read_text() == run.config.read_text()


def test_a_lockstep_run_imports_neither_ray_nor_redis_nor_qiskit(first):
    _, out = first
    assert out.splitlines()[-1] == "modules: torch"
