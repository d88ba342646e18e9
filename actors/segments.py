"""Cuts the steps of one environment into segments that never cross an episode.

Axis legend: T steps, O observation, A action, P circuit parameters, N bits.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

_COLUMNS = ("observations", "actions", "rewards", "discounts", "circuit_parameters", "bits", "policy_versions")


class Step(NamedTuple):
    """One step of one environment; a tuple, because one is made for every step."""

    observation: Float32[np.ndarray, "O"]
    action: Float32[np.ndarray, "A"]
    reward: float
    discount: float
    """0 where the step terminated the episode, else 1."""
    circuit_parameters: Float32[np.ndarray, "P"]
    bits: UInt8[np.ndarray, "N"]
    policy_version: int


@dataclass(slots=True)
class SegmentBuilder:
    """Collects steps; ``cut`` turns them into the columns of a segment."""

    steps: list[Step] = field(default_factory=list)

    def __len__(self) -> int:
        """Steps collected since the last cut."""
        return len(self.steps)

    def append(self, step: Step) -> None:
        """Add the next step of the same episode."""
        self.steps.append(step)

    def cut(self, final_observation: Float32[np.ndarray, "O"]) -> dict[str, Any]:
        """Columns of a Segment from the steps so far, which are forgotten.

        Args:
            final_observation: the true observation after the last step, not the one after a reset.
        """
        steps, self.steps = self.steps, []
        return {
            "observations": np.stack([*(step.observation for step in steps), final_observation]),
            "actions": np.stack([step.action for step in steps]),
            "rewards": np.array([step.reward for step in steps], np.float32),
            "discounts": np.array([step.discount for step in steps], np.float32),
            "circuit_parameters": np.stack([step.circuit_parameters for step in steps]),
            "bits": np.stack([step.bits for step in steps]),
            "policy_versions": np.array([step.policy_version for step in steps], np.uint32),
        }

    def state(self) -> dict[str, np.ndarray]:
        """Columns of the steps collected so far; empty where there are none."""
        if not self.steps:
            return {}
        return SegmentBuilder(list(self.steps)).cut(self.steps[-1].observation)

    def restore(self, columns: dict[str, np.ndarray]) -> None:
        """Put back what ``state`` gave."""
        self.steps = []
        for row in range(len(columns["rewards"]) if columns else 0):
            observation, action, reward, discount, parameters, bits, version = (columns[name][row] for name in _COLUMNS)
            self.steps.append(Step(observation, action, float(reward), float(discount), parameters, bits, int(version)))
