"""Quantum-Train's part of ``hdqnn train``, ``resume``, ``evaluate`` and ``report``."""

import argparse
import dataclasses
import json
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cluster.checkpoint import Checkpoint, has_checkpoints, load_newest
from cluster.errors import EXIT_DONE, EXIT_INTERRUPTED, ConfigError
from cluster.metrics import MetricsWriter
from cluster.overrides import override, with_total_steps
from cluster.plot import draw_curve
from cluster.progress import Progress, format_duration
from cluster.quantum_train.build import LEADER, check_backend, make_learner, task_spec
from cluster.quantum_train.config import QuantumTrainRunConfig, read_config, write_config
from cluster.quantum_train.presets import DESCRIPTIONS, PRESETS
from cluster.quantum_train.session import TeamSession, load_states, run_test_round
from cluster.quantum_train.team import LocalTeam, Team
from cluster.quantum_train.training import TeamTraining
from cluster.ray_address import existing_address
from cluster.run_directory import RunDirectory, drop_rows_after, lock_run, make_run_directory
from cluster.stop_request import StopRequest
from learner.quantum_train.generator import WeightGenerator
from qpu_service.backends.registry import backend_name_from_environment

_log = logging.getLogger(__name__)
_SHORT_FLAGS = {"--agents": "--num-agents", "--depth": "--generator.depth", "--shots": "--gradient.shots"}


def train(preset: str, overrides: Sequence[str]) -> int:
    """A new run from a preset and overrides.

    Raises:
        ConfigError, ActorError, QPUError, ClusterUnreachableError: before anything is written.
    """
    config = parse(preset, overrides)
    _check(config)
    name = f"{preset}-{datetime.now(UTC):%Y%m%d-%H%M%S}-s{config.seed}"
    run = make_run_directory(config.run_dir, name)
    write_config(config, run.config)
    with lock_run(run):
        return _run(config, run, None)


def parse(preset: str, overrides: Sequence[str]) -> QuantumTrainRunConfig:
    """The preset with command-line overrides, and the backend resolved.

    Raises:
        ValueError: for a value out of range.
        SystemExit: with code 2 for an unknown field or a value of the wrong type.
    """
    config = override(
        PRESETS[preset],
        [_long_flag(argument) for argument in overrides],
        prog=f"hdqnn train {preset}",
        description=f"{DESCRIPTIONS[preset]}. Short: --agents K, --depth L, --shots S. Every field can be overridden:",
    )
    if config.parametrisation == "classical":
        return dataclasses.replace(config, backend=None)
    config = dataclasses.replace(config, backend=config.backend or backend_name_from_environment())
    if config.backend != "statevector" and config.gradient.method == "exact":
        # Exact probabilities exist in the simulator alone; from shots, SPSA needs the fewest circuits.
        config = dataclasses.replace(config, gradient=dataclasses.replace(config.gradient, method="spsa"))
    return config


def resume(path: Path, total_steps: int | None) -> int:
    """Go on with a run."""
    run = RunDirectory(path)
    config = read_config(run.config)
    with lock_run(run):
        checkpoint = None
        if has_checkpoints(run.checkpoints):
            checkpoint = load_newest(run.checkpoints)
        else:
            _log.warning("%s ended before it had a checkpoint; it starts again from its first step", path)
        longer = with_total_steps(config, total_steps)
        _check(longer)
        if longer != config:
            # In the run's own file, so that it is resumed to this length from now on.
            write_config(longer, run.config)
        for rows in (run.metrics, run.evaluations):
            drop_rows_after(rows, -1 if checkpoint is None else int(checkpoint.scalars["env_step"]))
        return _run(longer, run, checkpoint)


