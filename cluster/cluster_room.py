"""Whether a Ray cluster has room for a run, asked before anything of the run is started.

Ray itself keeps a process without a place waiting for ever and says nothing.
"""

import itertools
import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.experimental.internal_kv import _internal_kv_get

from cluster.errors import ClusterUnreachableError

_log = logging.getLogger(__name__)
_PATIENCE_S = 10.0
"""Machines that were started with the run join meanwhile, and Ray's monitor writes its report every five seconds."""
_PERIOD_S = 0.5
_MIRRORED_NODE = re.compile(r"node_[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Processes of one kind."""

    name: str
    count: int
    options: Mapping[str, Any]
    """Ray options of each."""
    flag: str | None = None
    """What asks for fewer of them."""


def require_room(
    wanted: Sequence[Wanted],
    *,
    list_nodes: Callable[[], Sequence[Mapping[str, Any]]] = ray.nodes,
    read_report: Callable[[], bytes | None] = lambda: _internal_kv_get(DEBUG_AUTOSCALING_STATUS),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Refuse a cluster that is too small and stays so; where machines may be added, warn and go on.

    What other runs hold at the moment counts as room: they end.

    Args:
        wanted: processes of the run.
        list_nodes: what the cluster knows about its machines.
        read_report: the newest report of Ray's monitor; None where there is none.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        ClusterUnreachableError: if there is no room and Ray says that nothing adds machines.
    """
    deadline_s = clock() + _PATIENCE_S
    while lack := _lack(list_nodes(), wanted):
        if clock() < deadline_s:
            sleep(_PERIOD_S)
            continue
        if not _can_grow(read_report()):
            flags = ", ".join(dict.fromkeys(one.flag for one in wanted if one.flag is not None))
            raise ClusterUnreachableError(
                f"the Ray cluster is too small for this run: {lack}. Expected room for all of them, because nothing "
                f"adds machines here (no autoscaler): add some with `ray start --address=…`, ask for less ({flags}), "
                "or set RAY_ADDRESS=local for a Ray of this machine alone"
            )
        _log.warning(
            "the Ray cluster is too small for this run so far: %s. The run starts with what there is; the rest waits "
            "for machines, and `ray status` on the cluster says whether any are on their way",
            lack,
        )
        return


def _lack(nodes: Sequence[Mapping[str, Any]], wanted: Sequence[Wanted]) -> str | None:
    """What there is no room for, in words; None where everything has a place."""
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    # Kinds that each have room may still lack it together, where they share machines.
    for size in range(1, len(wanted) + 1):
        for kinds in itertools.combinations(wanted, size):
            usable = [machine for machine in machines if any(_takes(machine, kind) for kind in kinds)]
            num_asked = sum(kind.count * kind.options["num_cpus"] for kind in kinds)
            num_cpus = sum(int(machine.get("CPU", 0)) for machine in usable)
            if not usable or num_asked > num_cpus:
                names = " and ".join(f"{kind.count} {kind.name}" for kind in kinds)
                room = f"{len(usable)} machine(s) may hold them, with {num_cpus} CPUs"
                return f"{names} need {num_asked} CPUs, one each; {room}"
    return None


def _takes(machine: Mapping[str, float], kind: Wanted) -> bool:
    return all(machine.get(name, 0.0) > 0.0 for name in kind.options.get("resources", {}))


def _can_grow(report: bytes | None) -> bool:
    """Whether something may add machines; False only where Ray says that nothing does.

    The monitor that `ray start` starts without a configuration mirrors the machines: it names a type after each of
    them. One that a configuration was given to (`ray up`) has the names of that. Version 2 (`ray up`, KubeRay) and the
    autoscalers of others leave no report.
    """
    try:
        names = list(json.loads(report or b"")["autoscaler_report"]["active_nodes"])
    except (ValueError, KeyError, TypeError):
        return True
    return not names or not all(_MIRRORED_NODE.fullmatch(name) for name in names)
