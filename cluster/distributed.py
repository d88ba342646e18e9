"""Training over processes: actors and QPU workers on Ray, the replay on Redis, the learner here.

The loop updates whenever the samples-per-insert law allows it and never waits for an actor; everything
that can die (actors, QPU workers, evaluator, parameter board, the replay's server) is replaced or waited
for by the part that talks to it.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch

from actors.environment import agent_spec
from cluster.build import make_learner, make_limiter, transition_spec
from cluster.checkpoint import Checkpoint
from cluster.config import RunConfig
from cluster.crew import Crew
from cluster.metrics import MetricsWriter
from cluster.process_tuning import default_num_threads
from cluster.progress import Progress
from cluster.ray_runtime import RayRuntime, ray_runtime
from cluster.ray_services import RayParameterSource, RayQPUClient, start_board, start_qpu_workers
from cluster.remote_tests import RemoteTests, TestWorker
from cluster.rollout_worker import ActorReport, ReplayAddress, RolloutWorker
from cluster.run_directory import RunDirectory
from cluster.session import Session
from learner.config import AgentSpec
from learner.parameters import VersionedParameters
from qpu_service.interfaces import CircuitSampler
from replay.embedded_server import EmbeddedServer
from replay.redis_replay import RedisReplay

_log = logging.getLogger(__name__)
_UPDATES_PER_TICK = 8
_IDLE_S = 0.002


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
    spec = agent_spec(config.env_id)
    torch.set_num_threads(config.num_threads or default_num_threads())
    with ray_runtime() as runtime, _replay_server(run, runtime) as url:
        # Ray takes the signals over when it starts; a run that is told to stop must save first.
        getattr(should_stop, "install", lambda: None)()
        address = ReplayAddress(url=url, run_id=_run_id(run))
        return _train(config, run, checkpoint, progress, should_stop, spec=spec, runtime=runtime, address=address)


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
) -> Session:
    replay = RedisReplay.connect(
        address.url,
        address.run_id,
        transition_spec(config, spec),
        make_limiter(config),
        config.replay.capacity,
        dataset_id=None if checkpoint is None else checkpoint.scalars["dataset_id"],
    )
    board = start_board(runtime.service_options)
    qpu_workers: list[Any] = []
    if config.backend is not None:
        device = os.environ.get("QPU_DEVICE")
        qpu_workers = start_qpu_workers(config.backend, device, config.qpu, runtime.service_options)
    tests = RemoteTests(_tests_starter(config, spec, runtime, qpu_workers))
    crew = Crew(_actor_starter(config, spec, runtime, address, qpu_workers, board), config.actors.num_actors)

    def publish(parameters: VersionedParameters) -> None:
        ray.get(board.publish.remote(parameters))
        replay.announce_policy_version(parameters.version)

    session = Session(
        config,
        run,
        learner=make_learner(config, spec),
        source=replay,
        publish=publish,
        tests=tests,
        metrics=MetricsWriter(run),
        progress=progress,
        extra_state=lambda: ({}, {"dataset_id": replay.dataset_id}),
    )
    try:
        if checkpoint is not None:
            replay.set_sampled(int(checkpoint.scalars["sampled"]))
        session.start(checkpoint, version_floor=0 if checkpoint is None else replay.poll().policy_version)
        _loop(session, crew, qpu_workers, should_stop)
        for report in crew.stop():
            session.add_episodes(report.episodes)
        session.tick()
        if session.is_done:
            while session.learn(_UPDATES_PER_TICK):
                session.tick()
            session.finish()
        else:
            session.save()
    finally:
        crew.stop()
        tests.stop()
        session.close()
        replay.close()
    return session


def _loop(session: Session, crew: Crew, qpu_workers: Sequence[Any], should_stop: Callable[[], bool]) -> None:
    timings = _Timings(qpu_workers)
    while not session.is_done and not should_stop():
        reports = crew.poll()
        for report in reports:
            session.add_episodes(report.episodes)
        timings.add(reports)
        before_s = time.monotonic()
        made = session.learn(_UPDATES_PER_TICK)
        timings.learned(time.monotonic() - before_s, is_idle=made == 0)
        session.tick(qpu_ms=timings.qpu_ms, waiting=timings.waiting, timings=timings.row(crew.num_restarts))
        if made == 0:
            time.sleep(_IDLE_S)


class _Timings:
    """Where the time goes: shares of the actors' and of the learner's time, latency of the QPU service."""

    def __init__(self, qpu_workers: Sequence[Any]) -> None:
        self.qpu_ms: float | None = None
        self._qpu_workers = qpu_workers
        self._stats_call: Any = None
        self._busy_s = self._blocked_s = 0.0
        self._learn_s = 0.0
        self._started_s = time.monotonic()
        self._is_idle = False

    @property
    def waiting(self) -> str:
        """Who waits for whom."""
        if self._is_idle:
            return "learner waits for actors"
        return "actors wait for the learner" if self._blocked_s > self._busy_s else ""

    def add(self, reports: Sequence[ActorReport]) -> None:
        """Reports of actors; each also triggers a question to the first QPU worker."""
        for report in reports:
            self._busy_s = 0.9 * self._busy_s + 0.1 * report.busy_s
            self._blocked_s = 0.9 * self._blocked_s + 0.1 * report.blocked_s
        if reports and self._qpu_workers:
            self._ask_qpu()

    def learned(self, seconds: float, *, is_idle: bool) -> None:
        """Time spent in updates."""
        self._learn_s += seconds
        self._is_idle = is_idle

    def row(self, num_restarts: int) -> dict[str, float]:
        """Values for a row of metrics."""
        total = self._busy_s + self._blocked_s
        row = {
            "learner_busy_share": self._learn_s / max(time.monotonic() - self._started_s, 1e-9),
            "actor_busy_share": self._busy_s / total if total else 0.0,
            "actor_restarts": float(num_restarts),
        }
        if self.qpu_ms is not None:
            row["qpu_request_ms"] = self.qpu_ms
        return row

    def _ask_qpu(self) -> None:
        if self._stats_call is not None:
            if not ray.wait([self._stats_call], timeout=0)[0]:
                return
            try:
                self.qpu_ms = 1e3 * float(ray.get(self._stats_call).latency_p50_s)
            except ray.exceptions.RayActorError as error:
                _log.warning("a QPU worker died and is started again: %s", str(error).strip().splitlines()[-1])
        self._stats_call = self._qpu_workers[0].stats.remote()


def _actor_starter(
    config: RunConfig,
    spec: AgentSpec,
    runtime: RayRuntime,
    address: ReplayAddress,
    qpu_workers: Sequence[Any],
    board: Any,
) -> Callable[[int], Any]:
    remote = ray.remote(RolloutWorker).options(**runtime.actor_options)

    def start(actor_id: int) -> Any:
        return remote.remote(
            config,
            spec,
            actor_id=actor_id,
            address=address,
            sampler=RayQPUClient(qpu_workers, first=actor_id) if qpu_workers else None,
            source=RayParameterSource(board),
        )

    return start


def _tests_starter(
    config: RunConfig, spec: AgentSpec, runtime: RayRuntime, qpu_workers: Sequence[Any]
) -> Callable[[], Any]:
    remote = ray.remote(TestWorker).options(**runtime.service_options)

    def start() -> Any:
        sampler: CircuitSampler | None = RayQPUClient(qpu_workers) if qpu_workers else None
        return remote.remote(config, spec, sampler)

    return start


@contextmanager
def _replay_server(run: RunDirectory, runtime: RayRuntime) -> Iterator[str]:
    """URL of the replay's server: REDIS_URL, else one of the run's own that keeps its data in the run directory."""
    url = os.environ.get("REDIS_URL")
    if url:
        yield url
        return
    run.replay.mkdir(exist_ok=True)
    with EmbeddedServer.start(run.replay, host=runtime.host) as server:
        yield server.url


def _run_id(run: RunDirectory) -> str:
    """Names the run's keys on a server that several runs may share; fixed when the run is made."""
    path = run.path / "run_id"
    if not path.exists():
        path.write_text(f"{run.path.name}-{os.urandom(4).hex()}\n")
    return path.read_text().strip()
