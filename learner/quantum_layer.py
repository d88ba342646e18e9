"""A quantum layer for any torch model: forward runs the circuit, backward goes through its surrogate.

Section 2 of arXiv:2503.09119 is not about reinforcement learning; this module is that section.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from learner.networks import QuantumSurrogate
from qpu_service.circuit import CircuitShape, decode_parameters
from qpu_service.interfaces import CircuitSampler
from qpu_service.types import CircuitBatch, circuit_seeds


class QuantumLayer(nn.Module):
    """Maps circuit parameters to measured bits; trainable from both sides.

    ```python
    layer = QuantumLayer(CircuitShape(num_qubits=4, num_layers=3), LocalSampler(StatevectorBackend()), seed=0)
    bits = layer(features)            # the circuit runs
    layer.fit_surrogate(optimizer)    # the surrogate learns the bits just measured
    loss(head(bits)).backward()       # the gradient is the surrogate's
    ```

    Args:
        shape: circuit size; inputs must have ``shape.num_parameters`` columns.
        sampler: where circuits run.
        seed: of the measurements; every forward pass uses a fresh seed derived from it.
        shots: measurements per circuit; the output is their mean (one shot gives bits).
        surrogate_hidden_size: see QuantumSurrogate.
    """

    def __init__(
        self,
        shape: CircuitShape,
        sampler: CircuitSampler,
        *,
        seed: int,
        shots: int = 1,
        surrogate_hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.surrogate = QuantumSurrogate(shape.num_parameters, shape.num_qubits, surrogate_hidden_size)
        self._sampler = sampler
        self._shots = shots
        self._rng = np.random.default_rng(seed)
        self._last: tuple[Tensor, Tensor] | None = None

    def forward(self, circuit_parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
        """Measured bits (their mean over the shots); the gradient is the surrogate's.

        Raises:
            ValueError: if the parameters have the wrong shape or are not finite.
        """
        inputs = circuit_parameters.detach()
        angles, pairs = decode_parameters(inputs.float().cpu().numpy(), self.shape)
        seeds = circuit_seeds(int(self._rng.integers(2**63)), len(angles))
        circuits = CircuitBatch(angles=angles, entangler_pairs=pairs, seeds=seeds, shots=self._shots)
        bits = self._sampler.submit(circuits).result().bits
        measured = torch.from_numpy(bits.mean(axis=1, dtype=np.float32)).to(circuit_parameters)
        self._last = (inputs, measured)
        output: Tensor = _MeasuredForward.apply(circuit_parameters, measured, self.surrogate)  # type: ignore[no-untyped-call]
        return output

    def fit_surrogate(
        self, optimizer: torch.optim.Optimizer, *, num_tiny_batches: int = 8, tiny_batch_size: int = 32
    ) -> float:
        """Fit the surrogate to the bits of the last forward pass (step B1); returns the last loss in nats per bit.

        Call it between the forward and the backward pass: the backward pass uses the surrogate as it is
        then, local to this very batch. The optimiser should hold the surrogate's parameters and no others.

        Raises:
            ValueError: if no forward pass was made yet.
        """
        if self._last is None:
            raise ValueError("fit_surrogate needs measured bits: run a forward pass first")
        inputs, measured = self._last
        loss = torch.zeros(())
        for _ in range(num_tiny_batches):
            rows = torch.from_numpy(self._rng.integers(len(inputs), size=tiny_batch_size)).to(inputs.device)
            loss = functional.binary_cross_entropy_with_logits(self.surrogate.logits(inputs[rows]), measured[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float(loss.detach())


class _MeasuredForward(torch.autograd.Function):
    """Forward: the measured bits. Backward: the surrogate's vector-Jacobian product, evaluated then."""

    @staticmethod
    def forward(ctx: Any, circuit_parameters: Tensor, measured: Tensor, surrogate: QuantumSurrogate) -> Tensor:
        ctx.save_for_backward(circuit_parameters)
        ctx.surrogate = surrogate
        return measured

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        with torch.enable_grad():
            inputs = ctx.saved_tensors[0].detach().requires_grad_()
            (gradient,) = torch.autograd.grad(ctx.surrogate(inputs), inputs, gradients[0])
        return gradient, None, None
