"""Where QPU workers live on a cluster of two nodes, with a real Ray. About 20 s."""

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.ray_runtime import ray_runtime
from qpu_service.places import WorkerPlace

pytestmark = [pytest.mark.ray]


class Probe:
    def node(self):
        return ray.get_runtime_context().get_node_id()


@pytest.fixture
def nodes(monkeypatch):
    """Ids of a head without a core to give away, as on Kubernetes, and of a node for services."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # whatever token this machine has
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    service = cluster.add_node(num_cpus=2, resources={"hdqnn_service": 1000})
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster.head_node.node_id, service.node_id
    cluster.shutdown()


def test_workers_of_real_devices_are_beside_the_driver_and_simulators_where_services_are(nodes):
    head, service = nodes
    places = {
        WorkerPlace("ibm", "ibm_fez"): head,  # the account, the journal and the budget are there
        WorkerPlace("ibm", None): head,
        WorkerPlace("ibm", "fake_torino"): service,
        WorkerPlace("statevector", None): service,
    }
    with ray_runtime() as runtime:
        assert ray.get_runtime_context().get_node_id() == head
        probes = [ray.remote(Probe).options(**runtime.options_of(place)).remote() for place in places]
        assert ray.get([probe.node.remote() for probe in probes], timeout=60) == list(places.values())
