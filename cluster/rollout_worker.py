"""One actor process: lanes of environments, the policy, a connection to the replay. Plain class; Ray wraps it."""

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from actors.rollout import EpisodeRecord, Rollout, make_lanes
from cluster.build import make_policy
from cluster.build_replay import make_limiter, transition_spec
from cluster.config import RunConfig
from cluster.seeding import Stream, derive_rng, derive_seed
from learner.config import AgentSpec
from learner.normalisation import ReturnMoments
from learner.parameters import ParameterSource
from qpu_service.interfaces import CircuitSampler
from replay.confirmed_writer import ConfirmedWriter
from replay.deferred_writer import DeferredWriter
from replay.opening import open_writer
from replay.server_urls import server_urls

_NUM_LANES = 2
"""One lane steps while the other waits for its bits."""
_WAIT_S = 0.005
"""Pause of an actor that ran ahead of the learner before it asks again."""


@dataclass(frozen=True, slots=True)
class ReplayAddress:
    """How an actor reaches the replay of its run."""

    url: str
    """Of its server, or of several as in ``REDIS_URL``."""
    run_id: str


@dataclass(frozen=True, slots=True)
class ActorReport:
    """What an actor did during one call."""

    actor_id: int
    incarnation: int
    num_steps: int
    episodes: Sequence[EpisodeRecord]
    returns: ReturnMoments
    """Of the running discounted returns of its steps."""
    busy_s: float
    """Stepping, acting and inserting."""
    blocked_s: float
    """Waiting for the learner, as the samples-per-insert law demands."""


class RolloutWorker:
    """Steps its environments whenever it is called, for as long as it is told.

    Args:
        config: the run's configuration.
        spec: environment sizes and action bounds.
        actor_id: 0, 1, …; every (actor, incarnation) has its own random streams.
        address: the replay.
        sampler: the QPU service; None for blocks without a circuit.
        source: policy parameters.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: RunConfig,
        spec: AgentSpec,
        *,
        actor_id: int,
        address: ReplayAddress,
        sampler: CircuitSampler | None,
        source: ParameterSource,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        torch.set_num_threads(1)
        self._clock = clock
        self._actor_id = actor_id
        num_servers = len(server_urls(address.url))
        writer, limiter = open_writer(
            address.url,
            actor_id,
            address.run_id,
            transition_spec(config, spec),
            make_limiter(config, num_servers),
            config.replay.capacity,
            capacity_bytes=config.replay.capacity_bytes,
        )
        self._incarnation = writer.register_actor(actor_id)
        self._writer: DeferredWriter | ConfirmedWriter = (
            ConfirmedWriter(writer) if config.replay.durability == "waitaof" else DeferredWriter(writer, limiter)
        )
        identity = (actor_id, self._incarnation)
        num_envs = config.actors.envs_per_actor
        policies = [
            make_policy(config, spec, sampler, Stream.ACTING_CIRCUITS, *identity, lane)
            for lane in range(min(_NUM_LANES, num_envs))
        ]
        seeds = [derive_seed(config.seed, Stream.ENVIRONMENT, *identity, i) for i in range(num_envs)]
        self._rollout = Rollout(
            make_lanes(config.env_id, policies, seeds, noise_ratio=config.actors.exploration_noise_ratio),
            spec=spec,
            writer=self._writer,
            source=source,
            rng=derive_rng(config.seed, Stream.EXPLORATION, *identity),
            actor_id=actor_id,
            incarnation=self._incarnation,
            segment_length=config.actors.segment_length,
            noise_std=config.actors.exploration_noise_std,
            longest_noise_hold=config.actors.longest_noise_hold,
            learning_starts=_random_steps(config, actor_id % num_servers, num_servers),
            discount_factor=config.td3.discount_factor,
        )
        for lane in self._rollout.lanes:
            self._rollout.begin(lane)

    def advance(self, budget_s: float) -> ActorReport:
        """Step for about ``budget_s`` seconds.

        Raises:
            ReplayError: if a segment could not be stored in time.
            QPUError: if the QPU service failed for good.
            InvalidEnvironmentError: if the environment returned NaN or infinity.
        """
        started_s = self._clock()
        blocked_s, num_steps = 0.0, 0
        while self._clock() - started_s < budget_s:
            if not self._rollout.reply.can_insert:
                before_s = self._clock()
                time.sleep(_WAIT_S)
                self._rollout.poll()
                blocked_s += self._clock() - before_s
                continue
            for lane in self._rollout.lanes:
                num_steps += self._rollout.finish(lane)
                self._rollout.begin(lane)
        self._writer.flush()
        return ActorReport(
            actor_id=self._actor_id,
            incarnation=self._incarnation,
            num_steps=num_steps,
            episodes=self._rollout.take_episodes(),
            returns=self._rollout.take_returns(),
            busy_s=self._clock() - started_s - blocked_s,
            blocked_s=blocked_s,
        )

    def process_id(self) -> int:
        """For tests that kill it."""
        return os.getpid()

    def close(self) -> None:
        """Close environments and the connection."""
        self._rollout.close()
        self._writer.close()


def _random_steps(config: RunConfig, server: int, num_servers: int) -> int:
    """Transitions on this server before the policy acts: its actors' part, as an actor hears of no other server."""
    num_actors = len(range(server, config.actors.num_actors, num_servers))
    return math.ceil(config.td3.learning_starts * num_actors / config.actors.num_actors)
