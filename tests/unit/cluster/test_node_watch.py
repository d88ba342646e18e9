"""A dead node of one's own ends the run; nodes of others come and go."""

import pytest

from cluster.errors import RunFailedError
from cluster.node_watch import NodeWatch


@pytest.fixture
def world():
    nodes = [{"NodeID": "mine-and-long", "Alive": True}, {"NodeID": "other", "Alive": True}]
    now_s = [100.0]
    return nodes, now_s, NodeWatch("mine-and-long", lambda: nodes, lambda: now_s[0])


def test_other_nodes_may_die(world):
    nodes, now_s, watch = world
    nodes[1]["Alive"] = False
    now_s[0] += 6.0
    watch.poll()


@pytest.mark.parametrize("is_listed", [True, False])
def test_the_own_node_may_not(world, is_listed):
    nodes, now_s, watch = world
    if is_listed:
        nodes[0]["Alive"] = False
    else:
        nodes.pop(0)
    watch.poll()
    now_s[0] += 6.0
    with pytest.raises(RunFailedError, match=r"Ray on this machine \(node mine-and\) has died.*hdqnn resume"):
        watch.poll()
