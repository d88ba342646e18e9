"""Training in one process and in lockstep: step, learn, look after the run, again. No Ray, no Redis.

Everything but times depends on the configuration alone, also across a resume.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from actors.environment import agent_spec
from actors.rollout import Rollout, make_lanes
from actors.state import restore_rollout, rollout_state
from cluster.build import learner_device, make_learner, make_policy
from cluster.build_replay import make_limiter, transition_spec
from cluster.checkpoint import Checkpoint
from cluster.config import RunConfig
from cluster.local_tests import LocalTests
from cluster.metrics import MetricsWriter
from cluster.process_tuning import default_num_threads
from cluster.progress import Progress
from cluster.qpu_health import health_note, health_row
from cluster.run_directory import RunDirectory
from cluster.seeding import Stream, derive_rng, derive_seed
from cluster.session import ExtraState, Session
from learner.config import AgentSpec, uses_circuit
from learner.parameters import ParameterBoard, VersionedParameters
from qpu_service.backends.registry import make_backend
from qpu_service.device_health import DeviceHealth, ReportsHealth
from qpu_service.interfaces import CircuitBackend, CircuitSampler
from qpu_service.sampler import LocalSampler
from replay.memory_replay import MemoryReplay

_ALL_UPDATES = 1_000_000_000


def train_synchronous(
    config: RunConfig,
    run: RunDirectory,
    checkpoint: Checkpoint | None,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> Session:
    """Train until the run is done or ``should_stop`` says so; returns the session as it ended.

    Args:
        config: resolved configuration; ``backend`` is set.
        run: where the run is kept.
        checkpoint: where to go on, or None.
        progress: tells a person.
        should_stop: asked between steps; the caller saves then.
    """
    torch.set_num_threads(config.num_threads or default_num_threads(learner_device(config.device)))
    # As torch.use_deterministic_algorithms(True), which also loads torch's compiler to tell it: 3 s of a core.
    torch.set_deterministic_debug_mode("error")
    backend = _make_backend(config)
    try:
        return _train(config, run, checkpoint, progress, should_stop, backend)
    finally:
        if backend is not None:
            backend.close()


def _train(
    config: RunConfig,
    run: RunDirectory,
    checkpoint: Checkpoint | None,
    progress: Progress,
    should_stop: Callable[[], bool],
    backend: CircuitBackend | None,
) -> Session:
    spec = agent_spec(config.env_id)
    sampler = None if backend is None else LocalSampler(backend)
    replay = _make_replay(config, spec, run, checkpoint)
    board = ParameterBoard()

    def publish(parameters: VersionedParameters) -> None:
        board.publish(parameters)
        replay.announce_policy_version(parameters.version)

    learner = make_learner(config, spec)
    rollout = _make_rollout(config, spec, sampler, replay, board)

    def extra_state() -> ExtraState:
        tensors, scalars = rollout_state(rollout)
        groups = {"rollout": tensors}
        if config.td3.prioritised:
            groups["priorities"] = {name: torch.from_numpy(value) for name, value in replay.priorities().items()}
        state = replay.state()
        if (first := _first_offset_needed(run.checkpoints)) is not None:
            replay.forget_before(first)
        return groups, {"rollout": scalars, "replay": state}

    session = Session(
        config,
        run,
        learner=learner,
        source=replay,
        publish=publish,
        tests=LocalTests(config, spec, sampler),
        metrics=MetricsWriter(run, config.prometheus_port),
        progress=progress,
        extra_state=extra_state,
    )
    try:
        session.start(checkpoint)
        if checkpoint is None:
            # From here on a run can be resumed, whenever it dies.
            session.save()
        else:
            restore_rollout(rollout, checkpoint.tensors["rollout"], checkpoint.scalars["rollout"])
        started_s, learn_s = time.monotonic(), 0.0
        while not session.is_done and not should_stop():
            rollout.poll()
            for lane in rollout.lanes:
                rollout.step(lane)
            session.add_experience(rollout.take_episodes(), rollout.take_returns())
            before_s = time.monotonic()
            session.learn(_ALL_UPDATES)
            now_s = time.monotonic()
            learn_s += now_s - before_s
            health: list[DeviceHealth] = [backend.health()] if isinstance(backend, ReportsHealth) else []
            session.tick(
                qpu_note=health_note(health),
                values={"time/learner_busy_share": learn_s / max(now_s - started_s, 1e-9), **health_row(health)},
            )
        if session.is_done:
            session.finish()
        else:
            session.save()
    finally:
        rollout.close()
        session.close()
    return session


def _make_backend(config: RunConfig) -> CircuitBackend | None:
    if not uses_circuit(config.block) or config.backend is None:
        return None
    device = os.environ.get("QPU_DEVICE")
    num_qubits = config.policy.circuit.num_qubits
    return make_backend(config.backend, device=device, num_threads=config.qpu.num_threads, num_qubits=num_qubits)


def _make_replay(config: RunConfig, spec: AgentSpec, run: RunDirectory, checkpoint: Checkpoint | None) -> MemoryReplay:
    run.replay.mkdir(exist_ok=True)
    journal = run.replay / "journal.bin"
    sizes, limiter = transition_spec(config, spec), make_limiter(config)
    capacity, capacity_bytes = config.replay.capacity, config.replay.capacity_bytes
    if checkpoint is None:
        return MemoryReplay(
            sizes,
            limiter,
            capacity,
            journal=journal,
            capacity_bytes=capacity_bytes,
            is_prioritised=config.td3.prioritised,
        )
    replay = MemoryReplay.restore(
        sizes,
        limiter,
        capacity,
        journal=journal,
        capacity_bytes=capacity_bytes,
        state=checkpoint.scalars["replay"],
        is_prioritised=config.td3.prioritised,
    )
    if config.td3.prioritised:
        replay.restore_priorities({name: value.numpy() for name, value in checkpoint.tensors["priorities"].items()})
    return replay


def _first_offset_needed(checkpoints: Path) -> int | None:
    """Where in the journal the oldest checkpoint's transitions start; None where that is not known for each of them."""
    try:
        states = [json.loads((path / "state.json").read_text()) for path in checkpoints.glob("step_*")]
        return min((int(state["replay"]["journal_first"]) for state in states), default=None)
    except (OSError, ValueError, KeyError):
        return None


def _make_rollout(
    config: RunConfig, spec: AgentSpec, sampler: CircuitSampler | None, replay: MemoryReplay, board: ParameterBoard
) -> Rollout:
    policy = make_policy(config, spec, sampler, Stream.ACTING_CIRCUITS, 0, 0)
    seeds = [derive_seed(config.seed, Stream.ENVIRONMENT, 0, 0, i) for i in range(config.actors.envs_per_actor)]
    return Rollout(
        make_lanes(config.env_id, [policy], seeds, noise_ratio=config.actors.exploration_noise_ratio),
        spec=spec,
        writer=replay,
        source=board,
        rng=derive_rng(config.seed, Stream.EXPLORATION, 0, 0),
        actor_id=0,
        incarnation=0,
        segment_length=config.actors.segment_length,
        noise_std=config.actors.exploration_noise_std,
        longest_noise_hold=config.actors.longest_noise_hold,
        learning_starts=config.td3.learning_starts,
        discount_factor=config.td3.discount_factor,
    )
