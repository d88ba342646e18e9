"""A sampled batch on the learner's device.

Axis legend: B batch, O observation, A action, P circuit parameters, N bits.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """A TransitionBatch on the learner's device."""

    observation: Float[Tensor, "B O"]
    action: Float[Tensor, "B A"]
    reward: Float[Tensor, "B"]
    discount: Float[Tensor, "B"]
    next_observation: Float[Tensor, "B O"]
    circuit_parameters: Float[Tensor, "B P"]
    bits: Float[Tensor, "B N"]
