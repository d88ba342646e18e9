import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from replay.codec import MAX_FRAME_BYTES, decode_segment, encode_segment, frame_bytes
from replay.errors import CorruptFrameError, InvalidSegmentError
from replay.types import Segment, TransitionSpec
from tests.unit.replay.segments import SPEC, assert_same_segment, make_segment

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def specs(draw) -> TransitionSpec:
    return TransitionSpec(
        observation_size=draw(st.integers(1, 5)),
        action_size=draw(st.integers(1, 3)),
        circuit_parameters_size=draw(st.integers(0, 4)),
        num_bits=draw(st.integers(0, 17)),
    )


@st.composite
def segments(draw, spec: TransitionSpec) -> Segment:
    steps = draw(st.integers(1, 6))

    def floats(*shape: int) -> np.ndarray:
        return draw(hnp.arrays(np.float32, shape, elements=FINITE))

    sequence = draw(st.integers(0, 2**53))
    return Segment(
        actor_id=draw(st.integers(0, 2**32 - 1)),
        incarnation=draw(st.integers(0, 2**32 - 1)),
        sequence=sequence,
        previous_sequence=draw(st.none() | st.integers(0, sequence - 1)) if sequence else None,
        observations=floats(steps + 1, spec.observation_size),
        actions=floats(steps, spec.action_size),
        rewards=floats(steps),
        discounts=floats(steps),
        circuit_parameters=floats(steps, spec.circuit_parameters_size),
        bits=draw(hnp.arrays(np.uint8, (steps, spec.num_bits), elements=st.integers(0, 1))),
        policy_versions=draw(hnp.arrays(np.uint32, steps)),
        backend_name=draw(st.text(max_size=20)),
    )


