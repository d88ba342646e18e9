"""A sampled batch on the learner's device.

Axis legend: B batch, O observation, A action, P circuit parameters, N bits.
"""

import math
from collections.abc import Mapping
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

    On a GPU a batch is copied into one of two page-locked buffers and travels in one piece while the host goes on; a
    buffer is written again only after its last copy has left. On the CPU tensors share the batch's memory.
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
            batch.observation,
            batch.action,
            reward,
            batch.discount,
            batch.next_observation,
            batch.circuit_parameters,
            batch.bits,
        ]
        if self._device.type != "cuda":
            return TensorBatch(*(torch.from_numpy(column).to(self._device) for column in columns))
        self._turn = (self._turn + 1) % _NUM_STAGES
        shapes = [column.shape for column in columns]
        if not self._stages or self._stages[0].shapes != shapes:
            self._stages = [_Stage(shapes) for _ in range(_NUM_STAGES)]
        return self._stages[self._turn].send(columns, self._device)


class _Stage:
    """Page-locked memory for one batch."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        self.shapes = shapes
        self._memory = torch.empty(sum(map(math.prod, shapes)), pin_memory=True)
        self._columns = [column.numpy() for column in _parts(self._memory, shapes)]
        self._left = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def send(self, columns: list[np.ndarray], device: torch.device) -> TensorBatch:
        self._left.synchronize()
        for stage, column in zip(self._columns, columns, strict=True):
            stage[:] = column
        sent = self._memory.to(device, non_blocking=True)
        self._left.record()
        return TensorBatch(*_parts(sent, self.shapes))


def _parts(memory: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Views of one piece of memory, one after the other."""
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(shape) for part, shape in zip(torch.split(memory, sizes), shapes, strict=True)]


def copy_into(target: TensorBatch, source: TensorBatch) -> None:
    """Overwrite the tensors of a batch whose addresses must stay."""
    torch._foreach_copy_(target.columns(), source.columns(), non_blocking=True)


def host_copies(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Copies on the host, by name; all of one type travel in one piece, because a GPU is waited for at each piece."""
    copies: dict[str, np.ndarray] = {}
    for dtype in {tensor.dtype for tensor in tensors.values()}:
        some = {name: tensor for name, tensor in tensors.items() if tensor.dtype == dtype}
        piece = torch.cat([tensor.reshape(-1) for tensor in some.values()]).cpu()
        parts = _parts(piece, [tensor.shape for tensor in some.values()])
        copies.update({name: part.numpy() for name, part in zip(some, parts, strict=True)})
    return {name: copies[name] for name in tensors}
