"""A sampled batch on the learner's device.

Axis legend: B batch, O observation, A action, P circuit parameters, N bits.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from replay.types import TransitionBatch

_NUM_STAGES = 2


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

    def columns(self) -> tuple[Tensor, ...]:
        """The tensors themselves, in the order of the fields; ``dataclasses.astuple`` would copy them."""
        return tuple(getattr(self, field.name) for field in fields(self))


class BatchLoader:
    """Puts batches on the device without waiting for it.

    On a GPU a batch is copied into one of two page-locked buffers and travels while the host goes on; a buffer is
    written again only after its last copy has left. On the CPU tensors share the batch's memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stages: list[_Stage] = []
        self._turn = 0

    def load(self, batch: TransitionBatch, reward_scale: float | None) -> TensorBatch:
        """The batch as tensors.

        Args:
            batch: as sampled.
            reward_scale: divisor of the rewards, if they are scaled.
        """
        reward = batch.reward if reward_scale is None else batch.reward / np.float32(reward_scale)
        columns = [
            torch.from_numpy(column)
            for column in (
                batch.observation,
                batch.action,
                reward,
                batch.discount,
                batch.next_observation,
                batch.circuit_parameters,
                batch.bits,
            )
        ]
        if self._device.type != "cuda":
            return TensorBatch(*(column.to(self._device) for column in columns))
        self._turn = (self._turn + 1) % _NUM_STAGES
        if not self._stages or any(a.shape != b.shape for a, b in zip(self._stages[0].columns, columns, strict=True)):
            self._stages = [_Stage(columns) for _ in range(_NUM_STAGES)]
        return self._stages[self._turn].send(columns, self._device)


class _Stage:
    """Page-locked memory for one batch."""

    def __init__(self, columns: list[Tensor]) -> None:
        self.columns = [torch.empty_like(column, pin_memory=True) for column in columns]
        self._left = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def send(self, columns: list[Tensor], device: torch.device) -> TensorBatch:
        self._left.synchronize()
        for stage, column in zip(self.columns, columns, strict=True):
            stage.copy_(column)
        batch = TensorBatch(*(stage.to(device, non_blocking=True) for stage in self.columns))
        self._left.record()
        return batch


def copy_into(target: TensorBatch, source: TensorBatch) -> None:
    """Overwrite the tensors of a batch whose addresses must stay."""
    for to, column in zip(target.columns(), source.columns(), strict=True):
        to.copy_(column, non_blocking=True)
