"""What the replay holds: segments of one environment's steps, and batches of transitions sampled from them.

Axis legend: T steps of a segment, B batch, O observation, A action, P circuit parameters, N bits.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int64, UInt8, UInt32

from replay.errors import InvalidSegmentError


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionSpec:
    """Sizes of one transition; two runs with different specs can never share a replay."""

    observation_size: int
    action_size: int
    circuit_parameters_size: int = 0
    """P; 0 where the policy's middle block needs no surrogate."""
    num_bits: int = 0
    """N; 0 where the policy's middle block needs no surrogate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """T consecutive steps of one environment inside one episode; each observation is held once."""

    actor_id: int
    incarnation: int
    """How often this actor was started in this run; with ``sequence`` it makes a retry recognisable."""
    sequence: int
    """0, 1, 2, … of this incarnation, over all its environments."""
    observations: Float32[np.ndarray, "T+1 O"]
    """Row t is the observation before step t; row T the true observation after the last step."""
    actions: Float32[np.ndarray, "T A"]
    rewards: Float32[np.ndarray, "T"]
    discounts: Float32[np.ndarray, "T"]
    """0 where the step terminated the episode, else 1. A truncated episode keeps 1."""
    circuit_parameters: Float32[np.ndarray, "T P"]
    """q_i of the paper."""
    bits: UInt8[np.ndarray, "T N"]
    """q_o of the paper, 0 or 1."""
    policy_versions: UInt32[np.ndarray, "T"]
    """Version of the policy parameters that acted at each step."""
    backend_name: str = ""
    """Backend that measured the bits."""
    previous_sequence: int | None = None
    """The segment of the same actor and incarnation whose last observation is this one's first: the episode goes on
    from there. None where an episode starts, or where that is not known."""

    def __len__(self) -> int:
        """Number of transitions T."""
        return len(self.actions)

    def check(self, spec: TransitionSpec) -> None:
        """Refuse wrong shapes, dtypes and non-finite values before they reach the store.

        Raises:
            InvalidSegmentError: naming the column, what it has and what was expected.
        """
        steps = len(self.actions)
        expected: dict[str, tuple[tuple[int, ...], type]] = {
            "observations": ((steps + 1, spec.observation_size), np.float32),
            "actions": ((steps, spec.action_size), np.float32),
            "rewards": ((steps,), np.float32),
            "discounts": ((steps,), np.float32),
            "circuit_parameters": ((steps, spec.circuit_parameters_size), np.float32),
            "bits": ((steps, spec.num_bits), np.uint8),
            "policy_versions": ((steps,), np.uint32),
        }
        if steps < 1:
            raise InvalidSegmentError("a segment needs at least one step, got 0")
        for name, (shape, dtype) in expected.items():
            column: np.ndarray = getattr(self, name)
            who = f"{name} of actor {self.actor_id}"
            if column.shape != shape or column.dtype != dtype:
                raise InvalidSegmentError(
                    f"{who} must be {np.dtype(dtype)} {shape}, got {column.dtype} {column.shape}; "
                    "was the run started with another environment?"
                )
            if column.dtype == np.float32 and not np.isfinite(column).all():
                step = int(np.argwhere(~np.isfinite(column))[0][0])
                raise InvalidSegmentError(f"{who} is not finite at step {step}; the environment or the policy diverged")
        if self.previous_sequence is not None and not 0 <= self.previous_sequence < self.sequence:
            raise InvalidSegmentError(
                f"previous_sequence of actor {self.actor_id} must be within 0..{self.sequence - 1}, got "
                f"{self.previous_sequence}; a segment continues an earlier one"
            )
        if self.bits.max(initial=0) > 1:
            raise InvalidSegmentError(f"bits of actor {self.actor_id} must be 0 or 1, got {self.bits.max()}")

    def check_length(self, capacity: int) -> None:
        """Refuse a segment that alone is longer than the replay.

        Raises:
            InvalidSegmentError: with both numbers.
        """
        if len(self) > capacity:
            raise InvalidSegmentError(
                f"a segment of {len(self)} transitions does not fit a replay of {capacity}; "
                "raise the capacity or send shorter segments"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionBatch:
    """B transitions as a struct of arrays, ready for the learner."""

    observation: Float32[np.ndarray, "B O"]
    action: Float32[np.ndarray, "B A"]
    reward: Float32[np.ndarray, "B"]
    """Of one step, or the discounted sum over several (``SampleRule.n_step``)."""
    discount: Float32[np.ndarray, "B"]
    """The learner multiplies it by γ and by the value of ``next_observation``. With one-step returns 0 where the step
    terminated, else 1; where m steps are summed γᵐ⁻¹, or 0 where one of them terminated."""
    next_observation: Float32[np.ndarray, "B O"]
    """The true observation after the last step that ``reward`` counts, also where the episode was truncated there."""
    circuit_parameters: Float32[np.ndarray, "B P"]
    bits: Float32[np.ndarray, "B N"]
    policy_versions: UInt32[np.ndarray, "B"] = field(default_factory=lambda: np.empty(0, np.uint32))
    """Version of the policy that acted."""
    indices: Int64[np.ndarray, "B"] = field(default_factory=lambda: np.empty(0, np.int64))
    """Number of each transition in order of arrival; what ``update_priorities`` and ``origins`` of the replay that gave
    the batch understand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who made a transition."""

    actor_id: int
    backend_name: str
    policy_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayCounts:
    """Lifetime counters of a run's replay."""

    inserted: int = 0
    """Transitions ever inserted."""
    sampled: int = 0
    """Transitions ever sampled by the learner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertReply:
    """What a writer learns from one insert."""

    is_new: bool
    """False where the same (actor, incarnation, sequence) was already stored: a retry changed nothing."""
    counts: ReplayCounts
    can_insert: bool
    """Whether the rate limiter lets this writer go on now."""
    policy_version: int
    """Newest published version of the policy parameters."""
