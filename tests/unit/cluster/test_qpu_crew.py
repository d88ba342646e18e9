"""Supervision of QPU workers, with a Ray of the test's own: who stalls is replaced once, who dies is counted."""

import dataclasses

import pytest
from ray.exceptions import RayActorError

from cluster.errors import RunFailedError
from cluster.qpu_crew import QPUCrew
from cluster.ray_runtime import RayRuntime
from qpu_service.config import QPUConfig
from qpu_service.device_health import DeviceHealth
from qpu_service.places import worker_places
from qpu_service.worker_stats import StatsRecorder
from tests.unit.cluster.fake_ray import FakeRay, Handle, has_process


class Ray(FakeRay):
    """Also starts actors; ``kill`` counts."""

    def __init__(self):
        super().__init__()
        self.started, self.kills, self.qubits, self.cpus = [], [], [], []
        self.num_machines = 1_000

    def remote(self, **options):
        assert options["max_restarts"] == -1, "Ray must start a killed worker again"
        return lambda _: self

    def options(self, **options):
        self.cpus.append(options.get("num_cpus"))
        outer = self

        class Maker:
            def remote(self, *arguments):
                outer.qubits.append(arguments[3])
                outer.started.append(Handle(arguments[0]))
                outer.started[-1].is_placed = len(outer.started) <= outer.num_machines
                return outer.started[-1]

        return Maker()

    def kill(self, handle, no_restart=True):
        self.kills.append((handle, no_restart))


def stats(*, running_s=0.0, device=None, **counts):
    return dataclasses.replace(
        StatsRecorder().snapshot(queued_circuits=0, running_s=running_s, device=device), **counts
    )


class World:
    def __init__(
        self,
        ray,
        num_workers=1,
        backends="statevector",
        devices=None,
        *,
        starts=lambda handle: handle.is_placed,
        meanwhile=lambda note: None,
    ):
        self.now_s = 0.0
        self.ray, self._starts = ray, starts
        runtime = RayRuntime(
            is_own=False, host="", actor_options={}, qpu_options={"num_cpus": 1}, device_options={"num_cpus": 0},
            service_options={},
        )  # fmt: skip
        self.crew = QPUCrew(
            worker_places(backends, devices, num_workers),
            QPUConfig(),
            runtime.options_of,
            num_qubits=13,
            stall_s=120.0,
            meanwhile=meanwhile,
            has_process=has_process,
            clock=lambda: self.now_s,
            sleep=self._sleep,
        )
        self.now_s = 100.0

    def _sleep(self, seconds):
        """The crew waits for its workers: those that start answer."""
        assert 0 < seconds <= 1
        self.now_s += seconds
        for call in [call for handle in self.ray.started if self._starts(handle) for call in handle.calls]:
            call.answer = call.answer or stats()

    def poll(self, *, after_s=1.0):
        self.now_s += after_s
        self.crew.poll()

    def hear(self, *answers):
        """Every worker answers the question that it was asked; then the next one is asked."""
        self.poll()
        for handle, answer in zip(self.ray.started, answers, strict=True):
            handle.answer(answer)
        self.poll()


@pytest.fixture
def ray(monkeypatch):
    fake = Ray()
    monkeypatch.setattr("cluster.qpu_crew.ray", fake)
    return fake


def test_every_worker_gets_ready_for_the_runs_circuits(ray):
    World(ray, num_workers=2)
    assert ray.qubits == [13, 13]


def test_workers_of_real_devices_have_a_place_of_their_own(ray):
    World(ray, backends="statevector,aer,ibm,ibm,ibm,ibm", devices=",fake_manila,fake_torino,ideal_torino,ibm_fez,")
    assert ray.cpus == [1, 1, 1, 1, 0, 0]


def test_a_run_that_lasts_too_long_replaces_the_worker_exactly_once(ray):
    world = World(ray)
    world.hear(stats(running_s=119.0))
    assert ray.kills == []
    world.hear(stats(running_s=121.0))
    assert ray.kills == [(ray.started[0], False)]
    for _ in range(5):
        world.poll()
    assert len(ray.kills) == 1
    world.hear(stats())
    assert len(ray.kills) == 1
    assert world.crew.num_restarts == 1


def test_a_worker_that_says_nothing_is_replaced_and_asked_anew(ray):
    world = World(ray)
    world.poll()
    world.poll(after_s=119.0)
    assert ray.kills == []
    world.poll(after_s=2.0)
    assert ray.kills == [(ray.started[0], False)]
    world.poll(after_s=119.0)
    assert len(ray.kills) == 1, "the new process has the same time as the old one"


def test_a_worker_that_dies_again_and_again_ends_the_run(ray):
    world = World(ray)
    for _ in range(4):
        world.hear(RayActorError(error_msg="killed"))
        world.hear(stats())
    with pytest.raises(RunFailedError, match=r"died or hung 5 times in a row, .*: killed\. .*hdqnn resume"):
        world.hear(RayActorError(error_msg="killed"))
    assert ray.kills == [], "Ray itself starts dead workers again"
    assert world.crew.num_restarts == 5


