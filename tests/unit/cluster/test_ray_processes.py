"""What a run asks a cluster for: as many places, with the same options, as its processes are started with."""

import dataclasses

import pytest

from cluster.cluster_room import Wanted
from cluster.presets import get_preset
from cluster.ray_processes import processes
from cluster.ray_runtime import RayRuntime

ACTOR, QPU = {"num_cpus": 1, "resources": {"actor": 0.001}}, {"num_cpus": 1, "resources": {"service": 0.001}}
DEVICE, SERVICE = {"num_cpus": 0, "scheduling_strategy": "here"}, {"num_cpus": 0}
RUNTIME = RayRuntime(False, "", ACTOR, QPU, DEVICE, SERVICE)
SIMULATORS = "QPU workers"
DEVICES = "QPU workers of real devices"


@pytest.mark.parametrize(
    ("backend", "devices", "num_workers", "wanted"),
    [
        (None, None, 1, []),
        ("statevector", None, 3, [(SIMULATORS, 3, QPU)]),
        ("ibm", "ibm_torino,ibm_fez", 2, [(DEVICES, 2, DEVICE)]),
        ("ibm", "fake_torino", 2, [(SIMULATORS, 2, QPU)]),
        ("statevector,ibm,aer", None, 4, [(SIMULATORS, 3, QPU), (DEVICES, 1, DEVICE)]),
    ],
)
def test_qpu_workers_ask_for_what_they_are_started_with(monkeypatch, backend, devices, num_workers, wanted):
    if devices is None:
        monkeypatch.delenv("QPU_DEVICE", raising=False)
    else:
        monkeypatch.setenv("QPU_DEVICE", devices)
    smoke = get_preset("smoke")
    qpu = dataclasses.replace(smoke.qpu, num_workers=num_workers)
    actors, *workers, services = processes(dataclasses.replace(smoke, backend=backend, qpu=qpu), RUNTIME)
    assert actors == Wanted("rollout actors", smoke.actors.num_actors, ACTOR, "--actors.num-actors")
    assert workers == [Wanted(name, count, options, "--qpu.num-workers") for name, count, options in wanted]
    assert services.options == SERVICE
