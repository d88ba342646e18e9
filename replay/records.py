"""One transition as one run of bytes, so that a server can hand out any of them with a single read.

A segment is its records one after the other, then its last observation. A record starts with its observation, so what
follows each of them is the next observation: a record and the observation behind it are a whole transition.

Axis legend: T steps, B transitions, O observation, A action, P circuit parameters, N bits.
"""

import functools

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from replay.types import TransitionBatch, TransitionSpec


@functools.lru_cache(maxsize=64)
def record_dtype(spec: TransitionSpec) -> np.dtype:
    """Fields of one record, little-endian and without gaps; bits are packed, most significant first, to whole words."""
    return np.dtype(
        [
            ("observation", "<f4", (spec.observation_size,)),
            ("action", "<f4", (spec.action_size,)),
            ("reward", "<f4"),
            ("discount", "<f4"),
            ("circuit_parameters", "<f4", (spec.circuit_parameters_size,)),
            ("policy_version", "<u4"),
            ("bits", "u1", ((spec.num_bits + 31) // 32 * 4,)),
        ]
    )


@functools.lru_cache(maxsize=64)
def transition_dtype(spec: TransitionSpec) -> np.dtype:
    """A record and the observation that follows it."""
    return np.dtype([("record", record_dtype(spec)), ("next_observation", "<f4", (spec.observation_size,))])


def version_offset(spec: TransitionSpec) -> int:
    """Where in a record the policy version is, bytes."""
    floats = spec.observation_size + spec.action_size + 2 + spec.circuit_parameters_size
    return 4 * floats


def segment_bytes(steps: int, spec: TransitionSpec) -> int:
    """Bytes of all records of a segment and its last observation."""
    return steps * record_dtype(spec).itemsize + 4 * spec.observation_size


def records_of(buffer: bytes | bytearray, offset: int, steps: int, spec: TransitionSpec) -> np.ndarray:
    """The T records that start at ``offset``, as a structured view."""
    return np.ndarray((steps,), record_dtype(spec), buffer, offset)


def observations_of(
    buffer: bytes | bytearray, offset: int, steps: int, spec: TransitionSpec
) -> Float32[np.ndarray, "T+1 O"]:
    """All observations of the segment that starts at ``offset``, the last one included, as a view."""
    shape = (steps + 1, spec.observation_size)
    return np.ndarray(shape, "<f4", buffer, offset, (record_dtype(spec).itemsize, 4))


def pack_bits(bits: UInt8[np.ndarray, "T N"], out: UInt8[np.ndarray, "T _"]) -> None:
    """Fill the field ``bits`` of records."""
    packed = np.packbits(bits, axis=1)
    out[:, : packed.shape[1]] = packed
    out[:, packed.shape[1] :] = 0


def unpack_bits(packed: UInt8[np.ndarray, "B _"], spec: TransitionSpec) -> UInt8[np.ndarray, "B N"]:
    """What ``pack_bits`` packed."""
    return np.unpackbits(packed, axis=1, count=spec.num_bits)


def are_finite(transitions: np.ndarray) -> Bool[np.ndarray, "B"]:
    """Which of B transitions (``transition_dtype``) hold only finite numbers."""
    # A sum is finite only where all its terms are. Versions and bits are summed as if they were floats, which can only
    # raise a false alarm.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.frombuffer(transitions, "<f4").sum()):
            return np.ones(len(transitions), bool)
    record = transitions["record"]
    is_finite: np.ndarray = np.isfinite(record["reward"]) & np.isfinite(record["discount"])
    for rows in (
        record["observation"],
        record["action"],
        record["circuit_parameters"],
        transitions["next_observation"],
    ):
        is_finite &= np.isfinite(rows).all(axis=1)
    return is_finite


def read_transitions(transitions: np.ndarray, spec: TransitionSpec) -> TransitionBatch:
    """Copies of B transitions (``transition_dtype``) as columns; they have no indices."""
    record = transitions["record"]
    return TransitionBatch(
        observation=_column(record["observation"], np.float32),
        action=_column(record["action"], np.float32),
        reward=_column(record["reward"], np.float32),
        discount=_column(record["discount"], np.float32),
        next_observation=_column(transitions["next_observation"], np.float32),
        circuit_parameters=_column(record["circuit_parameters"], np.float32),
        bits=unpack_bits(record["bits"], spec).astype(np.float32),
        policy_versions=_column(record["policy_version"], np.uint32),
    )


def _column(values: np.ndarray, dtype: type) -> np.ndarray:
    return np.array(values, dtype, order="C")
