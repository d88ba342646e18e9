"""A team over Ray: every agent in a process of its own, all at work at once; one that dies is left out and replaced."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from actors.errors import ActorError
from actors.on_policy_agent import RolloutReport
from cluster.errors import RunFailedError
from cluster.quantum_train.build import make_agent
from cluster.quantum_train.config import QuantumTrainRunConfig
from cluster.ray_runtime import has_process
from learner.errors import LearnerError
from learner.quantum_train.optimiser import TrainingState
from qpu_service.errors import QPUError

_log = logging.getLogger(__name__)
_MAX_FAILURES = 5
"""Failures of one agent in a row after which the run ends with the cause."""
_OURS = (ActorError, LearnerError, QPUError)


class AgentProcess:
    """An agent and its QPU, made inside the process that Ray gives it."""

    def __init__(self, config: QuantumTrainRunConfig, agent_id: int) -> None:
        torch.set_num_threads(1)
        self._agent = make_agent(config, agent_id)

    def begin(self, vector: np.ndarray, seed: int) -> tuple[RolloutReport, np.ndarray]:
        """See OnPolicyAgent."""
        return self._agent.begin(vector, seed)

    def gradient(self, vector: np.ndarray) -> np.ndarray:
        """See OnPolicyAgent."""
        return self._agent.gradient(vector)

    def train(self, state: TrainingState, seed: int) -> tuple[RolloutReport, TrainingState]:
        """See OnPolicyAgent."""
        return self._agent.train(state, seed)

    def process_id(self) -> int:
        """For tests that kill this process."""
        import os

        return os.getpid()


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A round that an agent was asked for before its turn."""

    seed: int
    report: Any
    """Reference to a RolloutReport."""
    state: Any
    """Reference to the TrainingState that it leaves."""


class RayTeam:
    """Satisfies Team.

    Args:
        config: the run's configuration.
        options: Ray options of an agent's process.
        has_process: whether Ray has a process for an agent.
    """

    def __init__(
        self,
        config: QuantumTrainRunConfig,
        options: dict[str, Any],
        has_process: Callable[[Any], bool] = has_process,
    ) -> None:
        self.num_restarts = 0
        self._config, self._options, self._has_process = config, options, has_process
        self._handles = {agent_id: self._start(agent_id) for agent_id in range(config.num_agents)}
        self._failures = dict.fromkeys(self._handles, 0)
        self._ahead: dict[int, deque[_Ahead]] = {}
        self._newest: dict[int, TrainingState] = {}

    def begin(self, vector: np.ndarray, seeds: Mapping[int, int]) -> dict[int, tuple[RolloutReport, np.ndarray]]:
        """See Team."""
        shared = ray.put(vector)
        return self._ask(lambda agent_id, handle: handle.begin.remote(shared, seeds[agent_id]), list(seeds))

    def gradients(self, vector: np.ndarray, agents: list[int]) -> dict[int, np.ndarray]:
        """See Team."""
        shared = ray.put(vector)
        return self._ask(lambda _, handle: handle.gradient.remote(shared), agents)

    def train(
        self,
        states: Mapping[int, TrainingState],
        seeds: Mapping[int, int],
        following: Sequence[Mapping[int, int]] = (),
    ) -> dict[int, tuple[RolloutReport, TrainingState]]:
        """See Team.

        The following rounds are asked for at once, each going on from the state that the one before it leaves, so that
        an agent never waits for a slower one until the states are mixed. What is under way then for a state that was
        mixed after all, or of a run that ends, is thrown away.
        """

        def call(agent_id: int, handle: Any) -> tuple[Any, Any]:
            state, seed = states[agent_id], seeds[agent_id]
            ahead = self._ahead.setdefault(agent_id, deque())
            if not (ahead and ahead[0].seed == seed and state is self._newest.get(agent_id)):
                ahead.clear()
                source: Any = state
                for number in (seed, *(later[agent_id] for later in following)):
                    report, source = handle.train.options(num_returns=2).remote(source, number)
                    ahead.append(_Ahead(number, report, source))
            started = ahead.popleft()
            return started.report, started.state

        answers = self._ask(call, list(states))
        self._newest |= {agent_id: state for agent_id, (_, state) in answers.items()}
        return answers

    def process_ids(self) -> dict[int, int]:
        """Process of every agent (for tests that kill them)."""
        return {agent_id: int(ray.get(handle.process_id.remote())) for agent_id, handle in self._handles.items()}

    def close(self) -> None:
        """See Team."""
        for handle in self._handles.values():
            ray.kill(handle)
        self._handles = {}

    def _start(self, agent_id: int) -> Any:
        return ray.remote(AgentProcess).options(**self._options).remote(self._config, agent_id)

    def _ask(self, call: Callable[[int, Any], Any], agents: list[int]) -> dict[int, Any]:
        """Answers of the agents that gave one before the deadline; the others are replaced.

        Raises:
            ActorError, LearnerError, QPUError: what every agent would run into.
            RunFailedError: if an agent fails again and again.
        """
        calls = {agent_id: call(agent_id, self._handles[agent_id]) for agent_id in agents}
        deadline_s = time.monotonic() + self._config.agent_timeout_s
        answers = {}
        for agent_id, references in calls.items():
            try:
                # One reference, or one for each part of an answer.
                asked = list(references) if isinstance(references, tuple) else references
                answers[agent_id] = ray.get(asked, timeout=max(0.0, deadline_s - time.monotonic()))
                self._failures[agent_id] = 0
            except RayTaskError as error:
                if isinstance(error.cause, _OURS):
                    raise error.cause from error
                self._replace(agent_id, str(error.cause))
            except RayActorError as error:
                self._replace(agent_id, str(error))
            except TimeoutError:
                if self._has_process(self._handles[agent_id]):
                    self._replace(agent_id, f"no answer for {self._config.agent_timeout_s:.0f} s")
                else:
                    _log.warning("agent %d waits for a machine; the round goes on without it", agent_id)
                    # What it was asked is of no use to a later round.
                    self._start_again(agent_id)
        return answers

    def _replace(self, agent_id: int, cause: str) -> None:
        self._failures[agent_id] += 1
        self.num_restarts += 1
        reason = cause.strip().split("\n")[-1]
        if self._failures[agent_id] >= _MAX_FAILURES:
            raise RunFailedError(
                f"agent {agent_id} failed {self._failures[agent_id]} times in a row, the last time with: {reason}. "
                "Mend the cause and go on with `hdqnn resume`"
            )
        _log.warning("agent %d failed (%s); the round goes on without it, a new one takes its place", agent_id, reason)
        self._start_again(agent_id)

    def _start_again(self, agent_id: int) -> None:
        ray.kill(self._handles[agent_id])
        self._ahead.pop(agent_id, None)
        self._handles[agent_id] = self._start(agent_id)
