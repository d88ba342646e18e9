"""What a run needs, checked before anything is written or started."""

import os
import sys
from collections.abc import Iterable, Sequence

from actors.environment import agent_spec
from cluster.build_replay import make_limiter
from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.ray_address import existing_address
from cluster.run_directory import create_run_directory
from learner.config import check_family, uses_circuit
from qpu_service.backends.registry import make_backend
from qpu_service.places import WorkerPlace, worker_places
from replay.embedded_server import find_server_binary
from replay.errors import ReplayConfigError
from replay.redis_session import RedisSession
from replay.server_urls import server_urls


def check(config: RunConfig) -> None:
    """Refuse a run that cannot work, before anything is written or started.

    Raises:
        ConfigError, ClusterUnreachableError, ActorError, QPUError, ReplayError: saying what is wrong and what to do.
    """
    if config.run_dir is not None and config.run_dir.exists():
        create_run_directory(config, "")
    urls = [] if config.synchronous else server_urls(os.environ.get("REDIS_URL", ""))
    _check_servers(config, urls)
    action_size = agent_spec(config.env_id).action_size
    try:
        check_family(config.policy.family, action_size)
    except ValueError as error:
        raise ConfigError(f"{config.env_id} with policy.family {config.policy.family}: {error}") from error
    if config.backend is not None:
        _check_backends(config, config.backend)
    if not config.synchronous:
        existing_address()
        _check_replay(urls)
    # Last, because torch takes seconds to load.
    from cluster.build import learner_device

    learner_device(config.device)


def _check_servers(config: RunConfig, urls: Sequence[str]) -> None:
    """Several servers share the slack and the actors, and each needs its part of them."""
    num_servers = max(1, len(urls))
    try:
        make_limiter(config, num_servers)
    except ReplayConfigError as error:
        if num_servers == 1:
            raise
        raise ConfigError(f"{error}; each of the {num_servers} servers in REDIS_URL takes its part of it") from error
    if num_servers > config.actors.num_actors:
        raise ConfigError(
            f"REDIS_URL names {num_servers} servers for {config.actors.num_actors} actor(s), and each actor writes to "
            "one of them; name fewer servers or raise actors.num_actors"
        )


def _check_replay(urls: Sequence[str]) -> None:
    """The servers in REDIS_URL must answer, know us and keep what they are given; else there must be one to start."""
    if not urls:
        find_server_binary()
    for url in urls:
        session = RedisSession(url, deadline_s=0.0)
        try:
            session.check_no_eviction()
        finally:
            session.close()


def _check_backends(config: RunConfig, backends: str) -> None:
    """Make each backend once: a missing package, device or token shows here."""
    places = set(worker_places(backends, os.environ.get("QPU_DEVICE"), config.qpu.num_workers))
    if config.synchronous and len(places) > 1:
        raise ConfigError(
            f"a synchronous run has one QPU, got {backends!r} with QPU_DEVICE={os.environ.get('QPU_DEVICE')!r}; "
            "name one backend and one device, or leave out --synchronous"
        )
    _check_exact_training(config, places)
    if any(place.backend == "statevector" for place in places):
        _say_whether_it_compiles()
    for place in places:
        make_backend(place.backend, device=place.device, num_qubits=config.policy.circuit.num_qubits).close()


def _say_whether_it_compiles() -> None:
    # Numba takes a second to load, which nobody waits for who only wants help.
    from qpu_service.backends.statevector import is_compiled

    if not is_compiled():
        sys.stdout.write("compiling the simulator for this machine, once; half a minute on a free core\n")
        sys.stdout.flush()


def _check_exact_training(config: RunConfig, places: Iterable[WorkerPlace]) -> None:
    """What the surrogate is fitted to must be what the circuits give: a device and its noise have no exact means."""
    if not (uses_circuit(config.block) and config.surrogate.needs_simulator):
        return
    asked = "surrogate.targets=bit_means, surrogate.gradient=exact and surrogate.tolerance"
    for place in places:
        if place.backend not in ("statevector", "aer") or place.device is not None:
            where = place.backend if place.device is None else f"{place.backend} with device {place.device}"
            raise ConfigError(
                f"{asked} need the circuit's exact means, which only simulators without noise have, got backend "
                f"{where}; set surrogate.gradient=surrogate, targets=bits, fit_on=replay and no tolerance, "
                "or use the statevector backend"
            )
    if config.qpu.readout == "most_probable":
        raise ConfigError(
            f"{asked} fit the mean of each bit, but the policy sees the most probable bitstring; "
            "set qpu.readout to sample or mean"
        )
