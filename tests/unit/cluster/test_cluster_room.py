"""Whether a cluster has room for a run: refused where nothing can add machines, told where something may."""

import json

import pytest

from cluster.cluster_room import Wanted, require_room
from cluster.errors import EXIT_REFUSED, ClusterUnreachableError

PLAIN = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
ACTOR = {**PLAIN, "resources": {"hdqnn_actor": 0.001}}
SERVICE = {**PLAIN, "resources": {"hdqnn_service": 0.001}}
DEVICE = {"num_cpus": 0, "scheduling_strategy": "the head"}
BOARD = {"num_cpus": 0, "resources": {"hdqnn_service": 0.001}}


def machine(cpus, *, actor=False, service=False, alive=True):
    resources = {"CPU": float(cpus), "memory": 1e9}
    if actor:
        resources["hdqnn_actor"] = 1_000.0
    if service:
        resources["hdqnn_service"] = 1_000.0
    return {"Alive": alive, "Resources": resources}


def report(*node_types):
    return json.dumps({"autoscaler_report": {"active_nodes": dict.fromkeys(node_types, 1)}}).encode()


BY_HAND = report(f"node_{'0f' * 28}", f"node_{'a1' * 28}")
LAUNCHED = report("local.cluster.node")


class Cluster:
    """What Ray says about a cluster, and a clock that only waiting moves."""

    def __init__(self, *machines, report=BY_HAND):
        self.machines, self.report, self.now_s = list(machines), report, 0.0

    def require(self, *wanted):
        require_room(
            wanted,
            list_nodes=lambda: self.machines,
            read_report=lambda: self.report,
            clock=lambda: self.now_s,
            sleep=self.sleep,
        )

    def sleep(self, seconds):
        assert seconds > 0
        self.now_s += seconds


def actors(count, options=PLAIN):
    return Wanted("rollout actors", count, options, "--actors.num-actors")


def workers(count, options=PLAIN):
    return Wanted("QPU workers", count, options, "--qpu.num-workers")


@pytest.mark.parametrize(
    ("machines", "wanted"),
    [
        ([machine(4)], [actors(3), workers(1)]),
        ([machine(2), machine(2)], [actors(3), workers(1)]),
        ([machine(1, service=True), machine(3, actor=True)], [actors(3, ACTOR), workers(1, SERVICE)]),
        ([machine(0, service=True), machine(3, actor=True)], [actors(3, ACTOR), Wanted("a board", 1, BOARD)]),
        ([machine(4, service=True, actor=True)], [actors(3, ACTOR), workers(1, SERVICE)]),
        ([machine(0)], [actors(800, {"num_cpus": 0}), workers(9, {"num_cpus": 0})]),
        (
            [machine(0), machine(1, service=True), machine(3, actor=True)],
            [actors(3, ACTOR), workers(1, SERVICE), workers(5, DEVICE)],
        ),
    ],
    ids=[
        "one machine",
        "two machines",
        "two kinds",
        "no CPU for a board",
        "one for both kinds",
        "not counted",
        "devices beside a head without a CPU",
    ],
)
def test_a_cluster_with_room_is_taken_at_once_and_without_a_word(machines, wanted, caplog):
    cluster = Cluster(*machines)
    cluster.require(*wanted)
    assert (cluster.now_s, caplog.records) == (0.0, [])


@pytest.mark.parametrize(
    ("machines", "wanted", "words"),
    [
        ([machine(4)], [actors(8)], "8 rollout actors need 8 CPUs, one each; 1 machine(s) may hold them, with 4 CPUs"),
        (
            [machine(3)],
            [actors(3), workers(1)],
            "3 rollout actors and 1 QPU workers need 4 CPUs, one each; 1 machine(s) may hold them, with 3 CPUs",
        ),
        (
            [machine(4, service=True), machine(1, actor=True)],
            [actors(2, ACTOR), workers(1, SERVICE)],
            "2 rollout actors need 2 CPUs, one each; 1 machine(s) may hold them, with 1 CPUs",
        ),
        ([machine(1.9)], [workers(2)], "2 QPU workers need 2 CPUs, one each; 1 machine(s) may hold them, with 1 CPUs"),
        ([machine(4), machine(4, alive=False)], [actors(5)], "1 machine(s) may hold them, with 4 CPUs"),
        ([machine(4, actor=True)], [Wanted("1 parameter board", 1, BOARD)], "0 machine(s) may hold them"),
    ],
    ids=["actors", "both together", "wrong kind", "fractions", "dead machine", "no place for a board"],
)
def test_a_cluster_without_room_that_nothing_adds_to_is_refused(machines, wanted, words):
    cluster = Cluster(*machines)
    with pytest.raises(ClusterUnreachableError) as raised:
        cluster.require(*wanted)
    message = str(raised.value)
    assert words in message
    assert "no autoscaler" in message
    assert "RAY_ADDRESS=local" in message
    for one in wanted:
        assert one.flag is None or one.flag in message
    assert raised.value.exit_code == EXIT_REFUSED


@pytest.mark.parametrize(
    "said",
    [LAUNCHED, None, b"not json", report(), json.dumps({"time": 1}).encode()],
    ids=["an autoscaler", "nothing", "nonsense", "no machines yet", "no report yet"],
)
def test_where_something_may_add_machines_it_is_told_once_and_the_run_goes_on(said, caplog):
    cluster = Cluster(machine(4), report=said)
    cluster.require(actors(8))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "8 rollout actors need 8 CPUs" in record.getMessage()
    assert "ray status" in record.getMessage()
    assert cluster.now_s <= 11.0


def test_machines_that_are_just_joining_are_waited_for(caplog):
    cluster = Cluster(machine(1), report=None)

    def sleep(seconds):
        cluster.now_s += seconds
        if cluster.now_s > 5:
            cluster.machines.append(machine(8))

    cluster.sleep = sleep
    cluster.require(actors(8))
    assert cluster.now_s < 6
    assert caplog.records == []


def test_a_report_that_comes_late_is_waited_for():
    cluster = Cluster(machine(1), report=None)

    def sleep(seconds):
        cluster.now_s += seconds
        if cluster.now_s > 5:
            cluster.report = BY_HAND

    cluster.sleep = sleep
    with pytest.raises(ClusterUnreachableError):
        cluster.require(actors(8))
