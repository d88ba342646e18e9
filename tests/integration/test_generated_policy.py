"""A lockstep run of TD3 whose policy's weights a circuit generates, as a person runs it."""

import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.run_directory import RunDirectory
from tests.commands import Command, hdqnn
from tests.integration.test_resume import LOCKSTEP, SLOWLY, assert_same_run, rows

GENERATED = [*LOCKSTEP, *SLOWLY, "--total-steps", "400", "--policy.weights", "generated"]
GENERATED += ["--policy.generator.max-qubits", "6"]
LINE = "policy weights from"


@pytest.mark.parametrize("block", ["linear", "pqc"])
def test_it_trains_stops_and_goes_on_bit_for_bit_and_is_tested_as_a_plain_policy(tmp_path, block):
    (tmp_path / "whole").mkdir()
    (tmp_path / "stopped").mkdir()
    arguments = [*GENERATED, "--block", block]
    straight = hdqnn(*arguments, directory=tmp_path / "whole")
    assert straight.code == 0, straight
    assert LINE in straight.out
    assert "simulated exactly in the learner" in straight.out
    run = RunDirectory(tmp_path / "whole" / "run")
    last = rows(run.metrics)[-1]
    assert last["learner/generated_weights"] > 0
    assert last["learner/trained_numbers"] > 0

    stopped = RunDirectory(tmp_path / "stopped" / "run")
    with Command(arguments, tmp_path / "stopped") as command:
        command.wait_until(lambda: len(rows(stopped.metrics)) >= 3)
        command.process.send_signal(signal.SIGTERM)
        assert command.wait().code == 130
    resumed = hdqnn("resume", "run", directory=tmp_path / "stopped")
    assert resumed.code == 0, resumed
    assert LINE in resumed.out
    assert_same_run(stopped, run)

    newest = load_file(max(run.checkpoints.glob("step_*")) / "learner.safetensors")
    published = load_file(max(run.checkpoints.glob("step_*")) / "published.safetensors")
    assert not any("generator" in name for name in published), "actors need nothing but weights"
    for name, array in published.items():
        np.testing.assert_array_equal(array, newest[f"policy.{name}"], err_msg=name)
    tested = hdqnn("evaluate", "run", "--episodes", "2", directory=tmp_path / "whole")
    assert tested.code == 0, tested
    assert "mean return" in tested.out
