"""Step B1 of the paper's Algorithm 1: the surrogate is fitted to the batch at hand before every other step.

Owns the surrogate's optimiser and the order of the tiny-batches; must never touch policy or critics.

Axis legend: R rows of the sampled batch, P circuit parameters, N bits.
Source: arXiv:2503.09119, Algorithm 1 (Table 1), step B1; N_qt and the tiny-batch size are open there.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from learner.config import SurrogateConfig
from learner.losses import surrogate_loss
from learner.networks import QuantumSurrogate
from learner.optimizers import make_adam

Fit = Callable[[torch.optim.Adam, Tensor, Tensor, Tensor, int], Tensor]
"""As ``GpuSurrogateKernel.fit``: optimiser, circuit parameters, targets, order of the rows, tiny-batches; the loss."""


class SurrogateTrainer:
    """Fits a surrogate to pairs of circuit parameters and bits, N_qt tiny-batches per call.

    Another implementation of the loop inside ``fit`` (fused, captured, compiled) must keep what the golden trace
    holds to the bit: ``generator`` is asked for ⌈N_qt · size / R⌉ permutations of the R rows and for nothing else,
    before anything else of the update is drawn; rows are taken in that order; every tiny-batch is one Adam step on
    its mean BCE; the loss handed back is that of the last tiny-batch, before its step. Nothing in here may wait
    for the device.

    Args:
        surrogate: on its device.
        config: rate, number and size of tiny-batches.
        generator: of the learner; draws which rows make a tiny-batch.
    """

    def __init__(self, surrogate: QuantumSurrogate, config: SurrogateConfig, generator: torch.Generator) -> None:
        self.surrogate = surrogate
        self.config = config
        self.optimizer = make_adam(surrogate, config.learning_rate)
        self._generator = generator
        self.device_fit: Fit | None = None
        """Carries out ``fit`` on a GPU where set (learner/gpu)."""

    def fit(self, circuit_parameters: Float[Tensor, "R P"], targets: Float[Tensor, "R N"]) -> Float[Tensor, ""]:
        """N_qt tiny-batches of BCE, drawn from the rows without replacement while they last.

        Args:
            circuit_parameters: q_i; angles in rad and real-valued qubit indices.
            targets: measured bits, or their means, in 0..1.

        Returns:
            BCE of the last tiny-batch, nats per bit.
        """
        order = self._draw_order(len(targets), circuit_parameters.device)
        if self.device_fit is not None:
            return self.device_fit(self.optimizer, circuit_parameters, targets, order, self.config.num_tiny_batches)
        if self.surrogate.kernel is not None:
            return self.surrogate.kernel.fit(
                self.optimizer, circuit_parameters[order], targets[order], self.config.num_tiny_batches
            )
        size = self.config.tiny_batch_size
        tiny_parameters = torch.split(circuit_parameters[order], size)
        for parameters, bits in zip(tiny_parameters, torch.split(targets[order], size), strict=True):
            loss = surrogate_loss(self.surrogate.logits(parameters), bits)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return loss.detach()

    def fit_until(
        self,
        circuit_parameters: Float[Tensor, "R P"],
        targets: Float[Tensor, "R N"],
        floor: Float[Tensor, "R"],
        tolerance: float,
    ) -> tuple[Float[Tensor, ""], int]:
        """As ``fit``, but ends at the first tiny-batch whose loss, before its step, is near its floor.

        While rows last a tiny-batch is new to this call, so that its loss is a test and not a memory. Reads one
        number per tiny-batch, which makes the host wait for the device.

        Args:
            circuit_parameters: as in ``fit``.
            targets: as in ``fit``.
            floor: least loss that each row can have, nats per bit.
            tolerance: mean excess over the floor that is good enough, nats per bit.

        Returns:
            BCE of the last tiny-batch looked at, nats per bit, and the number of steps taken.
        """
        order = self._draw_order(len(targets), circuit_parameters.device)
        loss = torch.zeros(())
        for count, rows in enumerate(torch.split(order, self.config.tiny_batch_size)):
            loss = surrogate_loss(self.surrogate.logits(circuit_parameters[rows]), targets[rows])
            if float(loss.detach() - floor[rows].mean()) < tolerance:
                return loss.detach(), count
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return loss.detach(), self.config.num_tiny_batches

    def _draw_order(self, num_rows: int, device: torch.device) -> Int64[Tensor, "rows"]:
        count = self.config.tiny_batch_size * self.config.num_tiny_batches
        passes = [
            torch.randperm(num_rows, generator=self._generator, device=device)
            for _ in range(math.ceil(count / num_rows))
        ]
        return torch.cat(passes)[:count]
