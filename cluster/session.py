"""The learner's side of a run, the same for lockstep and cluster: update, publish, test, log, save, stop.

It never steps a training environment and never talks to Ray: those are the loops' part.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import torch

from actors.rollout import EpisodeRecord
from cluster.checkpoint import Checkpoint
from cluster.checkpoint_saver import CheckpointSaver
from cluster.config import RunConfig
from cluster.metrics import MetricsWriter
from cluster.progress import Progress, Status
from cluster.round_log import RoundLog
from cluster.rounds import TestRunner
from cluster.run_directory import RunDirectory
from cluster.seeding import Stream, derive_rng
from cluster.updates import Updates
from learner.normalisation import ReturnMoments
from learner.parameters import VersionedParameters
from learner.policy_weights import describe
from learner.state import learner_state, load_learner_state
from learner.td3 import TD3Learner
from replay.interfaces import TransitionSource
from replay.types import ReplayCounts

ExtraState = tuple[Mapping[str, Mapping[str, torch.Tensor]], Mapping[str, Any]]


class Session:
    """Learner, counters and outputs of one run.

    Args:
        config: the run's configuration.
        run: where it is kept.
        learner: networks and updates.
        source: transitions.
        publish: hands a new version to whoever acts.
        tests: runs test rounds.
        metrics: writes rows.
        progress: tells a person.
        extra_state: what else a checkpoint must hold (a lockstep run's environments and replay).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: RunConfig,
        run: RunDirectory,
        *,
        learner: TD3Learner,
        source: TransitionSource,
        publish: Callable[[VersionedParameters], None],
        tests: TestRunner,
        metrics: MetricsWriter,
        progress: Progress,
        extra_state: Callable[[], ExtraState] = lambda: ({}, {}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self.run, self.learner, self.source = config, run, learner, source
        self.counts = ReplayCounts()
        self.newest: VersionedParameters | None = None
        self.rounds = RoundLog(tests, config.stop_return, metrics, progress)
        self.is_finished = False
        self.newest_values: dict[str, float] = {}
        self._publish, self._metrics, self._progress = publish, metrics, progress
        self._extra_state, self._clock = extra_state, clock
        self._rng = derive_rng(config.seed, Stream.REPLAY_SAMPLING)
        self._updates = Updates(config, learner, source, self._rng)
        self._episodes: deque[EpisodeRecord] = deque(maxlen=100)
        self._new_episodes: list[EpisodeRecord] = []
        self._next_log = config.log_period_steps
        self._next_test = config.evaluation.period_steps
        self._saver = CheckpointSaver(run.checkpoints, config.checkpoint, clock)
        self._started_s = self._last_log_s = clock()
        self._last_log = (0, 0)

    @property
    def env_step(self) -> int:
        """Transitions ever inserted: the clock of the run."""
        return self.counts.inserted

    @property
    def is_done(self) -> bool:
        """Whether enough steps were made, or the return asked for was reached twice in a row; ``finish`` is left."""
        return self.rounds.is_goal_reached or self.env_step >= self.config.total_steps

    def start(self, checkpoint: Checkpoint | None, *, version_floor: int = 0) -> None:
        """Publish the first parameters, or those that a checkpoint holds together with all of its state.

        Args:
            checkpoint: where a resumed run goes on.
            version_floor: newest version that anybody has seen; a dead learner may have published after its
                last checkpoint, and a version never means two things.
        """
        self.counts = self.source.refresh()
        if (weights := describe(self.learner.policy_optimizer)) is not None:
            self._progress.say(weights)
        if checkpoint is not None:
            self._restore(checkpoint)
        if checkpoint is None or version_floor >= self.version:
            self._announce(version_floor + 1)
        self._last_log = (self.env_step, self.learner.update_step)

    def learn(self, max_updates: int) -> int:
        """Make as many updates as the samples-per-insert law allows, at most ``max_updates``."""
        for made in range(max_updates):
            if not self._updates.make_one():
                return made
            if self.learner.update_step % self.config.publish_period_updates == 0:
                self._announce()
        return max_updates

    def add_experience(self, episodes: Sequence[EpisodeRecord], returns: ReturnMoments) -> None:
        """Training episodes that ended, and the running discounted returns of all steps since the last call."""
        self.learner.observe_returns(returns)
        self._episodes.extend(episodes)
        self._new_episodes.extend(episodes)

    def tick(
        self,
        *,
        qpu_ms: float | None = None,
        qpu_note: str = "",
        waiting: str = "",
        values: Mapping[str, float] | None = None,
        longest_gap_s: float = math.inf,
    ) -> None:
        """Refresh the counters, then whatever is due: test round, log row, checkpoint, progress."""
        self.counts = self.source.refresh()
        if self.env_step >= self._next_test:
            self._next_test = _next_multiple(self.env_step, self.config.evaluation.period_steps)
            if not self.is_done:  # else the last round is this one, after the last updates
                self.rounds.request(self._announce())
        self.rounds.collect()
        if self.env_step >= self._next_log or self._clock() - self._last_log_s >= longest_gap_s:
            self._next_log = _next_multiple(self.env_step, self.config.log_period_steps)
            self._write_row(values or {})
        if self._saver.is_due(self.env_step):
            self.save()
        self._progress.update(
            Status(
                env_step=self.env_step,
                total_steps=self.config.total_steps,
                update_step=self.learner.update_step,
                training_return=_mean([episode.episode_return for episode in list(self._episodes)[-10:]]),
                evaluation_return=self.rounds.returns[-1] if self.rounds.returns else None,
                qpu_ms=qpu_ms,
                qpu_note=qpu_note,
                waiting=" | ".join(filter(None, (waiting, self._saver.note))),
            )
        )

    def finish(self) -> bool:
        """Last test round unless one was just made; once none is under way, last row and last checkpoint.

        Returns:
            Whether all of it is made; until then, tick and ask again.
        """
        if not self.rounds.has_tested(self.learner.update_step):
            self.rounds.request(self._announce())
        self.rounds.collect()
        if self.rounds.num_under_way == 0:
            if self._last_log != (self.env_step, self.learner.update_step):
                self._write_row({})
            self.save()
            self.is_finished = True
        return self.is_finished

    def save(self) -> None:
        """Write a checkpoint; a full disk is reported and training goes on."""
        tensors, scalars = learner_state(self.learner)
        extra_tensors, extra_scalars = self._extra_state()
        newest = self.newest or self._announce()
        published = {name: torch.from_numpy(array) for name, array in newest.arrays.items()}
        state = {
            "learner": scalars,
            "env_step": self.env_step,
            "total_steps": self.config.total_steps,
            "sampled": self.counts.sampled,
            "published": {"version": self.version, "env_step": newest.env_step, "update_step": newest.update_step},
            "sampling_rng": self._rng.bit_generator.state,
            "next_log": self._next_log,
            # A round under way is lost with its process, so the next one is due at once.
            "next_test": self.env_step if self.rounds.num_under_way else self._next_test,
            **self.rounds.state(),
            "episodes": [astuple(episode) for episode in self._episodes],
            "new_episodes": [astuple(episode) for episode in self._new_episodes],
            **extra_scalars,
        }
        self._saver.save(self.env_step, {"learner": tensors, "published": published, **extra_tensors}, state)

    def close(self) -> None:
        """Close the files of rows."""
        self._metrics.close()

    def _restore(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.scalars
        load_learner_state(self.learner, checkpoint.tensors["learner"], state["learner"])
        arrays = {name: tensor.numpy() for name, tensor in checkpoint.tensors["published"].items()}
        self._hand_out(VersionedParameters(arrays=arrays, **state["published"]))
        self._rng.bit_generator.state = state["sampling_rng"]
        self._next_log, self._next_test = int(state["next_log"]), int(state["next_test"])
        # Whoever makes a run longer does not want it to end at once.
        self.rounds.restore(state, goal_counts_anew=state["total_steps"] != self.config.total_steps)
        self._episodes.extend(EpisodeRecord(*saved) for saved in state["episodes"])
        self._new_episodes = [EpisodeRecord(*saved) for saved in state["new_episodes"]]
        self._saver.start(int(state["env_step"]))

    @property
    def version(self) -> int:
        """Newest published version of the policy parameters."""
        return 0 if self.newest is None else self.newest.version

    def _announce(self, at_least: int = 1) -> VersionedParameters:
        parameters = VersionedParameters(
            version=max(self.version + 1, at_least),
            arrays=self.learner.policy_parameters(),
            env_step=self.env_step,
            update_step=self.learner.update_step,
        )
        self._hand_out(parameters)
        return parameters

    def _hand_out(self, parameters: VersionedParameters) -> None:
        self.newest = parameters
        self._publish(parameters)

    def _write_row(self, extra: Mapping[str, float]) -> None:
        now = self._clock()
        elapsed = max(now - self._last_log_s, 1e-9)
        values: dict[str, float] = {f"learner/{name}": value for name, value in self.learner.metrics().items()}
        if self._new_episodes:
            values["rollout/episode_return"] = float(np.mean([e.episode_return for e in self._new_episodes]))
            values["rollout/episode_length"] = float(np.mean([e.episode_length for e in self._new_episodes]))
        self._new_episodes = []
        values["replay/size"] = float(len(self.source))
        values["replay/sampled"] = float(self.counts.sampled)
        values["time/elapsed_s"] = now - self._started_s
        values["time/env_steps_per_s"] = (self.env_step - self._last_log[0]) / elapsed
        values["time/updates_per_s"] = (self.learner.update_step - self._last_log[1]) / elapsed
        values.update(self.rounds.row())
        values.update(self._saver.row())
        values.update(extra)
        if extra:
            self.newest_values = dict(values)
        self._metrics.metrics(env_step=self.env_step, update_step=self.learner.update_step, values=values)
        self._last_log, self._last_log_s = (self.env_step, self.learner.update_step), now


def _next_multiple(value: int, period: int) -> int:
    return (value // period + 1) * period


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
