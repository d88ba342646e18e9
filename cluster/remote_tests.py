"""Test rounds in a Ray actor of their own, so that the learner never waits for them."""

import logging
import os
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import ActorError
from cluster.config import RunConfig
from cluster.errors import RunFailedError
from cluster.local_tests import run_test_round
from cluster.rounds import TestRound
from learner.config import AgentSpec
from learner.parameters import VersionedParameters
from qpu_service.errors import BudgetExceededError
from qpu_service.interfaces import CircuitSampler

_log = logging.getLogger(__name__)
_MAX_FAILURES = 5


class TestWorker:
    """Runs rounds; becomes a Ray actor."""

    def __init__(self, config: RunConfig, spec: AgentSpec, sampler: CircuitSampler | None) -> None:
        torch.set_num_threads(1)
        self._config, self._spec, self._sampler = config, spec, sampler

    def run(self, parameters: VersionedParameters) -> TestRound:
        """One round with these parameters."""
        return run_test_round(self._config, self._spec, self._sampler, parameters)

    def process_id(self) -> int:
        """For tests that kill it."""
        return os.getpid()


class RemoteTests:
    """TestRunner over a TestWorker actor; a round that fails, or whose worker dies, is run again.

    Args:
        start: makes the actor and returns its handle.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        self._start = start
        self._handle: Any = None
        self._failures = 0
        self._under_way: list[tuple[VersionedParameters, Any]] = []

    def request(self, parameters: VersionedParameters) -> None:
        """Queue a round."""
        if self._handle is None:
            self._handle = self._start()
        self._under_way.append((parameters, self._handle.run.remote(parameters)))

    def collect(self, *, wait: bool = False) -> list[TestRound]:
        """Finished rounds, in the order in which they were asked for.

        Raises:
            ActorError: if an environment is at fault.
            BudgetExceededError: if the QPU budget is used up.
            RunFailedError: if the worker dies, or its rounds fail, again and again.
        """
        rounds = []
        while self._under_way:
            call = self._under_way[0][1]
            if not wait and not ray.wait([call], timeout=0)[0]:
                break
            try:
                rounds.append(ray.get(call))
            except RayActorError as error:
                self._start_again(error)
                continue
            except RayTaskError as error:
                if isinstance(error.cause, ActorError | BudgetExceededError):
                    raise error.cause from error
                self._start_again(error.cause)
                continue
            self._under_way.pop(0)
            self._failures = 0
        return rounds

    def stop(self) -> None:
        """End the process."""
        if self._handle is not None:
            ray.kill(self._handle)

    def _start_again(self, error: Exception) -> None:
        self._failures += 1
        if self._failures >= _MAX_FAILURES:
            raise RunFailedError(
                f"the evaluator failed {self._failures} times in a row, the last time with: {error}. "
                "Mend the cause and go on with `hdqnn resume`"
            ) from error
        reason = str(error).strip().split("\n")[-1]
        _log.warning("the evaluator failed (%s); running %d round(s) again", reason, len(self._under_way))
        ray.kill(self._handle)
        self._handle = self._start()
        self._under_way = [(parameters, self._handle.run.remote(parameters)) for parameters, _ in self._under_way]
