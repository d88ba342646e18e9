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
from typing import Literal

import torch

from actors.environment import agent_spec
from cluster.build import learner_device, make_learner
from cluster.build_replay import make_limiter, transition_spec
from cluster.checkpoint import Checkpoint
from cluster.cluster_room import require_room
from cluster.config import RunConfig
from cluster.crew import Crew
from cluster.errors import RunFailedError
from cluster.idle_pause import IdlePause
from cluster.metrics import MetricsWriter
from cluster.node_watch import NodeWatch
from cluster.process_tuning import default_num_threads
from cluster.progress import Progress
from cluster.qpu_crew import QPUCrew
from cluster.ray_processes import actor_starter, processes, sampler_maker, start_qpu_workers, tests_starter
from cluster.ray_runtime import RayRuntime, ray_runtime
from cluster.ray_services import publish_parameters, start_board
from cluster.remote_tests import RemoteTests
from cluster.rollout_worker import ReplayAddress
from cluster.run_directory import RunDirectory
from cluster.server_watch import ServerWatch
from cluster.session import Session
from cluster.timings import Timings
from learner.config import AgentSpec
from learner.parameters import VersionedParameters
from qpu_service.errors import BudgetExceededError
from qpu_service.patience import patience, with_patience
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
    with ray_runtime() as runtime:
        # Ray takes the signals over when it starts; a run that is told to stop must save first.
        getattr(should_stop, "install", lambda: None)()
        require_room(processes(config, runtime))
        with (
            _replay_server(config, run, runtime) as (url, server),
            hold_lease(url, _run_id(run), run.identity()) as lease,
        ):
            address = ReplayAddress(url=url, run_id=_run_id(run))
            watches = (NodeWatch.of_this_process(), ServerWatch(server), lease)
            return _train(
                config,
                run,
                checkpoint,
                progress,
                should_stop,
                spec=spec,
                runtime=runtime,
                address=address,
                watches=watches,
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
    watches: Sequence[NodeWatch | ServerWatch | HeldLeases],
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
    qpu = start_qpu_workers(config, runtime, waits.stall_s, _meanwhile(watches, progress, should_stop))
    make_sampler = sampler_maker(config, qpu)
    tests = RemoteTests(tests_starter(config, spec, runtime, make_sampler), deadline_s=waits.actor_s)
    start_actor = actor_starter(config, spec, runtime, address, make_sampler, board)
    crew = Crew(start_actor, config.actors.num_actors, deadline_s=waits.actor_s)

    def publish(parameters: VersionedParameters) -> None:
        publish_parameters(board, parameters, lambda: _poll(watches))
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
        _loop(session, crew, qpu, replay, watches, should_stop)
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


def _poll(watches: Sequence[NodeWatch | ServerWatch | HeldLeases]) -> None:
    for watch in watches:
        watch.poll()


def _meanwhile(
    watches: Sequence[NodeWatch | ServerWatch | HeldLeases], progress: Progress, should_stop: Callable[[], bool]
) -> Callable[[str], None]:
    """What is done while QPU workers start."""

    def look(note: str) -> None:
        _poll(watches)
        if should_stop():
            # Nothing has happened yet that the last checkpoint does not have.
            raise KeyboardInterrupt
        if note:
            progress.show(lambda: note)

    return look


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
        _poll(watches)
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
            waiting=_left(session) if is_ending else " | ".join(filter(None, (timings.waiting, crew.waiting))),
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
