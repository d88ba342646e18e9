"""Training over processes: actors and QPU workers on Ray, the replay on Redis, the learner here.

The loop updates whenever the samples-per-insert law allows it and never waits for an actor; everything
that can die (actors, QPU workers, evaluator, parameter board, the replay's server) is replaced or waited
for by the part that talks to it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import ray
import torch

from actors.environment import agent_spec
from cluster.build import learner_device, make_learner
from cluster.build_replay import make_limiter, transition_spec
from cluster.checkpoint import Checkpoint
from cluster.config import RunConfig
from cluster.crew import Crew
from cluster.errors import RunFailedError
from cluster.idle_pause import IdlePause
from cluster.metrics import MetricsWriter
from cluster.node_watch import NodeWatch
from cluster.process_tuning import default_num_threads
from cluster.progress import Progress
from cluster.qpu_crew import QPUCrew
from cluster.ray_runtime import RayRuntime, ray_runtime
from cluster.ray_services import RayParameterSource, RayQPUClient, publish_parameters, start_board
from cluster.remote_tests import TEST_WORKER_THREADS, RemoteTests, TestWorker
from cluster.rollout_worker import ReplayAddress, RolloutWorker
from cluster.run_directory import RunDirectory
from cluster.server_watch import ServerWatch
from cluster.session import Session
from cluster.timings import Timings
from learner.config import AgentSpec
from learner.parameters import VersionedParameters
from qpu_service.errors import BudgetExceededError
from qpu_service.interfaces import CircuitSampler
from qpu_service.patience import patience, with_patience
from qpu_service.places import worker_places
from replay.embedded_server import EmbeddedServer
from replay.learner_lease import HeldLeases, hold_lease
from replay.opening import open_replay
from replay.redis_replay import RedisReplay
from replay.server_urls import server_urls
from replay.sharded_replay import ShardedReplay

_UPDATES_PER_TICK = 8
_LONGEST_GAP_S = 60.0
"""Between two rows of metrics: who waits for a device must see that, too."""


def train_distributed(
    config: RunConfig,
    run: RunDirectory,
    checkpoint: Checkpoint | None,
    progress: Progress,
    should_stop: Callable[[], bool],
) -> Session:
    """Train until the run is done or ``should_stop`` says so; returns the session as it ended.

    Args:
        config: resolved configuration; ``backend`` is set where a circuit runs.
        run: where the run is kept.
        checkpoint: where to go on, or None.
        progress: tells a person.
        should_stop: asked between updates.
    """
    # Actors and evaluators live on nodes that know nothing of QPU_DEADLINE_SECONDS.
    config = replace(config, qpu=with_patience(config.qpu, config.backend))
    spec = agent_spec(config.env_id)
    torch.set_num_threads(config.num_threads or default_num_threads(learner_device(config.device)))
    with (
        ray_runtime() as runtime,
        _replay_server(config, run, runtime) as (url, server),
        hold_lease(url, _run_id(run), run.identity()) as lease,
    ):
        # Ray takes the signals over when it starts; a run that is told to stop must save first.
        getattr(should_stop, "install", lambda: None)()
        address, watches = ReplayAddress(url=url, run_id=_run_id(run)), (ServerWatch(server), lease)
        return _train(
            config, run, checkpoint, progress, should_stop, spec=spec, runtime=runtime, address=address, watches=watches
        )


def _train(
    config: RunConfig,
    run: RunDirectory,
    checkpoint: Checkpoint | None,
    progress: Progress,
    should_stop: Callable[[], bool],
    *,
    spec: AgentSpec,
    runtime: RayRuntime,
    address: ReplayAddress,
    watches: Sequence[ServerWatch | HeldLeases],
) -> Session:
    replay = open_replay(
        address.url,
        address.run_id,
        transition_spec(config, spec),
        make_limiter(config, len(server_urls(address.url))),
        config.replay.capacity,
        capacity_bytes=config.replay.capacity_bytes,
        is_prioritised=config.td3.prioritised,
        dataset_id=None if checkpoint is None else checkpoint.scalars["dataset_id"],
    )
    board = start_board(runtime.service_options)
    waits = patience(config.qpu, config.backend)
    qpu: QPUCrew | None = None
    if config.backend is not None:
        places = worker_places(config.backend, os.environ.get("QPU_DEVICE"), config.qpu.num_workers)
        num_qubits = config.policy.circuit.num_qubits
        qpu = QPUCrew(places, config.qpu, runtime.options_of, num_qubits=num_qubits, stall_s=waits.stall_s)
    make_sampler = _sampler_maker(config, qpu)
    tests = RemoteTests(_tests_starter(config, spec, runtime, make_sampler), deadline_s=waits.actor_s)
    start_actor = _actor_starter(config, spec, runtime, address, make_sampler, board)
    crew = Crew(start_actor, config.actors.num_actors, deadline_s=waits.actor_s)

    node = NodeWatch.of_this_process()

    def publish(parameters: VersionedParameters) -> None:
        publish_parameters(board, parameters, node.poll)
        replay.announce_policy_version(parameters.version)

    session = Session(
        config,
        run,
        learner=make_learner(config, spec),
        source=replay,
        publish=publish,
        tests=tests,
        metrics=MetricsWriter(run, config.prometheus_port),
        progress=progress,
        extra_state=lambda: ({}, {"dataset_id": replay.dataset_id}),
    )
    try:
        if checkpoint is not None:
            replay.set_sampled(int(checkpoint.scalars["sampled"]))
        session.start(checkpoint, version_floor=replay.poll().policy_version)
        if checkpoint is None:
            # From here on a run can be resumed, whenever it dies.
            session.save()
        _loop(session, crew, qpu, replay, (node, *watches), should_stop)
        if not session.is_finished:
            # Whoever stops a run may stop its parts too: what is in this process is saved before they are asked.
            session.save()
    except (BudgetExceededError, RunFailedError) as error:
        session.save()
        raise RunFailedError(f"{error}. Everything is saved; then: hdqnn resume {run.path}") from error
    finally:
        crew.stop()
        tests.stop()
        if qpu is not None:
            qpu.stop()
        session.close()
        replay.close()
    return session


def _loop(
    session: Session,
    crew: Crew,
    qpu: QPUCrew | None,
    replay: RedisReplay | ShardedReplay,
    watches: Sequence[NodeWatch | ServerWatch | HeldLeases],
    should_stop: Callable[[], bool],
) -> None:
    """Until nothing is left to do; once there are steps enough, that is the last updates and the last test round."""
    timings, pause = Timings(), IdlePause()
    is_ending = False
    while not session.is_finished and not should_stop():
        for watch in watches:
            watch.poll()
        was_ending, is_ending = is_ending, session.is_done
        reports = crew.stop() if is_ending else crew.poll()
        for report in reports:
            session.add_experience(report.episodes, report.returns)
        timings.add(reports)
        if qpu is not None:
            qpu.poll()
        before_s = time.monotonic()
        made = session.learn(_UPDATES_PER_TICK)
        timings.learned(time.monotonic() - before_s, is_idle=made == 0)
        qpu_row = qpu.row() if qpu is not None else {}
        session.tick(
            qpu_ms=qpu_row.get("qpu/request_p50_ms"),
            qpu_note=qpu.note if qpu is not None else "",
            waiting=_left(session) if is_ending else timings.waiting,
            values={**timings.row(crew.num_restarts), **replay.row(), **qpu_row},
            longest_gap_s=_LONGEST_GAP_S,
        )
        # The turn before this one has counted what the actors inserted last: no update is due any more.
        if was_ending and not made:
            session.finish()
        pause.after(made)


def _left(session: Session) -> str:
    """What an ending run still has to do, in words."""
    num_rounds = session.rounds.num_under_way
    return f"ending: {num_rounds} test round(s) to come" if num_rounds else "ending: last updates"


def _actor_starter(
    config: RunConfig,
    spec: AgentSpec,
    runtime: RayRuntime,
    address: ReplayAddress,
    make_sampler: Callable[[int], CircuitSampler | None],
    board: Any,
) -> Callable[[int], Any]:
    remote = ray.remote(RolloutWorker).options(**runtime.actor_options)

    def start(actor_id: int) -> Any:
        return remote.remote(
            config,
            spec,
            actor_id=actor_id,
            address=address,
            sampler=make_sampler(actor_id),
            source=RayParameterSource(board),
        )

    return start


def _tests_starter(
    config: RunConfig, spec: AgentSpec, runtime: RayRuntime, make_sampler: Callable[[int], CircuitSampler | None]
) -> Callable[[], Any]:
    remote = ray.remote(concurrency_groups=TEST_WORKER_THREADS)(TestWorker).options(**runtime.service_options)
    return lambda: remote.remote(config, spec, make_sampler(0))


def _sampler_maker(config: RunConfig, qpu: QPUCrew | None) -> Callable[[int], CircuitSampler | None]:
    """What gives actor i its way to the QPU workers."""
    if qpu is None:
        return lambda _: None
    handles = qpu.handles
    if config.qpu.routing == "affinity":
        return lambda actor_id: RayQPUClient([handles[actor_id % len(handles)]])
    return lambda actor_id: RayQPUClient(handles, first=actor_id)


@contextmanager
def _replay_server(
    config: RunConfig, run: RunDirectory, runtime: RayRuntime
) -> Iterator[tuple[str, EmbeddedServer | None]]:
    """REDIS_URL, else a server of the run's own that keeps its data in the run directory and is watched here."""
    url = os.environ.get("REDIS_URL")
    if url:
        yield url, None
        return
    run.replay.mkdir(exist_ok=True)
    fsync: Literal["everysec", "always"] = "always" if config.replay.durability == "waitaof" else "everysec"
    with EmbeddedServer.start(run.replay, host=runtime.host, fsync=fsync) as server:
        yield server.url, server


def _run_id(run: RunDirectory) -> str:
    """What the run is called on its replay servers: the directory's name, told from others of that name."""
    if not run.run_id.exists():
        run.run_id.write_text(f"{run.path.name}-{os.urandom(4).hex()}\n")
    return run.run_id.read_text().strip()
