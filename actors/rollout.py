"""Step (A) of the paper's Algorithm 1: act with the real circuit and noise, store transitions with q_i and q_o.

A rollout owns one or more lanes (groups of environments with their own copy of the policy). While one
lane waits for its bits, another steps. Between ``begin`` and ``finish`` of a lane nothing of it changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from actors.environment import EnvironmentGroup
from actors.policy import ActingPolicy, PendingAction
from actors.segments import SegmentBuilder, Step
from learner.config import AgentSpec
from learner.normalisation import ReturnMoments
from learner.parameters import ParameterSource
from replay.interfaces import SegmentWriter
from replay.types import InsertReply, Segment


@dataclass(frozen=True, slots=True)
class EpisodeRecord:
    """One finished training episode."""

    episode_return: float
    episode_length: int


@dataclass(slots=True)
class Lane:
    """Environments that step together, the policy that drives them, and their unfinished segments."""

    environments: EnvironmentGroup
    policy: ActingPolicy
    builders: list[SegmentBuilder]
    episode_return: Float32[np.ndarray, "E"]
    episode_length: np.ndarray
    discounted_return: Float64[np.ndarray, "E"]
    """Of the running episode: G ← r + γ G."""
    previous_sequences: list[int | None]
    """Of each environment: the segment that its next one continues; None at the start of an episode."""
    noise_steps_left: np.ndarray
    """Of each environment, int64: steps for which its exploration noise is still held."""
    noise_share: Float32[np.ndarray, "E 1"]
    """Of each environment: std of its exploration noise over that of the run."""
    noise: np.ndarray | None = None
    """Held exploration noise (E, A), standard normal; None until some was drawn."""
    pending: PendingAction | None = None


class Rollout:
    """Steps lanes of environments and inserts what they experience.

    Args:
        lanes: built by ``make_lanes``.
        spec: environment sizes and action bounds.
        writer: where segments go.
        source: where newer policy parameters come from.
        rng: of exploration; one per actor and incarnation.
        actor_id: who inserts.
        incarnation: how often this actor was started in this run.
        segment_length: steps of one environment per insert.
        noise_std: exploration noise, fraction of the action half-range.
        longest_noise_hold: most steps that one draw of it is held.
        learning_starts: transitions in the replay before the policy replaces uniform random actions.
        discount_factor: γ of the running discounted returns.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        *,
        spec: AgentSpec,
        writer: SegmentWriter,
        source: ParameterSource,
        rng: np.random.Generator,
        actor_id: int,
        incarnation: int,
        segment_length: int,
        noise_std: float,
        longest_noise_hold: int = 1,
        learning_starts: int,
        discount_factor: float,
    ) -> None:
        self.lanes = lanes
        self.rng = rng
        self.sequence = 0
        self.episodes: list[EpisodeRecord] = []
        self.returns = ReturnMoments()
        self.reply: InsertReply = writer.poll()
        self._low = np.array(spec.action_low, np.float32)
        self._high = np.array(spec.action_high, np.float32)
        self._writer = writer
        self._source = source
        self._actor_id = actor_id
        self._incarnation = incarnation
        self._segment_length = segment_length
        self._noise_std = noise_std
        lengths = np.arange(1, longest_noise_hold + 1)
        self._hold_shares = lengths**-2.0 / np.sum(lengths**-2.0)
        self._learning_starts = learning_starts
        self._discount_factor = discount_factor

    def begin(self, lane: Lane) -> None:
        """Take newer parameters if there are any, and hand this lane's circuits to the QPU service."""
        if self.reply.policy_version > lane.policy.version:
            lane.policy.refresh(self._source)
        lane.pending = lane.policy.begin(lane.environments.observation)

    def finish(self, lane: Lane) -> int:
        """Take the bits, step the lane's environments, insert finished segments; returns steps made.

        Raises:
            TimeoutError: if the bits do not come in time.
            InvalidEnvironmentError: if the environment returned NaN or infinity.
        """
        if lane.pending is None:
            self.begin(lane)
        output = lane.policy.finish(lane.pending, explores=True)  # type: ignore[arg-type]
        lane.pending = None
        observation = lane.environments.observation
        action = self._explore(lane, output.action)
        result = lane.environments.step(action)
        finished = result.terminated | result.truncated
        lane.episode_return += result.reward
        lane.episode_length += 1
        lane.discounted_return = result.reward + self._discount_factor * lane.discounted_return
        self.returns = self.returns.after(lane.discounted_return)
        segments: list[Segment] = []
        for row, builder in enumerate(lane.builders):
            discount = 0.0 if result.terminated[row] else 1.0
            builder.append(
                Step(
                    observation[row],
                    action[row],
                    float(result.reward[row]),
                    discount,
                    output.circuit_parameters[row],
                    output.bits[row],
                    lane.policy.version,
                )
            )
            if finished[row] or len(builder) == self._segment_length:
                segments.append(self._cut(lane, row, result.next_observation[row], output.backend_name))
                lane.previous_sequences[row] = None if finished[row] else segments[-1].sequence
        if segments:
            self.reply = self._writer.insert_many(segments)
        self._close_episodes(lane, finished)
        lane.environments.reset_finished(finished)
        return len(lane.environments)

    def step(self, lane: Lane) -> int:
        """``begin`` and ``finish`` in one go, for lockstep."""
        self.begin(lane)
        return self.finish(lane)

    def take_episodes(self) -> list[EpisodeRecord]:
        """Episodes that ended since the last call."""
        episodes, self.episodes = self.episodes, []
        return episodes

    def take_returns(self) -> ReturnMoments:
        """Of the running discounted returns since the last call, of unfinished episodes too; they scale rewards.

        Waiting for an episode's end would leave the rewards of a long one unscaled for all of it.
        """
        returns, self.returns = self.returns, ReturnMoments()
        return returns

    def poll(self) -> InsertReply:
        """Ask the replay again whether inserting is allowed, without inserting."""
        self.reply = self._writer.poll()
        return self.reply

    def close(self) -> None:
        """Close the environments."""
        for lane in self.lanes:
            lane.environments.close()

    def _explore(self, lane: Lane, action: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E A"]:
        """Gaussian noise around a deterministic action; uniform random actions until learning starts."""
        if self.reply.counts.inserted < self._learning_starts:
            return self.rng.uniform(self._low, self._high, action.shape).astype(np.float32)
        if lane.policy.is_stochastic:
            return action
        scale = (self._high - self._low) / 2
        noise = self.rng.standard_normal(action.shape, dtype=np.float32)
        if len(self._hold_shares) > 1:
            noise = self._hold(lane, noise)
        strength = lane.noise_share * (self._noise_std * scale)
        explored: Float32[np.ndarray, "E A"] = np.clip(action + noise * strength, self._low, self._high)
        return explored

    def _hold(self, lane: Lane, fresh: Float32[np.ndarray, "E A"]) -> Float32[np.ndarray, "E A"]:
        """The noise of each environment, which takes a fresh draw when it has been held long enough."""
        if lane.noise is None:
            lane.noise = np.zeros_like(fresh)
        is_due = lane.noise_steps_left == 0
        lane.noise[is_due] = fresh[is_due]
        lengths = self.rng.choice(len(self._hold_shares), len(fresh), p=self._hold_shares) + 1
        lane.noise_steps_left = np.where(is_due, lengths, lane.noise_steps_left) - 1
        return lane.noise

    def _cut(self, lane: Lane, row: int, final_observation: Float32[np.ndarray, "O"], backend_name: str) -> Segment:
        segment = Segment(
            actor_id=self._actor_id,
            incarnation=self._incarnation,
            sequence=self.sequence,
            previous_sequence=lane.previous_sequences[row],
            backend_name=backend_name,
            **lane.builders[row].cut(final_observation),
        )
        self.sequence += 1
        return segment

    def _close_episodes(self, lane: Lane, finished: np.ndarray) -> None:
        for row in np.flatnonzero(finished):
            self.episodes.append(EpisodeRecord(float(lane.episode_return[row]), int(lane.episode_length[row])))
        lane.episode_return[finished] = 0.0
        lane.episode_length[finished] = 0
        lane.discounted_return[finished] = 0.0


def make_lanes(
    env_id: str, policies: Sequence[ActingPolicy], seeds: Sequence[int], *, noise_ratio: float = 1.0
) -> list[Lane]:
    """One lane per policy; the environments (one per seed) are dealt out evenly.

    Args:
        env_id: of Gymnasium.
        policies: one for each lane.
        seeds: one for each environment.
        noise_ratio: largest over smallest std of exploration noise among the environments.
    """
    num_lanes = min(len(policies), len(seeds))
    shares = np.array_split(np.array(seeds), num_lanes)
    exponents = np.linspace(-0.5, 0.5, len(seeds)) if len(seeds) > 1 else np.zeros(1)
    noise_shares = (noise_ratio**exponents).astype(np.float32)
    lanes = []
    for policy, share, noise_share in zip(policies, shares, np.array_split(noise_shares, num_lanes), strict=False):
        count = len(share)
        lanes.append(
            Lane(
                environments=EnvironmentGroup(env_id, [int(seed) for seed in share]),
                policy=policy,
                builders=[SegmentBuilder() for _ in range(count)],
                episode_return=np.zeros(count, np.float32),
                episode_length=np.zeros(count, np.int64),
                discounted_return=np.zeros(count),
                previous_sequences=[None] * count,
                noise_steps_left=np.zeros(count, np.int64),
                noise_share=noise_share[:, np.newaxis],
            )
        )
    return lanes
