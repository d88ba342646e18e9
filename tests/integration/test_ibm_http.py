"""The real client of Qiskit Runtime against IBM's interface on localhost, processes killed in between. About 30 s.

What this can't show is IBM's side: queues, calibrations, real charges.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qpu_service.errors import BackendUnavailableError, InvalidCircuitError
from qpu_service.ibm.backend import IBMBackend
from qpu_service.ibm.connect import make_ibm_backend
from qpu_service.ibm.trouble import Timing
from tests.integration.ibm_http import DROP, TOKEN, FakeIBM
from tests.unit.qpu_service.ibm_process import assert_right, flips

CHILD = """
import os, numpy as np
from qpu_service.ibm.connect import make_ibm_backend
from tests.unit.qpu_service.ibm_process import flips
bits = make_ibm_backend().run(flips([9, 3, 12])).bits
print("answer", (bits[:, 0] << np.arange(4)).sum(axis=1).tolist(), flush=True)
"""


@pytest.fixture
def ibm() -> Iterator[FakeIBM]:
    with FakeIBM() as server:
        yield server


@pytest.fixture
def connect(
    ibm: FakeIBM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator["contextlib.AbstractContextManager[Any]"]:
    opened: list[IBMBackend] = []

    def make(**more: str) -> IBMBackend:
        environment = ibm.environment(tmp_path, **more)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        backend = make_ibm_backend(environment=environment, timing=Timing(sleep=lambda _seconds: None))
        opened.append(backend)
        return backend

    yield make  # type: ignore[misc]
    for backend in opened:
        backend.close()


@pytest.mark.parametrize("sampler", ["legacy", "executor"])
def test_both_samplers_submit_and_read(ibm: FakeIBM, connect: Any, sampler: str) -> None:
    backend = connect(QPU_SAMPLER=sampler)
    assert_right(backend.run(flips([9, 3, 15, 0])).bits, [9, 3, 15, 0])
    (job,) = ibm.jobs
    assert job.request["program_id"] == {"legacy": "sampler", "executor": "executor"}[sampler]
    assert job.request["tags"][0].startswith("hdqnn-run-")
    assert job.request["cost"] == 1_000
    assert backend.spending().spent_s == 3.0


@pytest.mark.parametrize("sampler", ["legacy", "executor"])
def test_an_ended_job_is_read_again_instead_of_paid_again(ibm: FakeIBM, connect: Any, sampler: str) -> None:
    connect(QPU_SAMPLER=sampler).run(flips([9, 3]))
    assert_right(connect(QPU_SAMPLER=sampler).run(flips([9, 3])).bits, [9, 3])
    assert len(ibm.jobs) == 1


@pytest.mark.parametrize(("mode", "named"), [("batch", "batch"), ("session", "dedicated")])
def test_jobs_run_in_a_batch_or_session_that_a_restart_goes_on_with(
    ibm: FakeIBM, connect: Any, mode: str, named: str
) -> None:
    connect(QPU_MODE=mode).run(flips([9], seed=1))
    backend = connect(QPU_MODE=mode)
    backend.run(flips([9], seed=2))
    (session,) = ibm.sessions
    assert (session["mode"], session["max_ttl"]) == (named, 1_000)
    assert [job.request["session_id"] for job in ibm.jobs] == ["session-1", "session-1"]
    backend.close()
    assert session["accepting_jobs"] is False


def test_too_many_requests_are_repeated(ibm: FakeIBM, connect: Any) -> None:
    backend = connect()
    ibm.script["submit"] = [(429, 1202), (429, 1202)]
    assert_right(backend.run(flips([9])).bits, [9])
    assert (len(ibm.jobs), ibm.seen.count("submit"), ibm.seen.count("list")) == (1, 3, 0)


def test_a_lost_answer_is_found_by_its_tag(ibm: FakeIBM, connect: Any) -> None:
    backend = connect()
    ibm.script["submit"] = [DROP]
    assert_right(backend.run(flips([9])).bits, [9])
    assert (len(ibm.jobs), ibm.seen.count("submit"), ibm.seen.count("list")) == (1, 1, 1)


def test_an_error_of_the_server_is_repeated_by_the_client(ibm: FakeIBM, connect: Any) -> None:
    backend = connect()
    ibm.script["submit"] = [(500, 1000)]
    ibm.script["status"] = [(502, 1000)]
    assert_right(backend.run(flips([9])).bits, [9])
    assert len(ibm.jobs) == 1


def test_a_token_that_becomes_invalid_stops_the_request_and_loses_nothing(ibm: FakeIBM, connect: Any) -> None:
    backend = connect()
    ibm.script["status"] = [(401, 1201)]
    with pytest.raises(BackendUnavailableError, match=r"wrong token.*check QISKIT_IBM_TOKEN"):
        backend.run(flips([9]))
    assert_right(backend.run(flips([9])).bits, [9])
    assert len(ibm.jobs) == 1


def test_a_refused_circuit_is_not_sent_again(ibm: FakeIBM, connect: Any) -> None:
    backend = connect()
    ibm.script["submit"] = [(400, 7000)]
    with pytest.raises(InvalidCircuitError, match="invalid circuit"):
        backend.run(flips([9]))
    assert (ibm.jobs, ibm.seen.count("submit")) == ([], 1)
    assert backend.spending().reserved == {}


def test_a_server_that_does_not_answer_is_asked_again(ibm: FakeIBM, connect: Any) -> None:
    backend = connect()
    backend.run(flips([9], seed=1))
    backend._runtime._read_timeout_s = 0.3
    silent = threading.Event()

    def stay_silent_once(event: str) -> None:
        if event == "status" and ibm.seen.count("status") == 3:
            silent.wait(5.0)

    ibm.on_event = stay_silent_once
    assert_right(backend.run(flips([9], seed=2)).bits, [9])
    silent.set()
    assert len(ibm.jobs) == 2


@pytest.mark.parametrize("event", [(401, 1201), (403, 1200)])
def test_a_wrong_token_is_said_at_once(ibm: FakeIBM, connect: Any, event: tuple[int, int]) -> None:
    ibm.script["backends"] = [event] * 10
    with pytest.raises(BackendUnavailableError, match="QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE give access"):
        connect()


def test_the_token_is_nowhere(
    ibm: FakeIBM, connect: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("qiskit_ibm_runtime", "urllib3", "ibm-cloud-sdk-core"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    backend = connect()
    ibm.script["submit"] = [(429, 1202), DROP]
    ibm.script["status"] = [(500, 1000)]
    backend.run(flips([9]))
    ibm.script["status"] = [(401, 1201)]
    with pytest.raises(BackendUnavailableError) as raised:
        backend.run(flips([3], seed=3))
    logging.getLogger("qiskit_ibm_runtime.api.session").warning("a careless line with %s in it", TOKEN)
    backend.close()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    logged = "".join(logging.Formatter().format(record) for record in caplog.records)
    warned = "".join(str(warning.message) for warning in recwarn)
    chain: BaseException | None = raised.value
    messages = []
    while chain is not None:
        messages.append(str(chain))
        chain = chain.__cause__ or chain.__context__
    assert "a careless line with [secret] in it" in logged
    assert TOKEN not in written + logged + warned + "".join(messages)
    assert TOKEN not in repr(vars(backend))


def run_child(environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow
def test_processes_killed_between_submission_and_result(ibm: FakeIBM, tmp_path: Path) -> None:
    environment = ibm.environment(tmp_path)
    # SIGKILL when the server has taken the job, while it runs, and while its result is on the way.
    for event in ("submit", "status", "results"):
        child = run_child(environment)
        died = threading.Event()

        def kill(seen: str, event: str = event, child: Any = child, died: threading.Event = died) -> None:
            if seen == event and not died.is_set():
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                died.set()

        ibm.on_event = kill
        output, _ = child.communicate(timeout=120)
        assert died.is_set()
        assert "answer" not in output
    ibm.on_event = lambda event: None
    output, _ = run_child(environment).communicate(timeout=120)
    assert output.split("answer")[1].strip() == "[9, 3, 12]"
    assert len(ibm.jobs) == 1
    assert len({tuple(job.request["tags"]) for job in ibm.jobs}) == 1


def test_flips_are_what_they_say() -> None:
    """The judge of these tests: numbers in binary."""
    assert flips([5]).angles[0, 0, :, 0].tolist() == pytest.approx((np.pi * np.array([1, 0, 1, 0])).tolist(), rel=1e-6)
