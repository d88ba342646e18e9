"""Which Ray cluster a run joins. Never imports ray, so that a wrong address is refused before anything starts."""

import os
import socket
from pathlib import Path

from cluster.errors import ClusterUnreachableError

CURRENT_CLUSTER = Path("/tmp/ray/ray_current_cluster")  # noqa: S108 - Ray's own fixed place
_CONNECT_TIMEOUT_S = 3.0
_OWN = "local"
"""Ray's word for a Ray of this process's own, also where a cluster runs on the node."""


def existing_address() -> str | None:
    """RAY_ADDRESS, else the Ray that ``ray start`` left on this node; None where the run is to start its own.

    Raises:
        ClusterUnreachableError: if RAY_ADDRESS is set and nobody listens there; Ray itself would try for minutes.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address == _OWN:
        return None
    if address and address != "auto":
        _check(address)
        return address
    try:
        recorded = CURRENT_CLUSTER.read_text().strip()
        _connect(recorded)
    except (OSError, ValueError) as error:
        if not address:
            return None
        raise _unreachable(address, f"no Ray runs on this node ({error})") from error
    return recorded


def _check(address: str) -> None:
    try:
        _connect(address.rpartition("://")[2])
    except ValueError as error:
        raise _unreachable(address, "it is not host:port") from error
    except OSError as error:
        raise _unreachable(address, str(error)) from error


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _unreachable(address: str, reason: str) -> ClusterUnreachableError:
    return ClusterUnreachableError(
        f"cannot join the Ray cluster at {address}: {reason}. Expected RAY_ADDRESS to be host:port of a running "
        "cluster, or auto for the one on this node; check it, or unset RAY_ADDRESS to start a Ray of this run's own"
    )
