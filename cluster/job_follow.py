"""Follow a job of a Ray cluster until it ends, over connections that break.

The end of a log means nothing here: Ray's log stream may close while the job runs, and may stay open after it ended.
Only the job's status decides, and a lost cluster is given time to come back. Knows nothing of Ray, HTTP or ssh.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from cluster.errors import ClusterUnreachableError

SUCCEEDED = "SUCCEEDED"
STOPPED = "STOPPED"
TERMINAL_STATES = frozenset({SUCCEEDED, STOPPED, "FAILED"})


class JobView(Protocol):
    """What is asked of a cluster about its jobs; both raise ``ClusterUnreachableError`` when it does not answer."""

    async def status(self, job_id: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        ...

    def log(self, job_id: str) -> AsyncIterator[str]:
        """The job's output from its first character on; may end or fail at any time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowPolicy:
    """Patience of the follower."""

    poll_s: float = 5.0
    """Seconds without output after which the status is asked, and between two attempts to reach the cluster."""
    give_up_s: float = 600.0
    """Seconds without any answer from the cluster after which following ends with an error."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.poll_s < 0 or self.give_up_s < 0:
            raise ValueError(f"poll_s and give_up_s must not be negative, got {self}")


@dataclass(slots=True)
class _Printer:
    """Writes a log that is read again and again from its start, each character once."""

    write: Callable[[str], object]
    printed: int = 0

    async def copy(self, jobs: JobView, job_id: str, poll_s: float) -> None:
        """Read one stream to its end, or until it is silent and the job is over."""
        position = 0
        stream = jobs.log(job_id)
        read: asyncio.Task[str | None] | None = None
        try:
            while True:
                read = read or asyncio.ensure_future(_next_or_none(stream))
                done, _ = await asyncio.wait({read}, timeout=poll_s)
                if not done:
                    if await jobs.status(job_id) in TERMINAL_STATES:
                        return
                    continue
                chunk, read = read.result(), None
                if chunk is None:
                    return
                fresh = chunk[max(0, self.printed - position) :]
                position += len(chunk)
                if fresh:
                    self.printed = position
                    self.write(fresh)
        finally:
            if read is not None:
                read.cancel()
                await asyncio.gather(read, return_exceptions=True)


async def _next_or_none(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


async def follow(
    jobs: JobView,
    job_id: str,
    *,
    write: Callable[[str], object],
    notify: Callable[[str], object],
    skip: int = 0,
    policy: FollowPolicy | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> str:
    """Copy a job's output until the job is over.

    Args:
        jobs: the cluster.
        job_id: submission id of the job.
        write: takes the output, each character once.
        notify: takes one-line notes about lost and regained connections.
        skip: characters at the start of the output that are not wanted.
        policy: how long to be patient.
        clock: monotonic seconds.
        sleep: waits the given seconds.

    Returns:
        The final status: SUCCEEDED, FAILED or STOPPED.

    Raises:
        ClusterUnreachableError: if the cluster did not answer for ``policy.give_up_s``. The job may still run.
    """
    policy = policy or FollowPolicy()
    printer = _Printer(write, printed=skip)
    lost_at: float | None = None
    while True:
        # A broken stream says nothing yet: the status decides what it means.
        with contextlib.suppress(ClusterUnreachableError):
            await printer.copy(jobs, job_id, policy.poll_s)
        try:
            status = await jobs.status(job_id)
        except ClusterUnreachableError as error:
            if lost_at is None:
                lost_at = clock()
                notify(f"connection lost ({error}); the job goes on, trying to reach it again")
            if clock() - lost_at >= policy.give_up_s:
                raise
        else:
            if lost_at is not None:
                lost_at = None
                notify("connected again")
            if status in TERMINAL_STATES:
                await _print_rest(printer, jobs, job_id, policy.poll_s, notify)
                return status
        await sleep(policy.poll_s)


async def _print_rest(
    printer: _Printer, jobs: JobView, job_id: str, poll_s: float, notify: Callable[[str], object]
) -> None:
    """Print what a stream that broke just before the end of the job did not deliver."""
    try:
        await printer.copy(jobs, job_id, poll_s)
    except ClusterUnreachableError as error:
        notify(f"the last lines of the log are missing ({error})")
