"""A cluster that is too small, with a real Ray: refused at the start, and what waits for a machine has not failed."""

import json
import time

import pytest

pytestmark = pytest.mark.ray
TWO_PLACES = 2


@pytest.fixture(scope="module")
def runtime():
    """A Ray with two CPUs that a run would join."""
    import ray

    from cluster.ray_runtime import RayRuntime

    ray.init(address="local", num_cpus=TWO_PLACES, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield RayRuntime(False, "127.0.0.1", {"num_cpus": 1}, {"num_cpus": 1}, {"num_cpus": 0}, {"num_cpus": 0})
    ray.shutdown()


class Stepper:
    """An actor whose reports are its number."""

    def __init__(self, actor_id):
        self._actor_id = actor_id

    def advance(self, budget_s):
        time.sleep(budget_s / 5)
        return self._actor_id


def until(is_so, deadline_s=60.0):
    deadline_s += time.monotonic()
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_run_that_does_not_fit_is_refused_because_ray_says_that_nothing_adds_machines(runtime):
    from ray.experimental.internal_kv import _internal_kv_get

    from cluster.cluster_room import Wanted, require_room
    from cluster.errors import ClusterUnreachableError

    service = Wanted("services", 2, runtime.service_options)
    require_room([Wanted("actors", 1, runtime.actor_options), Wanted("QPU workers", 1, runtime.qpu_options), service])

    def machines_in_report():
        # On a busy machine the monitor's first report may come before it has seen any.
        report = json.loads(_internal_kv_get(b"__autoscaling_status") or b"{}")
        return report.get("autoscaler_report", {}).get("active_nodes")

    until(machines_in_report)
    actors = Wanted("actors", 8, runtime.actor_options, "--actors.num-actors")
    with pytest.raises(ClusterUnreachableError, match=r"8 actors need 8 CPUs, .* with 2 CPUs\..*no autoscaler"):
        require_room([actors, service], clock=lambda: 20 * time.monotonic())


def test_actors_without_a_machine_wait_while_the_others_work_and_start_when_there_is_room(runtime):
    import ray

    from cluster.crew import Crew

    handles, reports = {}, []

    def start(actor_id):
        handles[actor_id] = ray.remote(Stepper).options(**runtime.actor_options).remote(actor_id)
        return handles[actor_id]

    crew = Crew(start, 3, deadline_s=6.0)

    def poll():
        reports.extend(crew.poll())

    try:
        until(lambda: poll() or len(set(reports)) == TWO_PLACES)
        began_s = time.monotonic()
        until(lambda: poll() or time.monotonic() - began_s > 8.0)
        assert crew.num_restarts == 0, "an actor that waits for a machine was taken for one that hangs"
        assert len(set(reports)) == TWO_PLACES
        ray.kill(handles[reports[-1]])
        until(lambda: poll() or len(set(reports)) == 3)
        assert crew.num_restarts == 1
    finally:
        crew.stop()


def test_qpu_workers_without_a_machine_are_told_and_a_stop_ends_the_wait(runtime, monkeypatch):
    from cluster.qpu_crew import QPUCrew
    from qpu_service.config import QPUConfig
    from qpu_service.places import worker_places

    monkeypatch.setattr("cluster.qpu_crew._TELL_AFTER_S", 1.0)
    notes = []

    def meanwhile(note):
        notes.append(note)
        if note == "1 of 3 QPU workers wait for a machine":
            raise KeyboardInterrupt

    places = worker_places("statevector", None, 3)
    with pytest.raises(KeyboardInterrupt):
        QPUCrew(places, QPUConfig(), runtime.options_of, num_qubits=3, meanwhile=meanwhile)
    assert len(notes) > 5
