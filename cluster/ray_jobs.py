"""The jobs of a Ray cluster, over the REST interface of its dashboard.

Ray's own client reads RAY_ADDRESS and proxy settings from the environment, has no timeouts and can hang for ever on a
tunnel that broke; this one talks to the one address that it was given and always answers or raises.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import aiohttp

from cluster.errors import ClusterUnreachableError, ConfigError

_TIMEOUT_S = 30.0
_HEARTBEAT_S = 20.0
_ACTIVE_STATES = ("PENDING", "RUNNING")
JOB_PREFIX = "hdqnn-"


class Endpoint(Protocol):
    """A way to the dashboard of a cluster."""

    async def url(self) -> str:
        """http://host:port that answers now; opens or repairs the way if it has to.

        Raises:
            ClusterUnreachableError: if there is no way at the moment.
        """
        ...


class RayJobs:
    """Start, watch and stop jobs of one cluster."""

    def __init__(self, endpoint: Endpoint, token: str | None) -> None:
        """Connect lazily.

        Args:
            endpoint: the way to the dashboard.
            token: Ray's authentication token; None for a cluster without.
        """
        self._endpoint = endpoint
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def submit(self, job_id: str, entrypoint: str, env: Mapping[str, str]) -> None:
        """Start a job once, however often the connection breaks on the way.

        Args:
            job_id: submission id; Ray refuses a second job of the same id, which is what makes a retry safe.
            entrypoint: shell command, run on the head node.
            env: environment of the job and of every process that it starts. Readable by all users of the cluster.

        Raises:
            ClusterUnreachableError: if it is not known whether the job was started.
        """
        body = {
            "entrypoint": entrypoint,
            "submission_id": job_id,
            "runtime_env": {"env_vars": dict(env)} if env else {},
        }
        try:
            await self._request("POST", "/api/jobs/", body)
        except ClusterUnreachableError:
            if not await self._exists(job_id):
                raise

    async def status(self, job_id: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        return str((await self._request("GET", f"/api/jobs/{job_id}"))["status"])

    async def message(self, job_id: str) -> str:
        """What Ray says about the state of the job, one line."""
        text = str((await self._request("GET", f"/api/jobs/{job_id}")).get("message") or "")
        return text.partition("\n")[0].partition(", last available logs")[0]

    async def active(self) -> dict[str, str]:
        """Entrypoints of this project's jobs that wait or run, by submission id, oldest first."""
        jobs = await self._request("GET", "/api/jobs/")
        ours = [
            job
            for job in jobs
            if job["status"] in _ACTIVE_STATES and str(job.get("submission_id") or "").startswith(JOB_PREFIX)
        ]
        return {job["submission_id"]: job["entrypoint"] for job in sorted(ours, key=lambda job: job["start_time"] or 0)}

    async def stop(self, job_id: str) -> None:
        """Ask a job to end: SIGTERM, and SIGKILL after RAY_JOB_STOP_WAIT_TIME_S of the node."""
        await self._request("POST", f"/api/jobs/{job_id}/stop")

    async def log_so_far(self, job_id: str) -> str:
        """All output of the job until now."""
        return str((await self._request("GET", f"/api/jobs/{job_id}/logs"))["logs"])

    async def log(self, job_id: str) -> AsyncIterator[str]:
        """Output of the job from its first character on, as it comes."""
        url = await self._endpoint.url()
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers) as session,
                session.ws_connect(f"{url}/api/jobs/{job_id}/logs/tail", heartbeat=_HEARTBEAT_S, max_msg_size=0) as ws,
            ):
                async for message in ws:
                    if message.type == aiohttp.WSMsgType.TEXT:
                        yield message.data
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterUnreachableError(f"log of {job_id}: {error or type(error).__name__}") from error

    async def _exists(self, job_id: str) -> bool:
        try:
            await self.status(job_id)
        except ConfigError:
            return False
        return True

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = await self._endpoint.url()
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session,
                session.request(method, url + path, json=body) as response,
            ):
                text = await response.text()
                status = response.status
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterUnreachableError(f"{method} {path}: {error or type(error).__name__}") from error
        if status in (401, 403):
            raise ConfigError(
                f"the cluster refused the authentication token ({status} on {path}): expected the one in "
                "~/.ray/auth_token of its head node; for an http address, put it into RAY_AUTH_TOKEN"
            )
        if status == 404:
            raise ConfigError(
                f"the cluster does not know {path}: expected the id of one of its jobs (a Ray that was restarted has "
                "forgotten those before); --list shows what runs"
            )
        if status >= 400:
            raise ClusterUnreachableError(f"{method} {path}: status {status}, {text.strip().splitlines()[-1:]}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise ClusterUnreachableError(f"{method} {path}: expected JSON of a Ray dashboard at {url}") from error
