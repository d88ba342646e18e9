"""``hdqnn train``: a new run from a preset and overrides."""

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence

import tyro

from actors.environment import agent_spec
from cluster.build import learner_device, make_limiter
from cluster.config import RunConfig
from cluster.errors import EXIT_DONE, ConfigError
from cluster.presets import DESCRIPTIONS, PRESETS, get_preset
from cluster.quantum_train.presets import DESCRIPTIONS as QUANTUM_TRAIN_DESCRIPTIONS
from cluster.quantum_train.presets import PRESETS as QUANTUM_TRAIN_PRESETS
from cluster.ray_address import existing_address
from cluster.run_directory import create_run_directory, lock_run
from cluster.run_loop import run_training
from learner.blocks import BLOCKS, uses_circuit
from qpu_service.backends.registry import backend_name_from_environment, make_backend
from qpu_service.places import WorkerPlace, worker_places
from replay.embedded_server import find_server_binary
from replay.errors import ReplayConfigError
from replay.redis_session import RedisSession
from replay.server_urls import server_urls

_DEFAULT_PRESET = "pendulum"


def run(arguments: list[str]) -> int:
    """Parse, check everything that can be checked before anything is written, train."""
    preset, overrides = _split(arguments)
    if overrides in (["-h"], ["--help"]) and preset is None:
        sys.stdout.write(_teach())
        return EXIT_DONE
    preset = preset or _DEFAULT_PRESET
    if preset in QUANTUM_TRAIN_PRESETS:
        from cluster.quantum_train.command import train

        return train(preset, overrides)
    config = parse_config(preset, overrides)
    check(config)
    run_directory = create_run_directory(config, preset)
    with lock_run(run_directory):
        return run_training(config, run_directory, None)


def parse_config(preset: str, overrides: list[str]) -> RunConfig:
    """The preset with command-line overrides, and the backend resolved.

    Raises:
        ConfigError: for an unknown preset.
        ValueError: for a value out of range.
        SystemExit: with code 2 for an unknown field or a value of the wrong type.
    """
    default = get_preset(preset, others=tuple(QUANTUM_TRAIN_PRESETS))
    config = tyro.cli(
        RunConfig,
        default=default,
        args=overrides,
        prog=f"hdqnn train {preset}",
        description=f"{DESCRIPTIONS[preset]}. Every field of the preset can be overridden:",
    )
    return resolve_backend(config)


def resolve_backend(config: RunConfig) -> RunConfig:
    """Fill in the backend: the flag, else QPU_BACKEND, else statevector; none where no circuit runs."""
    if not uses_circuit(config.block):
        return dataclasses.replace(config, backend=None)
    return dataclasses.replace(config, backend=config.backend or backend_name_from_environment())


def check(config: RunConfig) -> None:
    """Refuse a run that cannot work, before anything is written or started.

    Raises:
        ConfigError, ClusterUnreachableError, ActorError, QPUError, ReplayError: saying what is wrong and what to do.
    """
    if config.run_dir is not None and config.run_dir.exists():
        create_run_directory(config, "")
    learner_device(config.device)
    urls = [] if config.synchronous else server_urls(os.environ.get("REDIS_URL", ""))
    _check_servers(config, urls)
    agent_spec(config.env_id)
    if config.backend is not None:
        _check_backends(config, config.backend)
    if not config.synchronous:
        existing_address()
        _check_replay(urls)


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
    for place in places:
        make_backend(place.backend, device=place.device).close()


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


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return None, arguments


def _teach() -> str:
    presets = "\n".join(f"  {name:18s} {DESCRIPTIONS[name]}" for name in PRESETS)
    generated = "\n".join(f"  {name:20s} {text}" for name, text in QUANTUM_TRAIN_DESCRIPTIONS.items())
    blocks = "\n".join(f"  {name:15s} {text}" for name, text in BLOCKS.items())
    return f"""\
usage: hdqnn train [preset] [--field value …]

Trains a policy: PreDNN → block T → PostDNN with TD3, the circuit's gradient taken through a surrogate.
Starts what it needs (Ray, a Redis-compatible server, QPU workers, actors) and stops it at the end.

presets (default: {_DEFAULT_PRESET}); `hdqnn train PRESET --help` lists every field with its value and source:
{presets}

presets of policies whose weights a circuit generates (--agents K, --depth L; docs/dist-qtrl.md):
{generated}

blocks (--block):
{blocks}

often used:
  --env-id ID            any Gymnasium task with a flat Box of observations and bounded continuous actions
  --seed N               every random stream of the run derives from it
  --total-steps N        environment steps of the whole run
  --backend NAME         statevector, aer, … (or QPU_BACKEND in the environment)
  --run-dir DIR          where the run is kept (default: runs/<preset>-<time>-s<seed>)
  --synchronous          one process in lockstep, without Ray and Redis, bit-reproducible
  --actors.num-actors N  actor processes; scales across the nodes of a Ray cluster

environment: QPU_BACKEND, QPU_DEVICE choose the QPU; REDIS_URL servers of your own (URL,URL); RAY_ADDRESS a cluster.
Ctrl-C saves a checkpoint and says how to go on.
"""
