"""Runs one training from its directory to its last line: signals, loop, picture, where everything is."""

import os
import sys
import time
from collections.abc import Mapping

from cluster.checkpoint import Checkpoint
from cluster.config import RunConfig
from cluster.errors import EXIT_DONE, EXIT_INTERRUPTED
from cluster.plot import draw_curve
from cluster.progress import Progress, format_duration
from cluster.run_directory import RunDirectory
from cluster.session import Session
from cluster.stop_request import StopRequest


def run_training(config: RunConfig, run: RunDirectory, checkpoint: Checkpoint | None) -> int:
    """Train, draw, say where everything is; returns the exit code."""
    progress = Progress()
    stop = StopRequest()
    started_s = time.monotonic()
    progress.say(_headline(config, run))
    stop.install()
    try:
        if config.synchronous:
            from cluster.synchronous import train_synchronous

            session = train_synchronous(config, run, checkpoint, progress, stop)
        else:
            from cluster.distributed import train_distributed

            session = train_distributed(config, run, checkpoint, progress, stop)
    finally:
        stop.restore()
    draw_curve(run, f"{config.env_id}, {config.block}, seed {config.seed}")
    _last_lines(session, run, progress, time.monotonic() - started_s)
    return EXIT_DONE if session.is_finished else EXIT_INTERRUPTED


def _headline(config: RunConfig, run: RunDirectory) -> str:
    circuit = config.policy.circuit
    block: str = config.block
    if config.backend is not None:
        block += f" ({circuit.num_qubits} qubits, {circuit.num_layers} layers, backend {config.backend})"
    mode = "synchronous" if config.synchronous else f"{config.actors.num_actors} actor(s)"
    return (
        f"training {config.env_id} for {config.total_steps:,} steps: {block}, {mode}, seed {config.seed}, in {run.path}"
    )


def _last_lines(session: Session, run: RunDirectory, progress: Progress, elapsed_s: float) -> None:
    verb = "done" if session.is_finished else "stopped and saved"
    progress.say(
        f"{verb} after {session.env_step:,} steps and {session.learner.update_step:,} updates "
        f"in {format_duration(elapsed_s)}"
    )
    progress.say(_where_the_time_went(session.newest_values))
    if session.rounds.returns:
        progress.say(f"last test round: mean return {session.rounds.returns[-1]:.1f}")
    if run.curve.exists():
        progress.say(f"curve:        {run.curve}")
    progress.say(f"rows:         {run.metrics}, {run.evaluations}")
    progress.say(f"TensorBoard:  tensorboard --logdir {run.tensorboard}")
    progress.say(f"checkpoints:  {run.checkpoints}")
    if os.environ.get("REDIS_URL") and not session.config.synchronous:
        progress.say(f"replay:       on the server in REDIS_URL, until hdqnn replay drop {run.path}")
    if session.is_finished:
        progress.say(f"test it:      hdqnn evaluate {run.path}")
    else:
        progress.say(f"go on with:   hdqnn resume {run.path}")
    sys.stdout.flush()


def _where_the_time_went(values: Mapping[str, float]) -> str:
    """The newest row's rates and shares in words."""
    parts = [
        f"{values[name]:.{digits}f} {unit}"
        for name, digits, unit in (
            ("time/env_steps_per_s", 0, "steps/s"),
            ("time/updates_per_s", 0, "updates/s"),
            ("qpu/circuits_per_s", 0, "circuits/s"),
            ("qpu/request_p50_ms", 2, "ms per QPU request"),
        )
        if name in values
    ]
    parts += [
        f"{who} busy {100 * values[name]:.0f} %"
        for name, who in (("time/learner_busy_share", "learner"), ("time/actor_busy_share", "actors"))
        if name in values
    ]
    return f"time:         {', '.join(parts) or 'the run was too short to measure'}"
