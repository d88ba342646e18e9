"""A stand-in for the job part of Ray's dashboard, served over real HTTP on the loopback address."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


class FakeDashboard:
    """Jobs by submission id; checks the token and the form of what it is sent on every call."""

    def __init__(self) -> None:
        self.authorization = "Bearer token-1"
        self.jobs: dict[str, dict] = {}
        self.logs: dict[str, str] = {}
        self.requests: list[str] = []
        self.final_status = "SUCCEEDED"
        self.drop_reply_to_submit = False
        self.url = ""

    def add(self, job_id: str, entrypoint: str, *, status: str, log: str = "", start_time: int = 1) -> None:
        self.jobs[job_id] = {
            "submission_id": job_id,
            "entrypoint": entrypoint,
            "status": status,
            "start_time": start_time,
            "message": f"Job is {status}.\nmore",
        }
        self.logs[job_id] = log

    def application(self) -> web.Application:
        @web.middleware
        async def check(request: web.Request, handler):
            self.requests.append(f"{request.method} {request.path}")
            if request.headers.get("Authorization") != self.authorization:
                return web.Response(status=403, text="Forbidden: Invalid authentication token")
            return await handler(request)

        application = web.Application(middlewares=[check])
        application.add_routes(
            [
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/", self._list),
                web.get("/api/jobs/{id}", self._get),
                web.post("/api/jobs/{id}/stop", self._stop),
                web.get("/api/jobs/{id}/logs", self._logs),
                web.get("/api/jobs/{id}/logs/tail", self._tail),
            ]
        )
        return application

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        assert set(body) == {"entrypoint", "submission_id", "runtime_env"}
        if body["submission_id"] in self.jobs:
            return web.Response(status=400, text="Traceback\nValueError: already exists")
        self.add(body["submission_id"], body["entrypoint"], status="RUNNING", log=f"env {body['runtime_env']}\n")
        if self.drop_reply_to_submit:
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"submission_id": body["submission_id"], "job_id": body["submission_id"]})

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response(list(self.jobs.values()))

    async def _get(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        return web.json_response(job) if job else web.Response(status=404, text="does not exist")

    async def _stop(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return web.Response(status=404, text="does not exist")
        job["status"], self.final_status = "STOPPED", "STOPPED"
        return web.json_response({"stopped": True})

    async def _logs(self, request: web.Request) -> web.Response:
        return web.json_response({"logs": self.logs[request.match_info["id"]]})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        job_id = request.match_info["id"]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(self.logs[job_id])
        await asyncio.sleep(0.05)
        self.jobs[job_id]["status"] = self.final_status
        await socket.close()
        return socket


@contextmanager
def serve(dashboard: FakeDashboard) -> Iterator[FakeDashboard]:
    """Serve from a thread of its own until the end of the block."""
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def start() -> web.AppRunner:
        runner = web.AppRunner(dashboard.application(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert runner.addresses
        dashboard.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        started.set()
        return runner

    runner = None

    def work() -> None:
        nonlocal runner
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield dashboard
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
