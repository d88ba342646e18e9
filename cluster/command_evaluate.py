"""``hdqnn evaluate``: test a run's newest policy, or an exported one, with the real circuit and no noise."""

import argparse
import dataclasses
import json
import os
import statistics
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from actors.environment import agent_spec
from actors.trajectories import TrajectoryRecorder
from cluster.errors import EXIT_DONE, ConfigError
from cluster.output_file import prepare_output_file
from cluster.quantum_train.config import is_quantum_train
from cluster.run_directory import open_run_directory
from qpu_service.backends.registry import make_backend
from qpu_service.places import worker_places
from qpu_service.sampler import LocalSampler


def run(arguments: list[str]) -> int:
    """Evaluate the newest checkpoint of a run."""
    parser = argparse.ArgumentParser(
        prog="hdqnn evaluate",
        description="Runs test episodes with the newest checkpoint of a run, or with an exported policy: real "
        "circuit, no exploration noise.",
    )
    parser.add_argument(
        "run", type=Path, help="directory of the run, such as runs/pendulum-…, or a file of hdqnn export"
    )
    parser.add_argument("--episodes", type=int, default=10, help="test episodes (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="root of start states and circuit seeds (default: the run's)")
    parser.add_argument("--backend", help="QPU backend (default: QPU_BACKEND, else the one of the run)")
    parser.add_argument("--shots", type=int, help="runs of generated weights: measure the circuit so often, once")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    parser.add_argument(
        "--trajectories",
        type=Path,
        metavar="FILE.npz",
        help="also write every step to this file: arrays episode, observation, action, reward (numpy.load)",
    )
    parsed = parser.parse_args(arguments)
    if parsed.episodes < 1:
        raise ConfigError(f"--episodes must be at least 1, got {parsed.episodes}")
    prepare_output_file(parsed.json)
    prepare_output_file(parsed.trajectories)
    if is_quantum_train(parsed.run):
        if parsed.trajectories is not None:
            raise ConfigError(
                f"--trajectories is for actor-learner runs, got {parsed.run}, a run of Quantum-Train; leave it out"
            )
        from cluster.quantum_train.command import evaluate

        return evaluate(parsed)
    opened = None if parsed.run.is_file() else open_run_directory(parsed.run)
    # Only now, because torch takes seconds to load: help and mistyped directories need none of it.
    import torch

    from cluster.checkpoint import load_newest
    from cluster.local_tests import run_test_round
    from cluster.policy_file import acting_parameters, read_policy

    if opened is None:
        config, parameters = read_policy(parsed.run)
    else:
        run_directory, config = opened
        parameters = acting_parameters(load_newest(run_directory.checkpoints))
    config = dataclasses.replace(
        config,
        seed=config.seed if parsed.seed is None else parsed.seed,
        backend=config.backend and (parsed.backend or os.environ.get("QPU_BACKEND") or config.backend),
        evaluation=dataclasses.replace(config.evaluation, num_episodes=parsed.episodes),
    )
    torch.set_num_threads(1)
    with ExitStack() as at_end:
        sampler = None
        if config.backend is not None:
            place = worker_places(config.backend, os.environ.get("QPU_DEVICE"), 1)[0]
            backend = at_end.enter_context(closing(make_backend(place.backend, device=place.device)))
            sampler = LocalSampler(backend)
        recorder = None if parsed.trajectories is None else TrajectoryRecorder()
        finished = run_test_round(config, agent_spec(config.env_id), sampler, parameters, recorder=recorder)
        returns = list(finished.returns)
    result = {
        "env_id": config.env_id,
        "backend": config.backend,
        "env_step": parameters.env_step,
        "mean_return": statistics.fmean(returns),
        "returns": returns,
    }
    sys.stdout.write(
        f"{config.env_id} after {parameters.env_step:,} training steps, block {config.block}, backend "
        f"{config.backend or 'none'}: mean return {result['mean_return']:.1f} over {len(returns)} episodes "
        f"(lowest {min(returns):.1f}, highest {max(returns):.1f})\n"
    )
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(result, indent=1) + "\n")
    if recorder is not None:
        recorder.write(parsed.trajectories)
    return EXIT_DONE