def test_a_worker_that_is_being_started_has_not_died_again(ray):
    world = World(ray)
    for _ in range(10):
        world.hear(RayActorError(error_msg="restarting"))
    assert world.crew.num_restarts == 1
    world.hear(stats())
    world.hear(RayActorError(error_msg="killed"))
    assert world.crew.num_restarts == 2


def test_a_worker_that_never_comes_up_ends_the_run(ray):
    world = World(ray)

    def fail_for_ever():
        for _ in range(120):
            world.hear(RayActorError(error_msg="killed while starting"))

    with pytest.raises(RunFailedError, match="5 times in a row, the last time with: killed while starting"):
        fail_for_ever()
    assert 4 * 30.0 < world.now_s - 100.0 < 4 * 30.0 + 0.5 + 1.0 + 2.0 + 5 * 4.0


def test_a_worker_that_never_comes_up_ends_the_run_although_each_of_its_processes_waits_for_its_place(ray):
    world = World(ray)

    def fail_for_ever():
        for second in range(600):
            ray.started[0].is_placed = second % 4 > 0
            world.hear(RayActorError(error_msg="killed while starting"))

    with pytest.raises(RunFailedError, match="5 times in a row, the last time with: killed while starting"):
        fail_for_ever()


def test_a_worker_that_lost_its_machine_waits_for_another_one_and_has_not_died_again(ray):
    world = World(ray, num_workers=2)
    world.hear(stats(), stats())
    ray.started[1].is_placed = False
    for _ in range(3_600):
        world.hear(stats(), RayActorError(error_msg="restarting"))
    assert world.crew.num_restarts == 1
    assert "1 of 2 QPU workers wait for a machine" in world.crew.note
    ray.started[1].is_placed = True
    world.hear(stats(), stats())
    assert "wait for a machine" not in world.crew.note
    assert ray.kills == []


def test_deaths_far_apart_are_no_loop(ray):
    world = World(ray)
    for _ in range(10):
        world.hear(RayActorError(error_msg="killed"))
        world.hear(stats())
        world.poll(after_s=61.0)
        world.hear(stats())
    assert world.crew.num_restarts == 10


def test_a_backend_that_hangs_in_every_run_ends_the_run(ray):
    world = World(ray)
    for _ in range(4):
        world.hear(stats(running_s=0.0))
        world.poll(after_s=119.0)
        world.hear(stats(running_s=121.0))
    world.hear(stats(running_s=0.0))
    world.poll(after_s=119.0)
    with pytest.raises(RunFailedError, match=r"hung 5 times in a row, the last time with: one run has lasted 121 s"):
        world.hear(stats(running_s=121.0))
    assert len(ray.kills) == 4


def test_a_row_has_rates_of_the_last_second_and_splits_latency_into_queue_and_run(ray):
    world = World(ray, num_workers=2)
    assert world.crew.row() == {}
    world.hear(stats(circuits=100), stats(circuits=10))
    for handle, number in zip(ray.started, (160, 30), strict=True):
        handle.answer(
            stats(
                circuits=number, requests=10, batches=5, shots=2 * number, errors=1, queued_circuits=7,
                queue_s_sum=0.1, execution_s_sum=0.2, latency_p50_s=0.003, latency_p99_s=0.004,
            )
        )  # fmt: skip
    world.poll()
    row = world.crew.row()
    assert row["qpu/circuits_per_s"] == pytest.approx(60.0 + 20.0)
    assert row["qpu/queued_circuits"] == 14
    assert row["qpu/batch_circuits"] == pytest.approx(190 / 10)
    assert row["qpu/queue_ms"] == pytest.approx(1e3 * 0.2 / 20)
    assert row["qpu/run_ms"] == pytest.approx(1e3 * 0.4 / 10)
    assert (row["qpu/request_p50_ms"], row["qpu/request_p99_ms"]) == (3.0, 4.0)
    assert (row["qpu/errors"], row["qpu/restarts"]) == (2, 0)
    assert not [name for name in row if "budget" in name or "breaker" in name]


def test_breaker_and_budget_of_a_device_are_in_the_row_and_in_the_note(ray):
    world = World(ray)
    ill = DeviceHealth(failures_in_a_row=2, paused_s=30.0, budget_left_s=99.0, budget_left_jobs=4)
    for _ in range(2):
        world.hear(stats(device=ill))
    row = world.crew.row()
    assert (row["qpu/breaker_open"], row["qpu/budget_left_s"], row["qpu/budget_left_jobs"]) == (1.0, 99.0, 4.0)
    assert world.crew.note == (
        "0 circuits/s in runs of 0 (queue 0.0 ms, run 0.0 ms) | QPU budget left: 99 s, 4 jobs | "
        "QPU service failed 2 times, next try in 30 s"
    )
