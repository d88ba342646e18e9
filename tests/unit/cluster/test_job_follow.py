import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from cluster.errors import ClusterUnreachableError
from cluster.job_follow import FollowPolicy, follow

FAST = FollowPolicy(poll_s=0.01, give_up_s=100.0)
LOST = ClusterUnreachableError("no way")


class FakeJobs:
    """One job, told as a script: each log stream is a list of chunks, errors and silences; each status an answer."""

    def __init__(
        self, *, streams: Sequence[Sequence[str | Exception | None]], statuses: Sequence[str | Exception]
    ) -> None:
        self.streams, self.statuses = list(streams), list(statuses)
        self.streams_opened = 0

    async def status(self, job_id: str) -> str:
        assert job_id == "job-1"
        answer = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def log(self, job_id: str) -> AsyncIterator[str]:
        assert job_id == "job-1"
        script = self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]
        self.streams_opened += 1
        for item in script:
            if isinstance(item, Exception):
                raise item
            if item is None:
                await asyncio.sleep(3600)
            else:
                yield item


def run(jobs: FakeJobs, policy: FollowPolicy = FAST, **settings) -> tuple[str, str, list[str]]:
    printed: list[str] = []
    notes: list[str] = []
    status = asyncio.run(
        asyncio.wait_for(
            follow(jobs, "job-1", write=printed.append, notify=notes.append, policy=policy, **settings), 10
        )
    )
    return status, "".join(printed), notes


@pytest.mark.parametrize("final", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_output_is_printed_once_and_the_final_status_returned(final):
    jobs = FakeJobs(streams=[["a\n", "b\n"]], statuses=[final])
    assert run(jobs) == (final, "a\nb\n", [])


def test_stream_that_ends_while_the_job_runs_is_opened_again_and_nothing_is_printed_twice():
    jobs = FakeJobs(
        streams=[["a\n", "b\n"], ["a\n", "b\nc\n"], ["a\nb\nc\nd", "\n"]], statuses=["RUNNING", "RUNNING", "SUCCEEDED"]
    )
    assert run(jobs) == ("SUCCEEDED", "a\nb\nc\nd\n", [])


def test_stream_that_breaks_at_the_end_of_the_job_does_not_lose_the_last_lines():
    jobs = FakeJobs(streams=[["a\n", LOST], ["a\n", "last\n"]], statuses=["FAILED"])
    assert run(jobs) == ("FAILED", "a\nlast\n", [])


def test_stream_that_stays_open_after_the_end_does_not_hang():
    jobs = FakeJobs(streams=[["a\n", None]], statuses=["RUNNING", "RUNNING", "SUCCEEDED"])
    assert run(jobs) == ("SUCCEEDED", "a\n", [])


def test_lost_cluster_that_comes_back_is_noted_once_and_the_job_followed_on():
    jobs = FakeJobs(streams=[["a\n", LOST], [LOST], [LOST], ["a\n", "b\n"]], statuses=[LOST, LOST, LOST, "SUCCEEDED"])
    status, printed, notes = run(jobs)
    assert (status, printed) == ("SUCCEEDED", "a\nb\n")
    assert len(notes) == 2
    assert "the job goes on" in notes[0]
    assert notes[1] == "connected again"


def test_cluster_that_stays_away_is_given_up_after_the_limit_only():
    now = 5_000.0  # A run that was followed for long before it was lost gets the whole limit.

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += 10.0

    jobs = FakeJobs(streams=[[LOST]], statuses=["RUNNING", "RUNNING", LOST])
    with pytest.raises(ClusterUnreachableError, match="no way"):
        run(jobs, FollowPolicy(poll_s=0.01, give_up_s=100.0), clock=lambda: now, sleep=sleep)
    assert now == 5_000.0 + 2 * 10.0 + 100.0


def test_skip_leaves_out_what_was_printed_before():
    jobs = FakeJobs(streams=[["a\nb", "\nc\n"]], statuses=["SUCCEEDED"])
    assert run(jobs, skip=4)[1] == "c\n"


def test_log_that_cannot_be_read_to_its_end_is_said():
    jobs = FakeJobs(streams=[["a\n", LOST]], statuses=["SUCCEEDED"])
    status, printed, notes = run(jobs)
    assert (status, printed) == ("SUCCEEDED", "a\n")
    assert "last lines of the log are missing" in notes[0]


def test_negative_patience_is_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        FollowPolicy(poll_s=-1.0)
