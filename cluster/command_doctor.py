"""``hdqnn doctor``: is everything here that a run needs? One line per check; never shows a token or a password."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cluster.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from qpu_service.places import WorkerPlace

_PACKAGES = ("torch", "numba", "gymnasium", "mujoco", "ray", "redis", "qiskit", "qiskit-aer", "qiskit-ibm-runtime")


def run(arguments: list[str]) -> int:
    """Run every check; returns 1 if one failed."""
    parser = argparse.ArgumentParser(
        prog="hdqnn doctor",
        description="Checks packages, the learner's device, an environment, the configured QPU backend with one known "
        "circuit, the replay server and Ray. Tokens and passwords are never shown.",
    )
    parser.add_argument("--env-id", default="Pendulum-v1", help="environment to try (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("packages", _packages),
        ("learner", _learner),
        ("environment", lambda: _environment(parsed.env_id)),
        ("QPU backend", _backend),
        ("replay server", _replay_server),
        ("Ray", _ray),
    ]
    failures = 0
    for name, check in checks:
        try:
            sys.stdout.write(f"ok    {name:14s} {check()}\n")
        except Exception as error:
            failures += 1
            sys.stdout.write(f"FAIL  {name:14s} {type(error).__name__}: {error}\n")
    return EXIT_FAILED if failures else EXIT_DONE


def _packages() -> str:
    return ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)


def _learner() -> str:
    import torch

    return f"{torch.get_num_threads()} threads, CUDA {'available' if torch.cuda.is_available() else 'not available'}"


def _environment(env_id: str) -> str:
    from actors.environment import agent_spec

    spec = agent_spec(env_id)
    return f"{env_id}: {spec.observation_size} observations, {spec.action_size} actions"


def _backend() -> str:
    """One circuit whose outcome is certain: π rotations flip the even qubits of |0000⟩."""
    from qpu_service.backends.registry import backend_name_from_environment
    from qpu_service.places import worker_places

    names = backend_name_from_environment()
    return ", ".join(_try_place(place) for place in worker_places(names, os.environ.get("QPU_DEVICE"), 1))


def _try_place(place: "WorkerPlace") -> str:
    from qpu_service.backends.registry import make_backend
    from qpu_service.types import CircuitBatch, circuit_seeds

    backend = make_backend(place.backend, device=place.device)
    angles = np.zeros((1, 1, 4, 2), np.float32)
    angles[0, 0, ::2, 0] = np.pi
    circuits = CircuitBatch(
        angles=angles,
        entangler_pairs=np.zeros((1, 1, 2), np.int16),
        # A new seed every time: a device service would answer a known one with the bits of an earlier day.
        seeds=circuit_seeds(int.from_bytes(os.urandom(8), "little"), 1),
        shots=100,
    )
    try:
        measured = backend.run(circuits)
    finally:
        backend.close()
    agreement = float((measured.bits[0] == np.array([1, 0, 1, 0])).mean())
    name = place.backend if place.device is None else f"{place.backend} on {place.device}"
    if agreement < 0.75:
        raise RuntimeError(f"{name} measured the known circuit right in {agreement:.0%} of the bits, expected ≥ 75 %")
    return f"{name}: known circuit right in {agreement:.1%} of the bits"


def _replay_server() -> str:
    from replay.embedded_server import EmbeddedServer
    from replay.server_check import describe_server
    from replay.server_urls import server_urls

    url = os.environ.get("REDIS_URL")
    if url:
        return "REDIS_URL: " + "; ".join(describe_server(each) for each in server_urls(url))
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer.start(Path(directory)) as server:
        return f"embedded (set REDIS_URL for one of your own): {describe_server(server.url)}"


def _ray() -> str:
    from cluster.ray_runtime import ray_runtime

    with ray_runtime() as runtime:
        import ray

        where = "started one" if runtime.is_own else "joined the running cluster"
        return f"{where}: {ray.cluster_resources().get('CPU', 0):.0f} CPUs on {len(ray.nodes())} node(s)"
