"""The quantum block without its surrogate: exact bit means of circuit parameters, differentiable in the angles.

For simulators: a QPU has neither. On the CPU by the compiled simulator, on a GPU by learner/device_circuit.py, so that
the host waits for nothing.
Must never be needed by the paper's own algorithm; it is what the surrogate is measured against and may be fitted to.

Axis legend: B batch, P circuit parameters, M layers, N qubits.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from learner.blocks import decode_circuits
from learner.config import BlockName
from learner.device_circuit import device_bit_means
from qpu_service.circuit import CircuitShape
from qpu_service.types import CircuitBatch

if TYPE_CHECKING:
    from qpu_service.backends.statevector import StatevectorBackend


class DeviceMeans(Protocol):
    """As ``device_bit_means``."""

    def __call__(
        self, circuit_parameters: Float[Tensor, "B P"], shape: CircuitShape, *, is_entangled: bool = True
    ) -> Float[Tensor, "B N"]:
        """See ``device_bit_means``."""
        ...


class ExactCircuit:
    """Exact expectations of a block's circuits.

    Args:
        block: a block with a circuit; ``unentangled_pqc`` has no CZs.
        shape: circuit size.
        num_threads: CPU threads of the simulator.
    """

    def __init__(self, block: BlockName, shape: CircuitShape, num_threads: int = 1) -> None:
        self._block = block
        self._shape = shape
        self._num_threads = num_threads
        self.device_means: DeviceMeans = device_bit_means
        """Computes on a GPU; replaced where there is something faster (learner/acceleration.py)."""

    @cached_property
    def _simulator(self) -> "StatevectorBackend":
        """For the CPU alone: it takes half a minute to compile on a machine where it never ran."""
        from qpu_service.backends.statevector import StatevectorBackend  # loads numba and its kernels

        return StatevectorBackend(self._num_threads)

    def bit_means(self, circuit_parameters: Float[Tensor, "B P"]) -> Float[Tensor, "B N"]:
        """P(bit = 1) of every qubit.

        The gradient is exact in the angles and zero in the real-valued qubit indices p and k: rounding has none.

        Raises:
            ValueError: if the parameters have the wrong shape, or on the CPU are not finite.
        """
        if circuit_parameters.device.type != "cpu":
            return self.device_means(circuit_parameters, self._shape, is_entangled=self._block != "unentangled_pqc")
        output: Tensor = _ExactMeans.apply(circuit_parameters, self)  # type: ignore[no-untyped-call]
        return output

    def _means(self, circuit_parameters: Float32[np.ndarray, "B P"]) -> Float32[np.ndarray, "B N"]:
        return self._simulator.bit_means(self._circuits(circuit_parameters))

    def _pull_back(
        self, circuit_parameters: Float32[np.ndarray, "B P"], weights: Float32[np.ndarray, "B N"]
    ) -> Float32[np.ndarray, "B P"]:
        """Gradient of Σ weights · bit means, in the layout of the circuit parameters."""
        _, gradients = self._simulator.bit_mean_gradients(self._circuits(circuit_parameters), weights)
        num_circuits, num_layers = gradients.shape[:2]
        pulled = np.zeros((num_circuits, num_layers, 2 * self._shape.num_qubits + 2), np.float32)
        pulled[:, :, :-2] = gradients.reshape(num_circuits, num_layers, -1)
        return pulled.reshape(num_circuits, -1)

    def _circuits(self, circuit_parameters: Float32[np.ndarray, "B P"]) -> CircuitBatch:
        angles, pairs = decode_circuits(self._block, circuit_parameters, self._shape)
        return CircuitBatch(angles=angles, entangler_pairs=pairs, seeds=np.zeros(len(angles), np.uint64))


class _ExactMeans(torch.autograd.Function):
    """Forward: one simulation. Backward: the adjoint method's vector-Jacobian product."""

    @staticmethod
    def forward(ctx: Any, circuit_parameters: Tensor, circuit: ExactCircuit) -> Tensor:
        ctx.save_for_backward(circuit_parameters)
        ctx.circuit = circuit
        means = torch.from_numpy(circuit._means(_as_array(circuit_parameters)))
        return means.to(circuit_parameters.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (circuit_parameters,) = ctx.saved_tensors
        pulled = ctx.circuit._pull_back(_as_array(circuit_parameters), _as_array(gradients[0]))
        return torch.from_numpy(pulled).to(circuit_parameters.dtype), None


def _as_array(tensor: Tensor) -> Float32[np.ndarray, "..."]:
    array: Float32[np.ndarray, ...] = tensor.detach().float().contiguous().numpy()
    return array
