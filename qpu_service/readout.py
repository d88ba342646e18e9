"""What is made of measured bits: one bitstring out of many shots, bit means, and means corrected for readout errors.

Axis legend: B batch, S shots, N qubits.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8, UInt64

from qpu_service.errors import InvalidCircuitError

ReduceBy = Literal["sample", "most_probable", "mean"]


@dataclass(frozen=True, slots=True)
class ReadoutErrors:
    """How often each qubit's measurement is wrong; circuits may be on different qubits."""

    one_given_zero: Float64[np.ndarray, "*B N"]
    """P(1 read | 0 prepared)."""
    zero_given_one: Float64[np.ndarray, "*B N"]
    """P(0 read | 1 prepared)."""


def reduce_shots(bits: UInt8[np.ndarray, "B S N"], how: ReduceBy) -> np.ndarray:
    """Turn S shots of each circuit into one vector of N numbers.

    ``sample`` takes the first shot: one draw from the circuit's distribution, which is what one shot gives.
    ``most_probable`` takes the bitstring that occurred most often, the earliest one of equals; with few shots over
    many outcomes all occur once and it is a sample again. ``mean`` takes each bit's mean.

    Args:
        bits: 0 or 1.
        how: see above.

    Returns:
        uint8 (B, N) for ``sample`` and ``most_probable``, float64 (B, N) for ``mean``.

    Raises:
        InvalidCircuitError: if there are no shots or ``how`` is not known.

    Source: arXiv:2503.09119, Section 2 ("The QL output vector (sampled bistring)'s elements are the (most probable)
    measurement results of qubits").
    """
    if bits.ndim != 3 or bits.shape[1] < 1:
        raise InvalidCircuitError(f"bits must have shape (B, S, N) with at least one shot, got {bits.shape}")
    if how == "sample":
        return bits[:, 0]
    if how == "mean":
        means: Float64[np.ndarray, "B N"] = bits.mean(axis=1, dtype=np.float64)
        return means
    if how == "most_probable":
        return np.stack([_mode(shots) for shots in bits]) if len(bits) else bits[:, 0]
    raise InvalidCircuitError(f"shots are reduced by sample, most_probable or mean, got {how!r}")


def mitigate_means(means: Float64[np.ndarray, "B N"], errors: ReadoutErrors) -> Float64[np.ndarray, "B N"]:
    """Invert each qubit's own confusion matrix on its mean: p = (p_read - P(1|0)) / (1 - P(1|0) - P(0|1)), in 0..1.

    Args:
        means: measured bit means.
        errors: of the same qubits.

    Returns:
        Means that a perfect readout would have had, in expectation; their spread grows by the same factor.

    Raises:
        InvalidCircuitError: if sizes differ, or a readout says nothing about its qubit.
    """
    visible = 1.0 - errors.one_given_zero - errors.zero_given_one
    if visible.shape not in (means.shape, means.shape[-1:]):
        raise InvalidCircuitError(
            f"means of shape {means.shape} do not belong to readout errors of shape {visible.shape}"
        )
    if (visible <= 0).any():
        qubit = int(np.unravel_index(np.argmin(visible), visible.shape)[-1])
        raise InvalidCircuitError(
            f"the readout of qubit {qubit} is wrong as often as right and cannot be corrected; choose other qubits"
        )
    corrected: Float64[np.ndarray, "B N"] = np.clip((means - errors.one_given_zero) / visible, 0.0, 1.0)
    return corrected


def correct_bits(
    bits: UInt8[np.ndarray, "B S N"], errors: ReadoutErrors, seeds: UInt64[np.ndarray, "B"]
) -> UInt8[np.ndarray, "B S N"]:
    """Flip as many of each qubit's shots as bring its mean to the corrected one; which ones, the circuit's seed draws.

    Whatever is made of the shots afterwards then sees corrected means: a shot is a draw from them, and correlations
    between qubits stay but for the flipped shots. A single shot stays as it is, because its mean is 0 or 1.

    Args:
        bits: as they were read.
        errors: of the qubits that the circuits were on.
        seeds: of the circuits, so that asking again gives the same bits.

    Returns:
        Bits whose means are those of ``mitigate_means``, rounded to whole shots.

    Raises:
        InvalidCircuitError: as of ``mitigate_means``.
    """
    num_shots = bits.shape[1]
    if not bits.size:
        return bits
    means = bits.mean(axis=1, dtype=np.float64)
    change = np.rint((mitigate_means(means, errors) - means) * num_shots).astype(np.int64)[:, None]
    keys = np.stack([np.random.default_rng(int(seed)).random(bits.shape[1:]) for seed in seeds])
    keys[bits != (change < 0)] = 2.0  # only ones can become zeros, only zeros ones
    ranks = keys.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    corrected: UInt8[np.ndarray, "B S N"] = bits ^ (ranks < np.abs(change)).astype(np.uint8)
    return corrected


def read_errors(target: Any, qubits: Int64[np.ndarray, "*B N"]) -> ReadoutErrors:
    """Readout errors that a device's target reports: one number per qubit, taken for both directions.

    Args:
        target: Qiskit's Target; qubits whose error is not reported count as perfect.
        qubits: physical qubits.
    """
    known = np.zeros(target.num_qubits)
    for (qubit,), reported in target["measure"].items():
        known[qubit] = 0.0 if reported is None or reported.error is None else reported.error
    return ReadoutErrors(known[qubits], known[qubits])


def _mode(shots: UInt8[np.ndarray, "S N"]) -> UInt8[np.ndarray, "N"]:
    _, first, counts = np.unique(np.packbits(shots, axis=1), axis=0, return_index=True, return_counts=True)
    most = counts == counts.max()
    chosen: UInt8[np.ndarray, "N"] = shots[first[most].min()]  # noqa: UP037 - a shape
    return chosen
