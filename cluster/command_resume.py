"""``hdqnn resume``: go on where a run stopped, with its replay, counters and optimisers."""

import argparse
import dataclasses
from pathlib import Path

from cluster.checkpoint import load_newest
from cluster.command_train import check
from cluster.run_directory import drop_rows_after, lock_run, open_run_directory
from cluster.run_loop import run_training, with_total_steps


def run(arguments: list[str]) -> int:
    """Resume the run in a directory."""
    parser = argparse.ArgumentParser(
        prog="hdqnn resume",
        description="Goes on where a run stopped: networks, optimisers, counters, random states and replay.",
    )
    parser.add_argument("run", type=Path, help="directory of the run, such as runs/pendulum-…")
    parser.add_argument("--total-steps", type=int, help="go on to this many environment steps instead of the run's own")
    parsed = parser.parse_args(arguments)
    run_directory, config = open_run_directory(parsed.run)
    with lock_run(run_directory):
        checkpoint = load_newest(run_directory.checkpoints)
        config = with_total_steps(config, parsed.total_steps)
        check(dataclasses.replace(config, run_dir=None))
        env_step = int(checkpoint.scalars["env_step"])
        for path in (run_directory.metrics, run_directory.evaluations):
            drop_rows_after(path, env_step)
        return run_training(config, run_directory, checkpoint)
