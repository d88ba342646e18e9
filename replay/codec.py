"""Segments as bytes: the only format in which transitions leave a process.

A frame is a fixed header, then the records of ``replay/records.py``; each observation is held once and bits are packed
eight to a byte. Nothing is compressed and nothing is executed, so the length of a frame bounds what reading it can
cost. This module does no I/O.

Header, 192 bytes, little-endian: magic ``HDQS``, u16 format version, u16 bytes of backend name, u32 crc32 of all
bytes but these four, u32 T, u32 O, u32 A, u32 P, u32 N, u32 actor_id, u32 incarnation, u64 sequence, u64 previous
sequence + 1 (0: none), 16 bytes schema hash, 120 bytes backend name.
"""

import functools
import hashlib
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from replay.errors import CorruptFrameError, InvalidSegmentError
from replay.records import observations_of, pack_bits, records_of, segment_bytes, unpack_bits
from replay.types import Segment, TransitionSpec

FORMAT_VERSION = 2
MAX_FRAME_BYTES = 64 * 2**20
"""Larger frames are refused on both sides; a 64-step Humanoid segment has 160 kB."""

_MAGIC = b"HDQS"
_MAX_NAME_BYTES = 120
_HEADER = struct.Struct(f"<4sHHI7IQQ16s{_MAX_NAME_BYTES}s")
HEAD_BYTES = _HEADER.size
CRC_START, CRC_END = 8, 12
"""Where a frame holds its crc32: a cheap mark of its identity."""
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
    *_, steps, _, _, _, _, actor_id, incarnation, sequence, _, _, _ = _HEADER.unpack_from(head)
    return FrameHead(steps, actor_id, incarnation, sequence)


@functools.lru_cache(maxsize=64)
def schema_hash(spec: TransitionSpec, run_id: str) -> bytes:
    """16 bytes that differ between runs and between sizes of a transition."""
    sizes = (spec.observation_size, spec.action_size, spec.circuit_parameters_size, spec.num_bits)
    return hashlib.blake2b(f"hdqnn-replay/{FORMAT_VERSION}/{sizes}/{run_id}".encode(), digest_size=16).digest()


def frame_bytes(steps: int, spec: TransitionSpec) -> int:
    """Size of the frame of a segment with ``steps`` transitions, bytes."""
    return HEAD_BYTES + segment_bytes(steps, spec)


def encode_segment(segment: Segment, spec: TransitionSpec, run_id: str) -> bytes:
    """Frame of a segment; the same segment always gives the same bytes. Errors as of ``encode_into``."""
    frame = bytearray(frame_bytes(len(segment), spec))
    encode_into(frame, 0, segment, spec, run_id)
    return bytes(frame)


def encode_into(buffer: bytearray, offset: int, segment: Segment, spec: TransitionSpec, run_id: str) -> None:
    """Write the frame of a segment, ``frame_bytes`` long, into ``buffer`` at ``offset``.

    Raises:
        InvalidSegmentError: if the segment does not fit ``spec``, holds non-finite numbers or is too large.
    """
    segment.check(spec)
    name = segment.backend_name.encode()
    if len(name) > _MAX_NAME_BYTES:
        raise InvalidSegmentError(f"backend_name has {len(name)} bytes, at most {_MAX_NAME_BYTES} are allowed")
    size = frame_bytes(len(segment), spec)
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
    _HEADER.pack_into(
        buffer,
        offset,
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
        0 if segment.previous_sequence is None else segment.previous_sequence + 1,
        schema_hash(spec, run_id),
        name,
    )
    observations_of(buffer, offset + HEAD_BYTES, len(segment), spec)[:] = segment.observations
    records = records_of(buffer, offset + HEAD_BYTES, len(segment), spec)
    records["action"] = segment.actions
    records["reward"] = segment.rewards
    records["discount"] = segment.discounts
    records["circuit_parameters"] = segment.circuit_parameters
    records["policy_version"] = segment.policy_versions
    pack_bits(segment.bits, records["bits"])
    with memoryview(buffer)[offset : offset + size] as frame:
        struct.pack_into("<I", frame, CRC_START, _crc(frame))


def decode_segment(frame: bytes, spec: TransitionSpec, run_id: str) -> Segment:
    """Segment of a frame; its arrays are read-only views of ``frame``.

    Everything is checked before a column is touched: sizes against caps and against the frame's length, version, sizes,
    run and crc32, then the values.

    Raises:
        CorruptFrameError: naming what differs and what was expected.
    """
    steps, name_bytes, actor_id, incarnation, sequence, previous, name = _check_header(frame, spec, run_id)
    try:
        backend_name = name[:name_bytes].decode()
    except UnicodeDecodeError as error:
        raise CorruptFrameError(f"frame of actor {actor_id}: backend name is not UTF-8") from error
    records = records_of(frame, HEAD_BYTES, steps, spec)
    segment = Segment(
        actor_id=actor_id,
        incarnation=incarnation,
        sequence=sequence,
        observations=_native(observations_of(frame, HEAD_BYTES, steps, spec)),
        actions=_native(records["action"]),
        rewards=_native(records["reward"]),
        discounts=_native(records["discount"]),
        circuit_parameters=_native(records["circuit_parameters"]),
        bits=unpack_bits(records["bits"], spec),
        policy_versions=_native(records["policy_version"]),
        backend_name=backend_name,
        previous_sequence=previous - 1 if previous else None,
    )
    try:
        segment.check(spec)
    except InvalidSegmentError as error:
        raise CorruptFrameError(f"frame of actor {actor_id}: {error}") from error
    return segment


def _check_header(frame: bytes, spec: TransitionSpec, run_id: str) -> tuple[int, int, int, int, int, int, bytes]:
    """Refuse a frame by its header; returns steps, bytes of the name, actor_id, incarnation, sequences and name."""
    if not _HEADER.size <= len(frame) <= MAX_FRAME_BYTES:
        raise CorruptFrameError(f"a frame has {_HEADER.size}..{MAX_FRAME_BYTES} bytes, got {len(frame)}")
    header = _HEADER.unpack_from(frame)
    magic, version, name_bytes, crc, steps, *sizes, actor_id, incarnation, sequence, previous, schema, name = header
    if magic != _MAGIC:
        raise CorruptFrameError(f"a frame starts with {_MAGIC!r}, got {magic!r}; is another program using these keys?")
    if version != FORMAT_VERSION:
        raise CorruptFrameError(
            f"version differs: frame has format version {version}, this program reads {FORMAT_VERSION}; "
            "run the same release everywhere"
        )
    if _crc(frame) != crc:
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
    expected = frame_bytes(steps, spec)
    if steps < 1 or name_bytes > _MAX_NAME_BYTES or expected != len(frame):
        raise CorruptFrameError(
            f"frame of actor {actor_id} is {len(frame)} bytes long, its header of {steps} steps says {expected}"
        )
    return steps, name_bytes, actor_id, incarnation, sequence, previous, name


def _crc(frame: bytes | memoryview) -> int:
    with memoryview(frame) as view:
        return zlib.crc32(view[CRC_END:], zlib.crc32(view[:CRC_START]))


def _native(column: np.ndarray) -> np.ndarray:
    """In this machine's byte order; a copy only where that differs."""
    return column.astype(column.dtype.newbyteorder("="), copy=False)
