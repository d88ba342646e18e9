"""Exact probabilities of generator circuits and their gradient in the angles, in float32 on one core.

Reverse-mode ("adjoint") differentiation: one evolution forward, one back, whatever the number of angles.
"""

import numpy as np
from jaxtyping import Float32, Float64

from qpu_service.backends.multiplexed import evolve, overlap_back, tabulate
from qpu_service.errors import InvalidCircuitError
from qpu_service.generator.circuit import (
    GateProgram,
    GeneratorShape,
    angle_gradient,
    gate_places,
    gate_program,
    pack_matrices,
)


class ExactGenerator:
    """Simulator of one circuit shape; keeps its memory, so one instance belongs to one thread.

    Args:
        shape: family and size.
    """

    def __init__(self, shape: GeneratorShape) -> None:
        self.shape = shape
        self._places = gate_places(shape)
        size = 2 << max(shape.num_qubits, 4)
        self._state = np.empty(size, np.float32)
        self._adjoint = np.empty(size, np.float32)
        self._psi = np.empty(size, np.float32)
        self._sums = np.empty(256, np.float32)
        self._overlaps = np.empty(16 * len(self._places), np.float64)
        self._newest: tuple[np.ndarray, GateProgram] | None = None

    def probabilities(self, angles: Float64[np.ndarray, "A"]) -> Float32[np.ndarray, "2**N"]:
        """Probability of every outcome; qubit q is bit q of its index.

        Raises:
            InvalidCircuitError: for a wrong number of angles, or one that is not finite.
        """
        self._evolve(self._check(angles))
        table = np.empty(self.shape.num_outcomes, np.float32)
        tabulate(self._state, table)
        return table

    def gradient(
        self, angles: Float64[np.ndarray, "A"], weights: Float32[np.ndarray, "2**N"]
    ) -> Float64[np.ndarray, "A"]:
        """Gradient of Σ_i weights_i·p_i in the angles, 1/rad.

        After ``probabilities`` of the same angles the way forward is spared.

        Raises:
            InvalidCircuitError: for wrong shapes or angles that are not finite.
        """
        angles = self._check(angles)
        if weights.shape != (self.shape.num_outcomes,):
            raise InvalidCircuitError(
                f"weights must have shape ({self.shape.num_outcomes},), one per outcome, got {weights.shape}"
            )
        if self._newest is None or not np.array_equal(self._newest[0], angles):
            self._evolve(angles)
        if self._newest is None:
            raise InvalidCircuitError("the generator has no state; evolve it first")
        program = self._newest[1]
        np.copyto(self._psi, self._state)
        gates = pack_matrices(program.matrices)
        overlap_back(
            gates,
            self._places,
            np.ascontiguousarray(weights, np.float32),
            self._psi,
            self._adjoint,
            self._sums,
            self._overlaps,
        )
        overlaps = self._overlaps.view(np.complex128).reshape(-1, 2, 2, 2)
        return angle_gradient(self.shape, angles, program, overlaps)

    def _evolve(self, angles: Float64[np.ndarray, "A"]) -> None:
        program = gate_program(self.shape, angles)
        evolve(pack_matrices(program.matrices), self._places, self._state)
        self._newest = (angles.copy(), program)

    def _check(self, angles: Float64[np.ndarray, "A"]) -> Float64[np.ndarray, "A"]:
        if angles.shape != (self.shape.num_angles,):
            raise InvalidCircuitError(
                f"angles must have shape ({self.shape.num_angles},) for {self.shape}, got {angles.shape}"
            )
        if not np.isfinite(angles).all():
            raise InvalidCircuitError("angles contain NaN or infinity; the generator has diverged")
        return np.ascontiguousarray(angles, np.float64)
