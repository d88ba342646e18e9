"""IBM's HTTP interface on localhost: enough of it that the real client signs in, submits, polls, cancels and reads.

The device is fake_manila under another name. Jobs are executed truthfully, by Qiskit's statevector, from the circuits
that were posted. ``script`` decides what happens to the next requests of a kind.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import qiskit_ibm_runtime.fake_provider.backends.manila as manila
from qiskit.primitives import BitArray, DataBin, PrimitiveResult, SamplerPubResult
from qiskit_ibm_runtime import RuntimeDecoder, RuntimeEncoder

from tests.unit.qpu_service.ibm_service import measure

TOKEN = "canary-api-key-5f2c"  # noqa: S105 - made up, so that it can be looked for
INSTANCE = "crn:v1:bluemix:public:quantum-computing:us-east:a/account:instance::"
DEVICE = "ibm_http"

DROP = "drop"
"""Do what was asked, then close the connection without an answer."""


@dataclass
class HTTPJob:
    identifier: str
    request: dict[str, Any]
    polls_left: int = 2
    was_cancelled: bool = False
    bits: list[np.ndarray] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        status = "Cancelled" if self.was_cancelled else "Running" if self.polls_left > 0 else "Completed"
        return {
            "id": self.identifier,
            "backend": self.request["backend"],
            "state": {"status": status},
            "status": status,
            "program": {"id": self.request["program_id"]},
            "tags": self.request.get("tags", []),
            "created": "2026-01-01T00:00:00Z",
            "session_id": self.request.get("session_id"),
        }


class FakeIBM(ThreadingHTTPServer):
    """The server; use it as a context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: list[HTTPJob] = []
        self.sessions: list[dict[str, Any]] = []
        self.script: dict[str, list[Any]] = defaultdict(list)
        self.seen: list[str] = []
        self.on_event: Callable[[str], None] = lambda event: None
        self.polls_before_done = 2
        folder = Path(manila.__file__).parent
        self.configuration = json.loads((folder / "conf_manila.json").read_text()) | {"backend_name": DEVICE}
        self.properties = json.loads((folder / "props_manila.json").read_text()) | {"backend_name": DEVICE}

    def __enter__(self) -> "FakeIBM":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def environment(self, journal: Path, **more: str) -> dict[str, str]:
        """What a process needs to talk to this server instead of IBM."""
        url = f"http://127.0.0.1:{self.server_port}"
        return {
            "QISKIT_IBM_TOKEN": TOKEN,
            "QISKIT_IBM_INSTANCE": INSTANCE,
            "QISKIT_IBM_URL": f"{url}/experimental",  # the client takes such an address as it is
            "QISKIT_FUNCTIONS_EXPERIMENTAL": "1",  # the client then does not search for instances
            "IAM_URL": url,
            "QPU_DEVICE": DEVICE,
            "QPU_BUDGET_SECONDS": "1000",
            "QPU_JOURNAL_DIR": str(journal),
            **more,
        }

    def kind_of(self, method: str, path: str) -> str:
        """submit, list, status, results, metrics, cancel, or the path's last part."""
        parts = path.strip("/").split("/")
        if parts[-1] == "jobs":
            return "submit" if method == "POST" else "list"
        if len(parts) > 1 and parts[-2] == "jobs":
            return "status"
        return parts[-1]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> Any:
        """JSON-able answer, or text."""
        parts = path.removeprefix("/experimental").strip("/").split("/")
        if parts == ["identity", "token"]:
            assert f"apikey={TOKEN}" in body.decode()
            return {"access_token": _jwt(), "token_type": "Bearer", "expires_in": 3600, "expiration": _in_an_hour()}
        if parts == ["backends"]:
            return {"devices": [{"name": DEVICE, "status": {"name": "online"}, "qubits": 5, "queue_length": 0}]}
        if parts[0] == "backends":
            return {
                "configuration": self.configuration,
                "properties": self.properties,
                "status": {"state": True, "status": "active", "length_queue": 0},
            }[parts[2]]
        if parts == ["instances", "usage"]:
            return {"usage_consumed_seconds": 0}
        if parts[0] == "sessions":
            return self.about_session(method, parts[1:], json.loads(body or b"{}"))
        assert parts[0] == "jobs", path
        if parts == ["jobs"] and method == "POST":
            return {"id": self.accept(json.loads(body)).identifier, "backend": DEVICE}
        if parts == ["jobs"]:
            tags = set(query.get("tags", []))
            found = [job.describe() for job in reversed(self.jobs) if tags <= set(job.request.get("tags", []))]
            return {"jobs": found, "count": len(found)}
        return self.about(parts[1], parts[2:])

    def about_session(self, method: str, what: list[str], body: dict[str, Any]) -> Any:
        if method == "POST":
            session = body | {"id": f"session-{len(self.sessions) + 1}", "accepting_jobs": True, "elapsed_time": 0}
            self.sessions.append(session | {"backend_name": body["backend"], "state": "open"})
            return session
        session = next(session for session in self.sessions if session["id"] == what[0])
        session.update(body)
        return session

    def accept(self, request: dict[str, Any]) -> HTTPJob:
        job = HTTPJob(f"job-{len(self.jobs) + 1}", request, self.polls_before_done)
        self.jobs.append(job)
        return job

    def about(self, job_id: str, what: list[str]) -> Any:
        job = next((job for job in self.jobs if job.identifier == job_id), None)
        if job is None:
            raise KeyError(job_id)
        if not what:
            job.polls_left -= 1
            return job.describe()
        if what == ["cancel"]:
            job.was_cancelled = True
            return {}
        if what == ["metrics"]:
            return {"usage": {"status": "complete", "qpu_charge_time_seconds": 3.0}}
        return execute(job.request)


