"""What stands between Ray's handles and the classes that know nothing of Ray: routing, sending again, giving up."""

import numpy as np
import pytest
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayTaskError

from cluster.errors import RunFailedError
from cluster.ray_services import RayParameterSource, RayQPUClient, publish_parameters
from learner.parameters import VersionedParameters
from qpu_service.errors import BackendFailedError, BackendUnavailableError
from qpu_service.types import CircuitBatch, MeasurementBatch, circuit_seeds
from qpu_service.wire import decode_circuits, encode_measurements
from tests.unit.cluster.fake_ray import FakeRay, Handle

PARAMETERS = VersionedParameters(version=1, arrays={}, env_step=0)


def make_circuits(request_id="request", seed=0):
    return CircuitBatch(
        angles=np.zeros((2, 1, 3, 2), np.float32),
        entangler_pairs=np.zeros((2, 1, 2), np.int16),
        seeds=circuit_seeds(seed, 2),
        request_id=request_id,
    )


def bits_of(frame):
    circuits = decode_circuits(frame)
    bits = np.zeros((len(circuits), 1, 3), np.uint8)
    return encode_measurements(MeasurementBatch(bits=bits, request_id=circuits.request_id, backend_name="fake"))


def unavailable():
    return ActorUnavailableError("restarting", b"0" * 16)


def task_error(cause):
    return RayTaskError("call", "a traceback", cause)


@pytest.fixture
def ray(monkeypatch):
    """Install a Ray whose ``get`` first does what the test wants to happen while somebody waits."""

    def install(on_wait=None):
        fake = FakeRay(on_wait)
        monkeypatch.setattr("cluster.ray_services.ray", fake)
        monkeypatch.setattr("cluster.ray_services._RETRY_PAUSE_S", 0.0)
        return fake

    return install


def test_requests_go_to_the_worker_with_the_fewest_unanswered_ones(ray):
    ray(on_wait=lambda call: setattr(call, "answer", bits_of(call.arguments[0])))
    workers = [Handle("a"), Handle("b"), Handle("c")]
    client = RayQPUClient(workers, first=1)
    pending = [client.submit(make_circuits(str(i))) for i in range(5)]
    assert [len(worker.calls) for worker in workers] == [1, 2, 2]
    # The two answers of worker b make it the idlest.
    pending[0].result(1.0)
    pending[3].result(1.0)
    client.submit(make_circuits("5"))
    assert [len(worker.calls) for worker in workers] == [1, 3, 2]


def test_bits_come_back_to_the_request_that_asked(ray):
    ray(on_wait=lambda call: setattr(call, "answer", bits_of(call.arguments[0])))
    client = RayQPUClient([Handle()])
    pending = [client.submit(make_circuits(name)) for name in ("one", "two")]
    assert [one.result(1.0).request_id for one in reversed(pending)] == ["two", "one"]


def test_a_request_whose_worker_died_is_sent_again_with_the_same_seeds(ray):
    workers = [Handle("a"), Handle("b")]

    def happen(call):
        is_first = len(workers[0].calls) == 1 and not workers[1].calls
        call.answer = unavailable() if is_first else bits_of(call.arguments[0])

    ray(on_wait=happen)
    measured = RayQPUClient(workers).submit(make_circuits(seed=7)).result(10.0)
    assert measured.request_id == "request"
    first, second = [call for worker in workers for call in worker.calls]
    assert first.arguments == second.arguments
    assert decode_circuits(second.arguments[0]).seeds.tolist() == circuit_seeds(7, 2).tolist()
    assert workers[1].calls, "the second try went to the same dead worker"


def test_a_worker_that_stays_dead_ends_the_request_at_its_deadline(ray):
    def happen(call):
        call.answer = unavailable()

    ray(on_wait=happen)
    with pytest.raises(BackendUnavailableError, match="QPU worker 0 is gone"):
        RayQPUClient([Handle()]).submit(make_circuits()).result(0.0)


def test_late_bits_are_a_timeout_with_the_setting_to_change(ray):
    def happen(call):
        call.answer = GetTimeoutError("late")

    ray(on_wait=happen)
    with pytest.raises(TimeoutError, match=r"no bits for request request of 2 circuits within 3\.0 s.*qpu\.timeout_s"):
        RayQPUClient([Handle()]).submit(make_circuits()).result(3.0)


def test_a_backends_error_comes_without_rays_wrapping(ray):
    def happen(call):
        call.answer = task_error(BackendFailedError("the device is down"))

    ray(on_wait=happen)
    client = RayQPUClient([Handle(), Handle()])
    with pytest.raises(BackendFailedError, match=r"^the device is down$"):
        client.submit(make_circuits()).result(1.0)


def test_however_a_request_ends_its_worker_counts_as_free_again(ray):
    answers = [GetTimeoutError("late"), task_error(BackendFailedError("down")), task_error(ValueError("bug")), None]
    workers = [Handle(), Handle()]

    def happen(call):
        answer = answers.pop(0)
        call.answer = bits_of(call.arguments[0]) if answer is None else answer

    ray(on_wait=happen)
    client = RayQPUClient(workers)
    for expected in (TimeoutError, BackendFailedError, Exception):
        with pytest.raises(expected):
            client.submit(make_circuits()).result(1.0)
    client.submit(make_circuits()).result(1.0)
    assert client._outstanding == [0, 0]


def test_a_board_that_restarts_has_nothing_newer(ray):
    def happen(call):
        assert call.arguments == {"newer_than": 3}
        call.answer = unavailable()

    ray(on_wait=happen)
    assert RayParameterSource(Handle()).get_parameters(newer_than=3) is None


def test_publishing_waits_for_a_board_that_restarts(ray):
    board = Handle()

    def happen(call):
        call.answer = unavailable() if len(board.calls) < 4 else "published"

    ray(on_wait=happen)
    publish_parameters(board, PARAMETERS)
    assert [call.arguments for call in board.calls] == [(PARAMETERS,)] * 4


def test_a_board_that_stays_away_ends_the_run(ray, monkeypatch):
    def happen(call):
        call.answer = unavailable()

    ray(on_wait=happen)
    monkeypatch.setattr("cluster.ray_services._BOARD_TIMEOUT_S", 0.0)
    with pytest.raises(RunFailedError, match=r"parameter board has not come back.*hdqnn resume"):
        publish_parameters(Handle(), PARAMETERS)
