"""``hdqnn resume``: go on where a run stopped, with its replay, counters and optimisers."""

import argparse
import dataclasses
import logging
import sys
from pathlib import Path

from cluster.config import write_config
from cluster.preflight import check
from cluster.quantum_train.config import is_quantum_train
from cluster.run_directory import drop_rows_after, lock_run, open_run_directory

_log = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Resume the run in a directory."""
    parser = argparse.ArgumentParser(
        prog="hdqnn resume",
        description="Goes on where a run stopped: networks, optimisers, counters, random states and replay.",
    )
    parser.add_argument("run", type=Path, help="directory of the run, such as runs/pendulum-…")
    parser.add_argument(
        "--total-steps",
        type=int,
        help="make the run this long from now on, environment steps; its goal, if it has one, counts anew",
    )
    parsed = parser.parse_args(arguments)
    if is_quantum_train(parsed.run):
        from cluster.quantum_train.command import resume

        return resume(parsed.run, parsed.total_steps)
    run_directory, config = open_run_directory(parsed.run)
    # Only now, because torch takes seconds to load: help and mistyped directories need none of it.
    from cluster.checkpoint import has_checkpoints, load_newest
    from cluster.overrides import with_total_steps
    from cluster.run_loop import run_training

    with lock_run(run_directory):
        checkpoint = None
        if has_checkpoints(run_directory.checkpoints):
            checkpoint = load_newest(run_directory.checkpoints)
        else:
            _log.warning("%s ended before it had a checkpoint; it starts again from its first step", parsed.run)
            # A lockstep run can't go on from the middle of its journal.
            (run_directory.replay / "journal.bin").unlink(missing_ok=True)
        longer = with_total_steps(config, parsed.total_steps)
        check(dataclasses.replace(longer, run_dir=None))
        if longer != config:
            # In the run's own file, so that it is resumed to this length from now on.
            write_config(longer, run_directory.config)
            if longer.has_schedules:
                sys.stdout.write("schedules (learning rates, asymmetry) are stretched over the new length\n")
        env_step = -1 if checkpoint is None else int(checkpoint.scalars["env_step"])
        for path in (run_directory.metrics, run_directory.evaluations):
            drop_rows_after(path, env_step)
        return run_training(longer, run_directory, checkpoint)
