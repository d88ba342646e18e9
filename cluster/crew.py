"""Keeps the rollout actors of a run working: one call under way and one queued each, dead ones replaced.

A new actor process registers with the replay as the next incarnation of its number, so nothing that the
dead one had acknowledged is stored twice and nothing that it had not is waited for.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import ActorError
from cluster.errors import RunFailedError
from cluster.ray_runtime import has_process
from cluster.rollout_worker import ActorReport
from qpu_service.errors import BudgetExceededError

_log = logging.getLogger(__name__)
_BUDGET_S = 0.5
"""Length of one call; two are under way, so an actor never waits for its next order."""
_CALLS_UNDER_WAY = 2
_MAX_FAILURES = 5
"""Failures in a row, without one report between them, after which the run ends with the cause."""
_BACKOFF_S = 0.5
_LOOK_PERIOD_S = 5.0
_STARTING_S = 30.0
"""A process that is not there after this time is told to wait for a machine."""
_STOP_S = 10.0
"""Longest time for the calls under way of all actors when they stop."""


@dataclass(slots=True)
class _Member:
    actor_id: int
    handle: Any = None
    calls: list[Any] = field(default_factory=list)
    heard_s: float = 0.0
    failures: int = 0
    start_at_s: float = 0.0
    started_s: float = 0.0
    is_placed: bool = False
    next_look_s: float = 0.0


class Crew:
    """The rollout actors.

    Args:
        start: makes the actor process with this number and returns its handle.
        num_actors: how many there are.
        deadline_s: an actor that answers nothing for this long is wedged and replaced; while it waits for a machine
            it is not.
        has_process: whether Ray has a process for an actor.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        start: Callable[[int], Any],
        num_actors: int,
        *,
        deadline_s: float = 300.0,
        has_process: Callable[[Any], bool] = has_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start = start
        self._deadline_s = deadline_s
        self._has_process = has_process
        self._clock = clock
        self._members = [_Member(actor_id) for actor_id in range(num_actors)]
        self.num_restarts = 0

    def poll(self) -> list[ActorReport]:
        """Reports that came in since the last call; starts, restarts and orders whatever is due.

        Raises:
            ActorError: if an environment or a policy is at fault.
            BudgetExceededError: if the QPU budget is used up.
            RunFailedError: if an actor fails again and again.
        """
        reports = []
        for member in self._members:
            if member.handle is None:
                self._start_when_due(member)
                continue
            self._look_for_process(member)
            reports += self._take_reports(member)
            if member.handle is not None and self._clock() - member.heard_s > self._deadline_s:
                self._replace(member, f"no report for {self._deadline_s:.0f} s")
        return reports

    @property
    def waiting(self) -> str:
        """How many actors have no machine, in words; empty where all have one."""
        latest_s = self._clock() - _STARTING_S
        missing = [one for one in self._members if one.handle is not None and not one.is_placed]
        num_missing = sum(member.started_s < latest_s for member in missing)
        return f"{num_missing} of {len(self._members)} actors wait for a machine" if num_missing else ""

    def stop(self) -> list[ActorReport]:
        """Let calls under way end, for some seconds in all, then end the processes; returns the last reports.

        Again does nothing.
        """
        reports = []
        deadline_s = self._clock() + _STOP_S
        for member in self._members:
            calls = member.calls
            if calls and not member.is_placed:
                # It may have no machine: only what is there already is taken.
                calls, _ = ray.wait(calls, num_returns=len(calls), timeout=0)
            for call in calls:
                try:
                    reports.append(ray.get(call, timeout=max(0.0, deadline_s - self._clock())))
                except Exception as error:
                    _log.warning("actor %d did not end cleanly: %s", member.actor_id, _last_line(error))
                    break
            if member.handle is not None:
                ray.kill(member.handle)
            member.handle = None
            member.calls.clear()
        return reports

    def process_ids(self) -> list[int]:
        """Process ids of the actors that run now (for tests that kill them)."""
        handles = [member.handle for member in self._members if member.handle is not None]
        return [int(ray.get(handle.process_id.remote())) for handle in handles]

    def _take_reports(self, member: _Member) -> list[ActorReport]:
        reports = []
        finished, _ = ray.wait(member.calls, num_returns=len(member.calls), timeout=0)
        for call in member.calls[: len(finished)]:
            try:
                reports.append(ray.get(call))
            except RayTaskError as error:
                if isinstance(error.cause, ActorError | BudgetExceededError):
                    # The call behind this one ends the same way; nobody needs to hear it again.
                    member.calls.clear()
                    raise error.cause from error
                self._replace(member, str(error.cause))
                return reports
            except RayActorError as error:
                self._replace(member, str(error))
                return reports
            member.calls.remove(call)
            member.heard_s, member.is_placed = self._clock(), True
            member.failures = 0
            self._order(member)
        return reports

    def _start_when_due(self, member: _Member) -> None:
        now_s = self._clock()
        if now_s < member.start_at_s:
            return
        member.handle = self._start(member.actor_id)
        member.heard_s = member.started_s = now_s
        member.is_placed, member.next_look_s = False, now_s + _LOOK_PERIOD_S
        for _ in range(_CALLS_UNDER_WAY):
            self._order(member)

    def _look_for_process(self, member: _Member) -> None:
        """Time without a machine is no silence."""
        now_s = self._clock()
        if member.is_placed or now_s < member.next_look_s:
            return
        member.next_look_s = now_s + _LOOK_PERIOD_S
        member.is_placed = self._has_process(member.handle)
        if not member.is_placed:
            member.heard_s = now_s

    def _order(self, member: _Member) -> None:
        member.calls.append(member.handle.advance.remote(_BUDGET_S))

    def _replace(self, member: _Member, cause: str) -> None:
        ray.kill(member.handle)
        member.handle = None
        member.calls.clear()
        member.failures += 1
        self.num_restarts += 1
        if member.failures >= _MAX_FAILURES:
            raise RunFailedError(
                f"actor {member.actor_id} failed {member.failures} times in a row, the last time with: {cause}. "
                "Nothing acknowledged is lost; mend the cause and go on with `hdqnn resume`"
            )
        member.start_at_s = self._clock() + _BACKOFF_S * 2 ** (member.failures - 1)
        _log.warning("actor %d failed (%s); starting it again", member.actor_id, _last_line(cause))


def _last_line(cause: object) -> str:
    """What went wrong, without the traceback before it."""
    return str(cause).strip().split("\n")[-1]