@given(st.data(), st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_round_trip(data, run_id):
    spec = data.draw(specs())
    segment = data.draw(segments(spec))
    frame = encode_segment(segment, spec, run_id)
    assert len(frame) == frame_bytes(len(segment), spec)
    assert_same_segment(decode_segment(frame, spec, run_id), segment)


@pytest.mark.parametrize("change", [1, 0x80, 0xFF])
def test_every_changed_byte_is_refused(change):
    frame = encode_segment(make_segment(), SPEC, "run")
    for position in range(len(frame)):
        damaged = bytearray(frame)
        damaged[position] ^= change
        with pytest.raises(CorruptFrameError):
            decode_segment(bytes(damaged), SPEC, "run")


@given(st.integers(0))
@settings(max_examples=50, deadline=None)
def test_every_cut_is_refused(length):
    frame = encode_segment(make_segment(), SPEC, "run")
    with pytest.raises(CorruptFrameError):
        decode_segment(frame[: length % len(frame)], SPEC, "run")


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(noise):
    with pytest.raises(CorruptFrameError):
        decode_segment(noise, SPEC, "run")


def test_wire_bytes_of_version_2_stay_as_they_are():
    spec = TransitionSpec(observation_size=1, action_size=1, circuit_parameters_size=1, num_bits=9)
    segment = make_segment(2, spec=spec, first=3, actor_id=5, incarnation=6, sequence=2, previous_sequence=0)
    assert (
        encode_segment(segment, spec, "golden").hex()
        == (
            "4844515302000b00c3154035"  # magic, version, bytes of the name, crc32
            "0200000001000000010000000100000009000000"  # steps and sizes
            "050000000600000002000000000000000100000000000000"  # actor, incarnation, sequence, previous sequence + 1
            "d38a7d2f3c7ad0823c6c7639b277809c"  # schema hash
            + b"statevector".ljust(120, b"\0").hex()
            + "0000fa44"  # observation 2000
            "00006040000040400000803f00005040"  # action 3.5, reward 3, discount 1, circuit parameter 3.25
            "07000000c0000000"  # policy version 7, bits 110000000
            "0020fa44"  # observation 2001
            "00009040000080400000000000008840"  # action 4.5, reward 4, discount 0, circuit parameter 4.25
            "0800000020000000"  # policy version 8, bits 001000000
            "0040fa44"  # observation 2002
        )
    )


@pytest.mark.parametrize(
    ("spec", "run_id", "parts"),
    [
        (replace(SPEC, observation_size=4), "run", ["sizes differ", "(3, 2, 4, 10)", "(4, 2, 4, 10)", "actor 0"]),
        (replace(SPEC, num_bits=11), "run", ["sizes differ", "(3, 2, 4, 11)"]),
        (SPEC, "other", ["run differs", "'other'"]),
    ],
    ids=["observation", "bits", "run"],
)
def test_message_names_what_differs(spec, run_id, parts):
    with pytest.raises(CorruptFrameError) as caught:
        decode_segment(encode_segment(make_segment(), SPEC, "run"), spec, run_id)
    for part in parts:
        assert part in str(caught.value)


def forged(frame: bytes, offset: int, layout: str, value: object) -> bytes:
    """The frame with one header field replaced and a valid crc32."""
    changed = bytearray(frame)
    struct.pack_into(layout, changed, offset, value)
    struct.pack_into("<I", changed, 8, zlib.crc32(changed[12:], zlib.crc32(changed[:8])))
    return bytes(changed)


@pytest.mark.parametrize(
    ("offset", "layout", "value", "parts"),
    [
        (0, "4s", b"\x80\x04cp", ["starts with b'HDQS'", "got b'\\x80\\x04cp'"]),
        (4, "<H", 3, ["version differs", "version 3", "reads 2"]),
        (12, "<I", 5, ["its header of 5 steps says"]),
        (12, "<I", 2**32 - 1, ["its header of 4294967295 steps says"]),
        (12, "<I", 0, ["its header of 0 steps says"]),
        (6, "<H", 60000, ["its header of 4 steps says"]),
        (48, "<Q", 1, ["previous_sequence of actor 0 must be within 0..-1, got 0"]),
    ],
    ids=["magic", "version", "more steps", "gigabytes", "no steps", "long name", "continues itself"],
)
def test_forged_header_is_refused(offset, layout, value, parts):
    frame = forged(encode_segment(make_segment(), SPEC, "run"), offset, layout, value)
    with pytest.raises(CorruptFrameError) as caught:
        decode_segment(frame, SPEC, "run")
    for part in parts:
        assert part in str(caught.value)


def test_oversized_frame_is_refused_before_it_is_read():
    with pytest.raises(CorruptFrameError, match=f"192..{MAX_FRAME_BYTES} bytes, got {MAX_FRAME_BYTES + 1}"):
        decode_segment(bytes(MAX_FRAME_BYTES + 1), SPEC, "run")


def test_nonfinite_content_with_a_valid_crc_is_refused():
    frame = encode_segment(make_segment(), SPEC, "run")
    first_observation = 192
    with pytest.raises(CorruptFrameError, match="observations of actor 0 is not finite at step 0"):
        decode_segment(forged(frame, first_observation, "<f", float("nan")), SPEC, "run")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ({"rewards": np.array([0, 1, np.inf, 3], np.float32)}, ["rewards of actor 0 is not finite at step 2"]),
        ({"rewards": np.zeros(4)}, ["rewards", "float32 (4,)", "float64 (4,)"]),
        ({"observations": np.zeros((4, 3), np.float32)}, ["observations", "(5, 3)", "(4, 3)"]),
        ({"bits": np.full((4, 10), 2, np.uint8)}, ["bits of actor 0 must be 0 or 1, got 2"]),
        ({"actor_id": -1}, ["actor_id must be within 0..4294967295, got -1"]),
        ({"sequence": 2**60}, ["sequence must be within"]),
        ({"backend_name": "x" * 121}, ["backend_name has 121 bytes, at most 120"]),
        ({"sequence": 3, "previous_sequence": 3}, ["previous_sequence", "0..2, got 3"]),
    ],
    ids=["inf", "dtype", "shape", "bits", "actor", "sequence", "name", "previous"],
)
def test_invalid_segment_is_not_encoded(overrides, parts):
    with pytest.raises(InvalidSegmentError) as caught:
        encode_segment(make_segment(**overrides), SPEC, "run")
    for part in parts:
        assert part in str(caught.value)


def test_too_long_segment_is_not_encoded():
    spec = TransitionSpec(observation_size=2**20, action_size=1)
    with pytest.raises(
        InvalidSegmentError, match=r"17 steps takes \d+ bytes, at most \d+ fit a frame; send shorter segments"
    ):
        encode_segment(make_segment(17, spec=spec), spec, "run")


def test_readonly_views_of_the_frame():
    segment = decode_segment(encode_segment(make_segment(), SPEC, "run"), SPEC, "run")
    assert not segment.observations.flags.writeable
    assert segment.observations.flags.aligned
