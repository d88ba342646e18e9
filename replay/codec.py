"""Segments as bytes: the only format in which transitions leave a process.

A frame is a fixed header, the backend's name, then the raw little-endian columns; each observation is held once and
bits are packed eight to a byte, row by row. Nothing is compressed and nothing is executed, so the length of a frame
bounds what reading it can cost. This module does no I/O.

Header, 64 bytes, little-endian: magic ``HDQS``, u16 format version, u16 bytes of backend name, u32 crc32 of all
bytes but these four, u32 T, u32 O, u32 A, u32 P, u32 N, u32 actor_id, u32 incarnation, u64 sequence, 16 bytes schema
hash. Columns in this order: observations, actions, rewards, discounts, circuit parameters, policy versions, bits.
"""

import functools
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from replay.errors import CorruptFrameError, InvalidSegmentError
from replay.types import Segment, TransitionSpec

FORMAT_VERSION = 1
MAX_FRAME_BYTES = 64 * 2**20
"""Larger frames are refused on both sides; a 64-step Humanoid segment has 160 kB."""

_MAGIC = b"HDQS"
_HEADER = struct.Struct("<4sHHI7IQ16s")
HEAD_BYTES = _HEADER.size
CRC_START, CRC_END = 8, 12
"""Where a frame holds its crc32: a cheap mark of its identity."""
_MAX_NAME_BYTES = 256
_UINT32_MAX = 2**32 - 1


@dataclass(frozen=True, slots=True)
class FrameHead:
    """What the first ``HEAD_BYTES`` bytes of a frame claim; nothing of it is checked yet."""

    steps: int
    actor_id: int
    incarnation: int
    sequence: int


def read_head(head: bytes) -> FrameHead:
    """Whose frame this says it is, without the cost and the safety of ``decode_segment``."""
    *_, steps, _, _, _, _, actor_id, incarnation, sequence, _ = _HEADER.unpack_from(head)
    return FrameHead(steps, actor_id, incarnation, sequence)


@functools.lru_cache(maxsize=64)
def schema_hash(spec: TransitionSpec, run_id: str) -> bytes:
    """16 bytes that differ between runs and between sizes of a transition."""
    sizes = (spec.observation_size, spec.action_size, spec.circuit_parameters_size, spec.num_bits)
    return hashlib.blake2b(f"hdqnn-replay/{FORMAT_VERSION}/{sizes}/{run_id}".encode(), digest_size=16).digest()


def frame_bytes(steps: int, spec: TransitionSpec, name_bytes: int = 0) -> int:
    """Size of the frame of a segment with ``steps`` transitions, bytes."""
    floats = (steps + 1) * spec.observation_size + steps * (spec.action_size + spec.circuit_parameters_size + 2)
    return _HEADER.size + _padded(name_bytes) + 4 * floats + steps * (4 + packed_bits_bytes(spec))


def packed_bits_bytes(spec: TransitionSpec) -> int:
    """Bytes that hold the bits of one transition."""
    return (spec.num_bits + 7) // 8


