"""``hdqnn export``: a run's newest policy as one file."""

import argparse
import sys
from pathlib import Path

from cluster.errors import EXIT_DONE, ConfigError
from cluster.output_file import prepare_output_file
from cluster.quantum_train.config import is_quantum_train
from cluster.run_directory import open_run_directory


def run(arguments: list[str]) -> int:
    """Write the policy of a run's newest checkpoint."""
    parser = argparse.ArgumentParser(
        prog="hdqnn export",
        description="Writes the policy of a run's newest checkpoint to one file, for `hdqnn evaluate FILE` anywhere: "
        "weights, observation statistics and configuration as safetensors, nothing else of the run.",
    )
    parser.add_argument("run", type=Path, help="directory of the run, such as runs/humanoid-…")
    parser.add_argument("file", type=Path, help="to write, such as humanoid.safetensors; replaced if it is there")
    parsed = parser.parse_args(arguments)
    if is_quantum_train(parsed.run):
        raise ConfigError(
            f"{parsed.run} is a run of qtrl-* agents, whose policies are their checkpoints; `hdqnn evaluate` tests them"
        )
    prepare_output_file(parsed.file)
    run_directory, config = open_run_directory(parsed.run)
    # Only now, because torch takes seconds to load: help and mistyped directories need none of it.
    from cluster.checkpoint import load_newest
    from cluster.policy_file import acting_parameters, write_policy

    parameters = acting_parameters(load_newest(run_directory.checkpoints))
    write_policy(parsed.file, config, parameters)
    sys.stdout.write(
        f"{config.env_id} after {parameters.env_step:,} training steps, block {config.block}: "
        f"{sum(array.size for array in parameters.arrays.values()):,} numbers in {parsed.file} "
        f"({parsed.file.stat().st_size / 1e3:,.0f} kB)\ntest it with:  hdqnn evaluate {parsed.file}\n"
    )
    return EXIT_DONE