def evaluate(arguments: argparse.Namespace) -> int:
    """Test the newest policy; on a backend with shots its weights are generated from these, once."""
    run = RunDirectory(arguments.run)
    config = read_config(run.config)
    checkpoint = load_newest(run.checkpoints)
    backend = arguments.backend or config.backend
    if backend is not None and config.parametrisation == "quantum_train":
        method = config.gradient.method
        if backend != "statevector" and method == "exact":
            method = "spsa"
        if arguments.shots is not None:
            method = "spsa" if method == "exact" else method
        gradient = dataclasses.replace(config.gradient, method=method, shots=arguments.shots or config.gradient.shots)
        config = dataclasses.replace(config, backend=backend, gradient=gradient)
    torch.set_num_threads(1)
    learner = make_learner(config, task_spec(config), LEADER)
    training = TeamTraining(config, learner)
    training.states = load_states(checkpoint.tensors["agents"], checkpoint.scalars["num_steps"])
    seed = config.seed if arguments.seed is None else arguments.seed
    returns = run_test_round(config, learner, training.policies(), arguments.episodes, seed)
    shots = (
        None if config.gradient.method == "exact" or config.parametrisation == "classical" else config.gradient.shots
    )
    result: dict[str, Any] = {
        "env_id": config.env_id,
        "backend": config.backend,
        "shots": shots,
        "env_step": int(checkpoint.scalars["env_step"]),
        "mean_return": statistics.fmean(returns),
        "success_rate": statistics.fmean(value > 0 for value in returns),
        "returns": returns,
    }
    how = "exact weights" if shots is None else f"weights from {shots:,} shots"
    sys.stdout.write(
        f"{config.env_id} after {result['env_step']:,} training steps, {config.parametrisation}, backend "
        f"{config.backend or 'none'}, {how}: mean return {result['mean_return']:.2f} over {len(returns)} episodes "
        f"(lowest {min(returns):.2f}, highest {max(returns):.2f})\n"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return EXIT_DONE


def _check(config: QuantumTrainRunConfig) -> None:
    task_spec(config)
    check_backend(config)
    if config.run_dir is not None and config.run_dir.exists() and not (config.run_dir / "config.yaml").exists():
        raise ConfigError(f"{config.run_dir} exists already and is no run; choose another --run-dir")
    if not config.synchronous:
        existing_address()


def _long_flag(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return _SHORT_FLAGS.get(name, name) + equals + value


def _run(config: QuantumTrainRunConfig, run: RunDirectory, checkpoint: Checkpoint | None) -> int:
    progress, stop = Progress(), StopRequest()
    started_s = time.monotonic()
    torch.set_num_threads(1)
    stop.install()
    try:
        if config.synchronous:
            session = _with_team(config, run, checkpoint, LocalTeam(config), progress, stop)
        else:
            from cluster.cluster_room import Wanted, require_room
            from cluster.quantum_train.ray_team import RayTeam
            from cluster.ray_runtime import ray_runtime

            with ray_runtime() as runtime:
                stop.install()  # Ray takes the signals over when it starts
                require_room([Wanted("agents", config.num_agents, runtime.actor_options, "--agents")])
                session = _with_team(config, run, checkpoint, RayTeam(config, runtime.actor_options), progress, stop)
    finally:
        stop.restore()
    draw_curve(run, f"{config.env_id}, {config.parametrisation}, {config.num_agents} agent(s), seed {config.seed}")
    _last_lines(session, run, progress, time.monotonic() - started_s)
    return EXIT_DONE if session.is_done else EXIT_INTERRUPTED


def _with_team(
    config: QuantumTrainRunConfig,
    run: RunDirectory,
    checkpoint: Checkpoint | None,
    team: Team,
    progress: Progress,
    stop: StopRequest,
) -> TeamSession:
    session = TeamSession(config, run, team=team, metrics=MetricsWriter(run, config.prometheus_port), progress=progress)
    progress.say(_headline(config, session, run))
    try:
        if checkpoint is not None:
            session.restore(checkpoint)
        session.train(stop)
    finally:
        team.close()
        session.close()
    return session


def _headline(config: QuantumTrainRunConfig, session: TeamSession, run: RunDirectory) -> str:
    policy = session.learner.policy
    num_trained = sum(parameter.numel() for parameter in policy.parameters())
    num_weights = sum(parameter.numel() for parameter in policy.network.parameters())
    how = "trained directly"
    if isinstance(policy.weights, WeightGenerator):
        shape, count = policy.weights.shape, policy.weights.num_circuits
        how = (
            f"from {num_trained:,} trained numbers ({count} circuit(s) {shape.family}, {shape.num_qubits} qubits, "
            f"depth {shape.depth}, backend {config.backend}, gradient {config.gradient.method})"
        )
    mode = "synchronous" if config.synchronous else f"{config.num_agents} agent(s) on Ray"
    return (
        f"training {config.env_id} for {config.total_steps:,} steps: {num_weights:,} policy weights {how}, "
        f"{config.learning.algorithm}, {mode}, sharing {config.sharing}, seed {config.seed}, in {run.path}"
    )


def _last_lines(session: TeamSession, run: RunDirectory, progress: Progress, elapsed_s: float) -> None:
    counters = session.counters
    verb = "done" if session.is_done else "stopped and saved"
    progress.say(
        f"{verb} after {session.training.round:,} rounds, {counters.episodes:,} episodes, {counters.env_step:,} steps "
        f"in {format_duration(elapsed_s)}"
    )
    if session.test_returns:
        progress.say(f"last test round: mean return {session.test_returns[-1]:.2f}")
    if run.curve.exists():
        progress.say(f"curve:        {run.curve}")
    progress.say(f"rows:         {run.metrics}, {run.evaluations}")
    progress.say(f"checkpoints:  {run.checkpoints} (policy.safetensors is the plain network)")
    if session.is_done:
        progress.say(f"test it:      hdqnn evaluate {run.path}")
    else:
        progress.say(f"go on with:   hdqnn resume {run.path}")