def encode_segment(segment: Segment, spec: TransitionSpec, run_id: str) -> bytes:
    """Frame of a segment; the same segment always gives the same bytes.

    Raises:
        InvalidSegmentError: if the segment does not fit ``spec``, holds non-finite numbers or is too large.
    """
    segment.check(spec)
    name = segment.backend_name.encode()
    if len(name) > _MAX_NAME_BYTES:
        raise InvalidSegmentError(f"backend_name has {len(name)} bytes, at most {_MAX_NAME_BYTES} are allowed")
    size = frame_bytes(len(segment), spec, len(name))
    if size > MAX_FRAME_BYTES:
        raise InvalidSegmentError(
            f"a segment of {len(segment)} steps takes {size} bytes, at most {MAX_FRAME_BYTES} fit a frame; "
            "send shorter segments"
        )
    for field, value, limit in (
        ("actor_id", segment.actor_id, _UINT32_MAX),
        ("incarnation", segment.incarnation, _UINT32_MAX),
        ("sequence", segment.sequence, 2**53),
    ):
        if not 0 <= value <= limit:
            raise InvalidSegmentError(f"{field} must be within 0..{limit}, got {value}")
    header = _HEADER.pack(
        _MAGIC,
        FORMAT_VERSION,
        len(name),
        0,
        len(segment),
        spec.observation_size,
        spec.action_size,
        spec.circuit_parameters_size,
        spec.num_bits,
        segment.actor_id,
        segment.incarnation,
        segment.sequence,
        schema_hash(spec, run_id),
    )
    columns = (
        segment.observations,
        segment.actions,
        segment.rewards,
        segment.discounts,
        segment.circuit_parameters,
        segment.policy_versions,
        np.packbits(segment.bits, axis=1),
    )
    # Views, not copies: the only copy of the columns is the join.
    body: list[bytes | memoryview] = [header[CRC_END:], name.ljust(_padded(len(name)), b"\0")]
    # Views, not copies: the only copy of the columns is the join.
    body += [
        np.ascontiguousarray(column, column.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
        for column in columns
    ]
    crc = zlib.crc32(header[:CRC_START])
    for part in body:
        crc = zlib.crc32(part, crc)
    return b"".join((header[:CRC_START], crc.to_bytes(4, "little"), *body))


def decode_segment(frame: bytes, spec: TransitionSpec, run_id: str) -> Segment:
    """Segment of a frame; its arrays are read-only views of ``frame``.

    Everything is checked before a column is touched: sizes against caps and against the frame's length, version, sizes,
    run and crc32, then the values.

    Raises:
        CorruptFrameError: naming what differs and what was expected.
    """
    steps, name_bytes, actor_id, incarnation, sequence = _check_header(frame, spec, run_id)
    name_end = _HEADER.size + name_bytes
    try:
        backend_name = frame[_HEADER.size : name_end].decode()
    except UnicodeDecodeError as error:
        raise CorruptFrameError(f"frame of actor {actor_id}: backend name is not UTF-8") from error
    offset = _HEADER.size + _padded(name_bytes)

    def column(dtype: str, *shape: int) -> np.ndarray:
        nonlocal offset
        count = math.prod(shape)
        values = np.frombuffer(frame, dtype, count, offset).reshape(shape)
        offset += values.nbytes
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    observations = column("<f4", steps + 1, spec.observation_size)
    actions = column("<f4", steps, spec.action_size)
    rewards = column("<f4", steps)
    discounts = column("<f4", steps)
    circuit_parameters = column("<f4", steps, spec.circuit_parameters_size)
    policy_versions = column("<u4", steps)
    packed = column("u1", steps, packed_bits_bytes(spec))
    segment = Segment(
        actor_id=actor_id,
        incarnation=incarnation,
        sequence=sequence,
        observations=observations,
        actions=actions,
        rewards=rewards,
        discounts=discounts,
        circuit_parameters=circuit_parameters,
        bits=np.unpackbits(packed, axis=1, count=spec.num_bits),
        policy_versions=policy_versions,
        backend_name=backend_name,
    )
    try:
        segment.check(spec)
    except InvalidSegmentError as error:
        raise CorruptFrameError(f"frame of actor {actor_id}: {error}") from error
    return segment


def _check_header(frame: bytes, spec: TransitionSpec, run_id: str) -> tuple[int, int, int, int, int]:
    """Refuse a frame by its header; returns steps, bytes of the name, actor_id, incarnation and sequence."""
    if not _HEADER.size <= len(frame) <= MAX_FRAME_BYTES:
        raise CorruptFrameError(f"a frame has {_HEADER.size}..{MAX_FRAME_BYTES} bytes, got {len(frame)}")
    header = _HEADER.unpack_from(frame)
    magic, version, name_bytes, crc, steps, *sizes, actor_id, incarnation, sequence, schema = header
    if magic != _MAGIC:
        raise CorruptFrameError(f"a frame starts with {_MAGIC!r}, got {magic!r}; is another program using these keys?")
    if version != FORMAT_VERSION:
        raise CorruptFrameError(
            f"version differs: frame has format version {version}, this program reads {FORMAT_VERSION}; "
            "run the same release everywhere"
        )
    if zlib.crc32(memoryview(frame)[CRC_END:], zlib.crc32(frame[:CRC_START])) != crc:
        raise CorruptFrameError(
            f"crc32 differs: the frame of {len(frame)} bytes (actor {actor_id}?) was damaged or cut"
        )
    own_sizes = [spec.observation_size, spec.action_size, spec.circuit_parameters_size, spec.num_bits]
    if sizes != own_sizes:
        raise CorruptFrameError(
            f"sizes differ: frame of actor {actor_id} has (observation, action, circuit parameters, bits) = "
            f"{tuple(sizes)}, this run has {tuple(own_sizes)}; does the actor run another environment or policy?"
        )
    if schema != schema_hash(spec, run_id):
        raise CorruptFrameError(f"run differs: frame of actor {actor_id} was not written for run {run_id!r}")
    expected = frame_bytes(steps, spec, name_bytes)
    if steps < 1 or name_bytes > _MAX_NAME_BYTES or expected != len(frame):
        raise CorruptFrameError(
            f"frame of actor {actor_id} is {len(frame)} bytes long, its header of {steps} steps says {expected}"
        )
    return steps, name_bytes, actor_id, incarnation, sequence


def _padded(count: int) -> int:
    """Up to the next multiple of 8, so that the columns stay aligned."""
    return (count + 7) // 8 * 8
