"""Frames of the QPU service: round trip, and that damaged or foreign bytes are refused, never run."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qpu_service.errors import InvalidCircuitError
from qpu_service.types import CircuitBatch, MeasurementBatch, circuit_seeds
from qpu_service.wire import decode_circuits, decode_measurements, encode_circuits, encode_measurements


def make_circuits(num_circuits=3, num_layers=2, num_qubits=4):
    rng = np.random.default_rng(0)
    return CircuitBatch(
        angles=rng.standard_normal((num_circuits, num_layers, num_qubits, 2)).astype(np.float32),
        entangler_pairs=rng.integers(num_qubits, size=(num_circuits, num_layers, 2)).astype(np.int16),
        seeds=circuit_seeds(7, num_circuits),
        shots=5,
        request_id="äctor-1",
    )


@given(st.integers(0, 5), st.integers(1, 3), st.integers(1, 11))
@settings(max_examples=40, deadline=None)
def test_circuits_round_trip(num_circuits, num_layers, num_qubits):
    circuits = make_circuits(num_circuits, num_layers, num_qubits)
    back = decode_circuits(encode_circuits(circuits))
    np.testing.assert_array_equal(back.angles, circuits.angles)
    np.testing.assert_array_equal(back.entangler_pairs, circuits.entangler_pairs)
    np.testing.assert_array_equal(back.seeds, circuits.seeds)
    assert (back.shots, back.request_id) == (5, "äctor-1")


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 11), st.sampled_from([None, "job-9"]))
@settings(max_examples=40, deadline=None)
def test_measurements_round_trip(num_circuits, shots, num_qubits, job_id):
    bits = np.random.default_rng(1).integers(2, size=(num_circuits, shots, num_qubits)).astype(np.uint8)
    measured = MeasurementBatch(
        bits=bits, request_id="r", backend_name="aer", queue_s=0.5, execution_s=1.5, job_id=job_id
    )
    back = decode_measurements(encode_measurements(measured))
    np.testing.assert_array_equal(back.bits, bits)
    assert (back.request_id, back.backend_name, back.queue_s, back.execution_s, back.job_id) == (
        ("r", "aer", 0.5, 1.5, job_id)
    )


@given(st.binary(max_size=300))
def test_random_bytes_are_refused(raw):
    for decode in (decode_circuits, decode_measurements):
        with pytest.raises(InvalidCircuitError):
            decode(raw)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda frame: frame[:-1], "its header says"),
        (lambda frame: frame + b"x", "its header says"),
        (lambda frame: b"HQC9" + frame[4:], "same version"),
        (lambda frame: frame[:4] + b"\xff\xff\xff\xff" + frame[8:], "its header says"),
        (lambda frame: frame[:-8] + frame[-8:], None),
    ],
    ids=["cut", "longer", "other version", "huge count", "intact"],
)
def test_damaged_requests_are_refused(damage, message):
    frame = damage(encode_circuits(make_circuits()))
    if message is None:
        assert len(decode_circuits(frame)) == 3
        return
    with pytest.raises(InvalidCircuitError, match=message):
        decode_circuits(frame)


def test_nan_in_a_frame_is_refused():
    circuits = make_circuits()
    frame = encode_circuits(circuits).replace(circuits.angles.tobytes()[:4], np.float32(np.nan).tobytes())
    with pytest.raises(InvalidCircuitError, match="NaN"):
        decode_circuits(frame)
