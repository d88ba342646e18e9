"""Notices that Ray on this machine has died: whoever calls it then would wait for minutes and learn nothing."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import ray

from cluster.errors import RunFailedError

_PERIOD_S = 5.0


class NodeWatch:
    """Looks after the node that this process is on.

    Args:
        node_id: Ray's name of the node.
        list_nodes: what the cluster knows about its nodes.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        node_id: str,
        list_nodes: Callable[[], Sequence[Mapping[str, Any]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node_id, self._list_nodes, self._clock = node_id, list_nodes, clock
        self._next_s = clock() + _PERIOD_S

    @classmethod
    def of_this_process(cls) -> Self:
        """For a process that has joined a cluster."""
        return cls(ray.get_runtime_context().get_node_id(), ray.nodes)

    def poll(self) -> None:
        """Look, at most every few seconds.

        Raises:
            RunFailedError: if the node is dead.
        """
        now_s = self._clock()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _PERIOD_S
        if not any(node["Alive"] for node in self._list_nodes() if node["NodeID"] == self._node_id):
            raise RunFailedError(
                f"Ray on this machine (node {self._node_id[:8]}) has died; nothing acknowledged is lost. Look for the "
                "reason in Ray's raylet.err and in the kernel's log (out of memory?), then go on with `hdqnn resume`"
            )
