"""The processes of a run over Ray: which there are, and how each is started."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import ray

from cluster.cluster_room import Wanted
from cluster.config import RunConfig
from cluster.qpu_crew import QPUCrew
from cluster.ray_runtime import RayRuntime
from cluster.ray_services import RayParameterSource, RayQPUClient
from cluster.remote_tests import TEST_WORKER_THREADS, TestWorker
from cluster.rollout_worker import ReplayAddress, RolloutWorker
from learner.config import AgentSpec
from qpu_service.interfaces import CircuitSampler
from qpu_service.places import WorkerPlace, worker_places


def processes(config: RunConfig, runtime: RayRuntime) -> list[Wanted]:
    """What of a run needs a place on the cluster."""
    places = _qpu_places(config)
    simulators = [place for place in places if not place.is_real_device]
    devices = [place for place in places if place.is_real_device]
    return [
        Wanted("rollout actors", config.actors.num_actors, runtime.actor_options, "--actors.num-actors"),
        *(
            # All of a kind have the same options.
            Wanted(name, len(kind), runtime.options_of(kind[0]), "--qpu.num-workers")
            for name, kind in (("QPU workers", simulators), ("QPU workers of real devices", devices))
            if kind
        ),
        Wanted("services (evaluator, parameter board)", 2, runtime.service_options),
    ]


def start_qpu_workers(
    config: RunConfig, runtime: RayRuntime, stall_s: float, meanwhile: Callable[[str], None]
) -> QPUCrew | None:
    """The QPU workers, all of them up; None where no circuit runs. See QPUCrew for what it raises."""
    places = _qpu_places(config)
    if not places:
        return None
    num_qubits = config.policy.circuit.num_qubits
    return QPUCrew(places, config.qpu, runtime.options_of, num_qubits=num_qubits, stall_s=stall_s, meanwhile=meanwhile)


def actor_starter(
    config: RunConfig,
    spec: AgentSpec,
    runtime: RayRuntime,
    address: ReplayAddress,
    make_sampler: Callable[[int], CircuitSampler | None],
    board: Any,
) -> Callable[[int], Any]:
    """What starts the actor with a number."""
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


def tests_starter(
    config: RunConfig, spec: AgentSpec, runtime: RayRuntime, make_sampler: Callable[[int], CircuitSampler | None]
) -> Callable[[], Any]:
    """What starts the evaluator."""
    remote = ray.remote(concurrency_groups=TEST_WORKER_THREADS)(TestWorker).options(**runtime.service_options)
    return lambda: remote.remote(config, spec, make_sampler(0))


def sampler_maker(config: RunConfig, qpu: QPUCrew | None) -> Callable[[int], CircuitSampler | None]:
    """What gives actor i its way to the QPU workers."""
    if qpu is None:
        return lambda _: None
    handles = qpu.handles
    if config.qpu.routing == "affinity":
        return lambda actor_id: RayQPUClient([handles[actor_id % len(handles)]])
    return lambda actor_id: RayQPUClient(handles, first=actor_id)


def _qpu_places(config: RunConfig) -> Sequence[WorkerPlace]:
    if config.backend is None:
        return []
    return worker_places(config.backend, os.environ.get("QPU_DEVICE"), config.qpu.num_workers)
