"""How long parts of a run wait is decided where the run is started, not where they happen to live."""

import contextlib
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from cluster import distributed
from cluster.build import make_policy
from cluster.config import RunConfig
from cluster.presets import get_preset
from cluster.ray_runtime import RayRuntime
from cluster.seeding import Stream
from qpu_service.config import QPUConfig
from qpu_service.patience import patience
from qpu_service.types import MeasurementBatch
from tests.unit.actors.fakes import COUNTING, POLICY


@pytest.fixture
def handed_out(monkeypatch, tmp_path):
    """What ``train_distributed`` gives to the parts of a run that is started with a deadline of a day."""

    def hand_out(**qpu) -> RunConfig:
        given = []
        monkeypatch.setattr(distributed, "_train", lambda config, *_args, **_named: given.append(config))
        runtime = RayRuntime(True, "", *[{"num_cpus": 0}] * 4)
        monkeypatch.setattr(distributed, "ray_runtime", lambda: contextlib.nullcontext(runtime))
        monkeypatch.setattr(distributed, "require_room", lambda wanted: None)
        monkeypatch.setattr(distributed.NodeWatch, "of_this_process", lambda: None)
        monkeypatch.setattr(distributed, "hold_lease", lambda *_: contextlib.nullcontext())
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        monkeypatch.setenv("QPU_DEADLINE_SECONDS", "86400")
        smoke = get_preset("smoke")
        config = dataclasses.replace(smoke, backend="ibm", policy=POLICY, qpu=QPUConfig(**qpu), num_threads=1)
        run = SimpleNamespace(path=tmp_path, run_id=tmp_path / "run_id", identity=lambda: "run")
        distributed.train_distributed(config, run, None, None, lambda: False)
        (one,) = given
        return one

    return hand_out


class WaitingSampler:
    """Notes how long its callers would wait."""

    def __init__(self):
        self.timeouts_s = []

    def submit(self, circuits):
        def result(timeout_s=None):
            self.timeouts_s.append(timeout_s)
            bits = np.zeros((len(circuits), circuits.shots, circuits.angles.shape[2]), np.uint8)
            return MeasurementBatch(bits=bits, request_id=circuits.request_id, backend_name="waiting")

        return SimpleNamespace(result=result)


@pytest.mark.parametrize("elsewhere", [None, "60", "soon"])
def test_an_actor_waits_as_long_as_the_runs_deadline_demands_wherever_it_lives(handed_out, monkeypatch, elsewhere):
    config = handed_out()
    if elsewhere is None:
        monkeypatch.delenv("QPU_DEADLINE_SECONDS")
    else:
        monkeypatch.setenv("QPU_DEADLINE_SECONDS", elsewhere)
    sampler = WaitingSampler()
    policy = make_policy(config, COUNTING, sampler, Stream.ACTING_CIRCUITS, 0)
    policy.finish(policy.begin(np.zeros((1, COUNTING.observation_size), np.float32)))
    assert sampler.timeouts_s == [2 * (86_400.0 + 1_200.0)]


def test_what_the_configuration_says_stays(handed_out):
    assert handed_out(stall_s=7.0, timeout_s=77.0).qpu == QPUConfig(stall_s=7.0, timeout_s=77.0)


def test_who_waits_for_actors_outlasts_them_as_before(handed_out):
    config = handed_out()
    assert patience(config.qpu, "ibm", {}) == patience(QPUConfig(), "ibm", {"QPU_DEADLINE_SECONDS": "86400"})
