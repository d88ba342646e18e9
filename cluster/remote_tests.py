"""Test rounds in a Ray actor of their own, so that the learner never waits for them."""

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import ActorError
from cluster.config import RunConfig
from cluster.errors import RunFailedError
from cluster.local_tests import run_test_round
from cluster.ray_runtime import has_process
from cluster.rounds import TestRound
from learner.config import AgentSpec
from learner.parameters import VersionedParameters
from qpu_service.errors import BudgetExceededError
from qpu_service.interfaces import CircuitSampler

_log = logging.getLogger(__name__)
_MAX_FAILURES = 5
"""Failures in a row, without one round between them, after which the run ends with the cause."""
_BACKOFF_S = 0.5
_LOOK_PERIOD_S = 5.0
_LONGEST_QUEUE_S = 600.0
"""Rounds wait for about this much testing at most: a run's end waits for them, and a slow device is paid for them."""
_LOOKING = "looking"
"""Threads for calls about the worker; its rounds keep to one of their own and come one after another."""
TEST_WORKER_THREADS = {_LOOKING: 1}


class TestWorker:
    """Runs rounds; becomes a Ray actor with ``TEST_WORKER_THREADS`` as its concurrency groups.

    Args:
        config: the run's configuration.
        spec: environment sizes and action bounds.
        sampler: the QPU service; None for blocks without a circuit.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: RunConfig,
        spec: AgentSpec,
        sampler: CircuitSampler | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        torch.set_num_threads(1)
        self._config, self._spec, self._sampler, self._clock = config, spec, sampler, clock
        self._stepped_s: float | None = None

    def run(self, parameters: VersionedParameters) -> TestRound:
        """One round with these parameters."""
        torch.set_num_threads(1)  # which counts for the thread that says it
        self._step()
        try:
            return run_test_round(self._config, self._spec, self._sampler, parameters, on_step=self._step)
        finally:
            self._stepped_s = None

    def idle_s(self) -> float:
        """How long the step under way has lasted; 0 where no round is under way."""
        stepped_s = self._stepped_s
        return 0.0 if stepped_s is None else self._clock() - stepped_s

    def process_id(self) -> int:
        """For tests that kill it."""
        return os.getpid()

    def _step(self) -> None:
        self._stepped_s = self._clock()


class RemoteTests:
    """TestRunner over a TestWorker actor; a round that fails, hangs, or whose worker dies, is run again.

    One round is under way at a time. Every round is run where tests keep up with training; where they don't, the oldest
    of those that wait are left out, never the newest.

    Args:
        start: makes the actor and returns its handle.
        deadline_s: a step that lasts longer means a wedged environment or backend.
        has_process: whether Ray has a process for an actor; one that waits for a machine does not hang.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        start: Callable[[], Any],
        *,
        deadline_s: float = 300.0,
        has_process: Callable[[Any], bool] = has_process,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start, self._deadline_s, self._has_process, self._clock = start, deadline_s, has_process, clock
        self._handle: Any = None
        self._failures = 0
        self._start_at_s = 0.0
        self._rounds: list[VersionedParameters] = []
        """The one under way, then those that wait."""
        self._call: Any = None
        """Of the round under way; None until a worker has it."""
        self._begun_s = self._last_round_s = 0.0
        self._question: tuple[Any, float] | None = None
        self._next_look_s = 0.0

    def request(self, parameters: VersionedParameters) -> Sequence[VersionedParameters]:
        """See TestRunner."""
        if not self._rounds:
            self._begun_s = self._clock()
        self._rounds.append(parameters)
        self._start_when_due()
        # A round under way takes as long as it has taken already, if that is more than the last one took.
        round_s = max(self._last_round_s, self._clock() - self._begun_s, 1e-9)
        num_kept = max(1, int(_LONGEST_QUEUE_S / round_s))
        left_out = self._rounds[1:-num_kept]
        del self._rounds[1:-num_kept]
        return left_out

    def collect(self) -> list[TestRound]:
        """Finished rounds, in the order in which they were asked for.

        Raises:
            ActorError: if an environment is at fault.
            BudgetExceededError: if the QPU budget is used up.
            RunFailedError: if the worker dies or hangs, or its rounds fail, again and again.
        """
        rounds = []
        while self._rounds:
            self._start_when_due()
            self._look_for_a_wedge()
            if self._call is None or not ray.wait([self._call], timeout=0)[0]:
                break
            try:
                rounds.append(ray.get(self._call))
            except RayActorError as error:
                self._start_again(error)
                continue
            except RayTaskError as error:
                if isinstance(error.cause, ActorError | BudgetExceededError):
                    raise error.cause from error
                self._start_again(error.cause)
                continue
            now_s = self._clock()
            self._last_round_s, self._begun_s = now_s - self._begun_s, now_s
            self._rounds.pop(0)
            self._call, self._failures = None, 0
        return rounds

    def stop(self) -> None:
        """End the process."""
        if self._handle is not None:
            ray.kill(self._handle)

    def _start_when_due(self) -> None:
        """Start the worker if there is none, and hand it the next round if it has none."""
        if self._handle is None:
            if self._clock() < self._start_at_s:
                return
            self._handle = self._start()
            self._question, self._next_look_s = None, self._clock() + _LOOK_PERIOD_S
        if self._rounds and self._call is None:
            self._call = self._handle.run.remote(self._rounds[0])

    def _look_for_a_wedge(self) -> None:
        now_s = self._clock()
        if self._handle is None or now_s < self._next_look_s:
            return
        self._next_look_s = now_s + _LOOK_PERIOD_S
        if self._question is None:
            question = self._handle.idle_s.options(concurrency_group=_LOOKING).remote()
            self._question = (question, now_s)
            return
        call, asked_s = self._question
        idle_s = now_s - asked_s
        if ray.wait([call], timeout=0)[0]:
            self._question = None
            try:
                idle_s = ray.get(call)
            except (RayActorError, RayTaskError):
                return  # its rounds end the same way
        elif not self._has_process(self._handle):
            self._question = (call, now_s)
            return
        if idle_s > self._deadline_s:
            self._start_again(f"no step for {idle_s:.0f} s; an environment or a backend hangs")

    def _start_again(self, cause: object) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise RunFailedError(
                f"the evaluator failed {self._failures} times in a row, the last time with: {cause}. "
                "Mend the cause and go on with `hdqnn resume`"
            ) from (cause if isinstance(cause, BaseException) else None)
        reason = str(cause).strip().split("\n")[-1]
        _log.warning("the evaluator failed (%s); running its round again", reason)
        ray.kill(self._handle)
        self._handle = self._call = None
        if self._failures > 1:
            self._start_at_s = self._clock() + _BACKOFF_S * 2 ** (self._failures - 2)
        self._start_when_due()
