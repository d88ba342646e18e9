"""The acting policy: observation → circuit parameters → bits → action, split where it waits for the QPU.

Axis legend: E environments, O observation, A action, P circuit parameters, N bits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from actors.errors import InvalidActionError
from learner.blocks import classical_output, decode_circuits
from learner.config import AgentSpec, BlockName, PolicyConfig, uses_circuit
from learner.networks import PolicyNetwork
from learner.parameter_loading import load_parameters
from learner.parameters import ParameterSource
from qpu_service.interfaces import CircuitSampler, PendingMeasurement
from qpu_service.readout import ReduceBy, reduce_shots
from qpu_service.types import CircuitBatch, circuit_seeds


@dataclass(frozen=True, slots=True)
class PendingAction:
    """A forward pass that waits for its bits."""

    circuit_parameters: Tensor
    links: Tensor
    measurement: PendingMeasurement | None


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """What one forward pass decided, and what the surrogate will learn from."""

    action: Float32[np.ndarray, "E A"]
    """Without exploration noise, environment units."""
    circuit_parameters: Float32[np.ndarray, "E P"]
    """q_i; P = 0 for blocks without a circuit."""
    bits: UInt8[np.ndarray, "E N"]
    """q_o; N = 0 for blocks without a circuit."""
    backend_name: str


class ActingPolicy:
    """The policy with the real circuit inside; holds its own copy of the parameters.

    Args:
        spec: environment sizes and action bounds.
        config: network sizes.
        block: what stands between PreDNN and PostDNN.
        sampler: runs circuits; None for blocks without one.
        rng: of circuit seeds and random bits.
        shots: measurements per circuit.
        readout: what the policy sees of them.
        name: prefix of the request ids.
        timeout_s: longest wait for bits.
    """

    def __init__(
        self,
        spec: AgentSpec,
        config: PolicyConfig,
        block: BlockName,
        sampler: CircuitSampler | None,
        rng: np.random.Generator,
        *,
        shots: int = 1,
        readout: ReduceBy = "sample",
        name: str = "policy",
        timeout_s: float = 600.0,
    ) -> None:
        self.network = PolicyNetwork(spec, config, block).eval()
        self.version = 0
        self._block = block
        self._shape = config.circuit
        self._sampler = sampler
        self._rng = rng
        self._timeout_s = timeout_s
        self._shots, self._readout = shots, readout
        self._name = name
        self._requests = 0

    def refresh(self, source: ParameterSource) -> None:
        """Take the newest published parameters if they are newer than these."""
        newest = source.get_parameters(newer_than=self.version)
        if newest is not None:
            load_parameters(self.network, newest)
            self.version = newest.version

    def random_state(self) -> dict[str, Any]:
        """Random state and request counter, JSON-able."""
        return {"rng": self._rng.bit_generator.state, "requests": self._requests}

    def restore_random_state(self, state: dict[str, Any]) -> None:
        """Put back what ``random_state`` gave."""
        self._rng.bit_generator.state = state["rng"]
        self._requests = int(state["requests"])

    @torch.inference_mode()
    def begin(self, observation: Float32[np.ndarray, "E O"]) -> PendingAction:
        """PreDNN, and the circuits handed to the QPU service."""
        circuit_parameters, links = self.network.encode(torch.from_numpy(observation))
        if not uses_circuit(self._block) or self._sampler is None:
            return PendingAction(circuit_parameters, links, None)
        angles, pairs = decode_circuits(self._block, circuit_parameters.numpy(), self._shape)
        seeds = circuit_seeds(int(self._rng.integers(2**63)), len(angles))
        self._requests += 1
        circuits = CircuitBatch(
            angles=angles,
            entangler_pairs=pairs,
            seeds=seeds,
            shots=self._shots,
            request_id=f"{self._name}-{self._requests}",
        )
        return PendingAction(circuit_parameters, links, self._sampler.submit(circuits))

    @torch.inference_mode()
    def finish(self, pending: PendingAction, *, explores: bool = False) -> PolicyOutput:
        """Wait for the bits; PostDNN.

        Args:
            pending: of ``begin``.
            explores: draw from the policy's own distribution, where its family has one.

        Raises:
            TimeoutError: if the bits do not come in time.
            InvalidActionError: if an action is not finite.
        """
        if pending.measurement is None:
            generator = torch.Generator().manual_seed(int(self._rng.integers(2**63)))
            output = classical_output(self._block, self.network, pending.circuit_parameters, generator)
            empty = len(output), 0
            return PolicyOutput(
                action=self._decode(output, pending.links, explores),
                circuit_parameters=np.zeros(empty, np.float32),
                bits=np.zeros(empty, np.uint8),
                backend_name="",
            )
        measured = pending.measurement.result(self._timeout_s)
        output = torch.from_numpy(reduce_shots(measured.bits, self._readout).astype(np.float32))
        # What the surrogate learns from must be bits. Where the policy acts on means, one shot is an unbiased draw of
        # them, and cross entropy against draws has its minimum at the means.
        bits = reduce_shots(measured.bits, "sample" if self._readout == "mean" else self._readout)
        return PolicyOutput(
            action=self._decode(output, pending.links, explores),
            circuit_parameters=np.ascontiguousarray(pending.circuit_parameters.numpy()),
            bits=bits,
            backend_name=measured.backend_name,
        )

    @property
    def is_stochastic(self) -> bool:
        """Whether exploring is drawing from the policy itself, so that no noise need be added."""
        return self.network.family.num_noise > 0

    def _decode(self, output: Tensor, links: Tensor, explores: bool) -> Float32[np.ndarray, "E A"]:
        noise = self._noise(len(output), explores)
        action: np.ndarray = self.network.decode(output, links, noise).numpy()
        is_finite = np.isfinite(action)
        if not is_finite.all():
            row, component = (int(i) for i in np.argwhere(~is_finite)[0])
            raise InvalidActionError(
                f"version {self.version} of the policy gave {action[row, component]} as component {component} of the "
                f"action of environment {row}; expected finite numbers. Nothing of this step was stored; lower the "
                "learning rates, or scale down what the environment returns"
            )
        return action

    def _noise(self, num_rows: int, explores: bool) -> Tensor | None:
        if not explores or not self.is_stochastic:
            return None
        return torch.from_numpy(self._rng.standard_normal((num_rows, self.network.family.num_noise), np.float32))