class _Handler(BaseHTTPRequestHandler):
    server: FakeIBM
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self, method: str) -> None:
        parsed = urlparse(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.server.kind_of(method, parsed.path)
        self.server.seen.append(kind)
        event = self.server.script[kind].pop(0) if self.server.script[kind] else None
        if isinstance(event, tuple):
            status, code = event
            self._reply(status, json.dumps({"error": {"message": "as scripted", "code": code}}))
            return
        try:
            answer = self.server.answer(method, parsed.path, parse_qs(parsed.query), body)
        except KeyError:
            self._reply(404, json.dumps({"error": {"message": "not found", "code": 1291}}))
            return
        self.server.on_event(kind)
        if event == DROP:
            self.close_connection = True
            self.connection.close()
            return
        self._reply(200, answer if isinstance(answer, str) else json.dumps(answer))

    def _reply(self, status: int, text: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client was killed


def execute(request: dict[str, Any]) -> str:
    """Run a posted job and write its result as the service would."""
    if request["program_id"] == "sampler":
        pubs = json.loads(json.dumps(request["params"]["pubs"]), cls=RuntimeDecoder)
        bits = [measure(circuit, shots, seed) for seed, (circuit, _, shots) in enumerate(pubs)]
        result = PrimitiveResult([SamplerPubResult(DataBin(meas=BitArray.from_bool_array(b, "little"))) for b in bits])
        return json.dumps(result, cls=RuntimeEncoder)
    return _execute_program(request["params"])


def _execute_program(params: dict[str, Any]) -> str:
    """The client-side sampler's jobs."""
    from ibm_quantum_schemas.common import CompressedTensorModel
    from ibm_quantum_schemas.executor.version_2_0 import ParamsModel, QuantumProgramResultModel

    program = ParamsModel.model_validate(params).quantum_program
    data = [
        {"results": {"meas": CompressedTensorModel.from_numpy(measure(circuit, program.shots, seed))}, "metadata": {}}
        for seed, circuit in enumerate(program.circuits.to_python(use_cached=True))
    ]
    return QuantumProgramResultModel.model_validate(
        {
            "data": data,
            "metadata": {"chunk_timing": []},
            "passthrough_data": program.passthrough_data,
            "semantic_role": program.semantic_role,
        }
    ).model_dump_json()


def _in_an_hour() -> int:
    return int(time.time()) + 3600  # noqa: TID251 - a token's date


def _jwt() -> str:
    """An access token that says when it ends; the client reads it, nobody checks it."""
    import base64

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'iat': _in_an_hour() - 3600, 'exp': _in_an_hour()})}.c2lnbmF0dXJl"
