"""What stands between Ray's handles and the classes that know nothing of Ray: routing, sending again, giving up."""

import numpy as np
import pytest
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayTaskError

from actors.errors import InvalidEnvironmentError
from cluster.errors import RunFailedError
from cluster.ray_services import RayParameterSource, RayQPUClient, publish_parameters
from cluster.remote_tests import RemoteTests
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
        for module in ("ray_services", "remote_tests"):
            monkeypatch.setattr(f"cluster.{module}.ray", fake)
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


class Rounds:
    """A RemoteTests and the workers that it started."""

    def __init__(self):
        self.workers = []
        self.now_s = 100.0
        self.tests = RemoteTests(self._start, deadline_s=60.0, clock=lambda: self.now_s, sleep=self._sleep)

    def _start(self):
        self.workers.append(Handle())
        return self.workers[-1]

    def _sleep(self, seconds):
        self.now_s += seconds


def test_rounds_come_in_the_order_in_which_they_were_asked_for(ray):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    rounds.tests.request("second")
    (worker,) = rounds.workers
    assert rounds.tests.collect() == []
    worker.calls[1].answer = "round 2"
    assert rounds.tests.collect() == []
    worker.calls[0].answer = "round 1"
    assert rounds.tests.collect() == ["round 1", "round 2"]
    assert rounds.tests.collect(wait=True) == []


@pytest.mark.parametrize(
    "error",
    [RayActorError(error_msg="killed"), task_error(BackendFailedError("down")), task_error(TimeoutError())],
    ids=["died", "QPU failed", "silent"],
)
def test_rounds_that_fail_are_run_again_elsewhere(ray, caplog, error):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    rounds.tests.request("second")
    rounds.workers[0].fail(error)
    assert rounds.tests.collect() == []
    assert rounds.workers[0].is_killed
    assert [call.arguments for call in rounds.workers[1].calls] == [("first",), ("second",)]
    assert "running 2 round(s) again" in caplog.text
    rounds.workers[1].answer("round 1")
    assert rounds.tests.collect() == ["round 1"]


def test_an_environment_at_fault_ends_the_run_with_its_own_error(ray):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    error = InvalidEnvironmentError("the reward is nan")
    rounds.workers[0].fail(task_error(error))
    with pytest.raises(InvalidEnvironmentError) as raised:
        rounds.tests.collect()
    assert raised.value is error


def test_an_evaluator_that_fails_again_and_again_is_given_time_and_then_ends_the_run(ray):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    started_s = []
    for _ in range(4):
        rounds.workers[-1].fail(RayActorError(error_msg="killed"))
        before = len(rounds.workers)
        rounds.tests.collect()
        while len(rounds.workers) == before:
            rounds.now_s += 0.25
            rounds.tests.collect()
        started_s.append(rounds.now_s)
    assert started_s == [100.0, 100.5, 101.5, 103.5]
    rounds.workers[-1].fail(RayActorError(error_msg="killed"))
    with pytest.raises(RunFailedError, match=r"evaluator failed 5 times in a row.*killed.*hdqnn resume"):
        rounds.tests.collect()


def look(rounds, after_s, answer=None):
    """Let time pass and the runner look at its worker, which answers how long its step has lasted."""
    rounds.now_s += after_s
    rounds.tests.collect()
    if answer is not None:
        (question,) = [call for call in rounds.workers[-1].idle_s.calls if call.answer is None]
        question.answer = answer


@pytest.mark.parametrize("wait", [False, True])
def test_an_evaluator_that_hangs_is_replaced(ray, caplog, wait):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    for _ in range(20):
        look(rounds, 6.0, answer=59.0)
        look(rounds, 6.0)
    assert len(rounds.workers) == 1, "a slow step was taken for a wedged one"
    look(rounds, 6.0, answer=61.0)
    look(rounds, 6.0)
    assert rounds.workers[0].is_killed
    assert "no step for 61 s; an environment or a backend hangs" in caplog.text
    rounds.workers[1].run.calls[0].answer = "round 1"
    assert rounds.tests.collect(wait=wait) == ["round 1"]


def test_an_evaluator_that_answers_nothing_at_all_is_replaced(ray):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    for _ in range(12):
        look(rounds, 6.0)
    assert [worker.is_killed for worker in rounds.workers] == [True, False]


def test_waiting_for_a_round_ends_when_its_evaluator_hangs_for_good(ray):
    ray()
    rounds = Rounds()
    rounds.tests.request("first")
    with pytest.raises(RunFailedError, match=r"failed 5 times in a row, the last time with: no step for 6\d s"):
        rounds.tests.collect(wait=True)
