"""Joins a Ray cluster or starts one for this run, and says where its processes may go."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.state import actors
from ray._raylet import Config  # type: ignore[attr-defined]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.errors import ClusterUnreachableError
from cluster.ray_address import existing_address
from qpu_service.places import WorkerPlace

_log = logging.getLogger(__name__)
_TOKEN = Path.home() / ".ray" / "auth_token"
_RESOURCE_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class RayRuntime:
    """The Ray that this run uses."""

    is_own: bool
    """Whether this process started it and stops it at the end."""
    host: str
    """Address under which other nodes reach this one; loopback where there are none."""
    actor_options: dict[str, Any]
    """Ray options of rollout actors."""
    qpu_options: dict[str, Any]
    """Ray options of QPU workers that simulate."""
    device_options: dict[str, Any]
    """Ray options of QPU workers of real devices: on the driver's node, where account, journal and budget are."""
    service_options: dict[str, Any]
    """Ray options of evaluator and parameter board."""

    def options_of(self, place: WorkerPlace) -> dict[str, Any]:
        """Ray options of the QPU worker that owns this place."""
        return self.device_options if place.is_real_device else self.qpu_options


def has_process(handle: Any) -> bool:
    """Whether an actor has a process somewhere; until then it waits for a machine with room.

    Ray's public answer to this comes from its dashboard, which not every cluster runs, so this asks where that asks. An
    address is there from the moment a machine gives the actor a process, before its constructor is through.
    """
    info = actors(handle._actor_id.hex())
    return bool(info) and bool(info["Address"]["IPAddress"])


@contextmanager
def ray_runtime() -> Iterator[RayRuntime]:
    """Join RAY_ADDRESS, else the Ray that ``ray start`` left on this node, else start one; leave it at the end.

    Raises:
        ClusterUnreachableError: if RAY_ADDRESS is set and cannot be joined.
    """
    address = existing_address()
    try:
        if address is None:
            # Our processes are counted by us, not by Ray: they wait for each other more than they compute.
            ray.init(address="local", include_dashboard=False, logging_level=logging.ERROR, log_to_driver=True)
            _protect_token()
        else:
            _adopt_token()
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True)
    except Exception as error:
        if address is None:
            raise
        raise ClusterUnreachableError(
            f"cannot join the Ray cluster at {address}: {error}. Expected a running cluster of Ray {ray.__version__}; "
            "check RAY_ADDRESS, and RAY_AUTH_TOKEN_PATH if the cluster asks for a token, or unset RAY_ADDRESS to "
            "start a Ray of this run's own"
        ) from error
    try:
        yield _describe(is_own=address is None)
    finally:
        ray.shutdown()


def _describe(*, is_own: bool) -> RayRuntime:
    if is_own:
        anywhere = {"num_cpus": 0}
        return RayRuntime(True, "127.0.0.1", anywhere, anywhere, anywhere, anywhere)
    advertised = ray.cluster_resources()
    actor: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
    qpu: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
    service: dict[str, Any] = {"num_cpus": 0}
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    device: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here}  # it waits more than it computes
    # Node types that keep stateful parts on on-demand machines advertise these (cluster/aws.yaml).
    if "hdqnn_actor" in advertised or "hdqnn_service" in advertised:
        actor["resources"] = {"hdqnn_actor": _RESOURCE_SHARE}
        qpu["resources"] = service["resources"] = {"hdqnn_service": _RESOURCE_SHARE}
    return RayRuntime(False, ray.util.get_node_ip_address(), actor, qpu, device, service)


def _adopt_token() -> None:
    """Use the token that is there: Ray 2.60 joins an explicit address without it unless told to."""
    has_token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or _TOKEN.is_file()
    if has_token and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        # Ray read its settings when it was imported; this makes it read them again, as its own start does.
        Config.initialize("")


def _protect_token() -> None:
    """Ray writes its token file readable for everybody on the machine."""
    if _TOKEN.is_file():
        _TOKEN.chmod(0o600)
