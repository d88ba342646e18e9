"""Whatever somebody writes into the server's keys: counted, named, skipped, never executed; what is good arrives."""

import json
import logging
import pickle  # noqa: TID251 - to make the poison
import tracemalloc

import numpy as np
import pytest

from replay.codec import MAX_FRAME_BYTES, encode_segment
from tests.integration.redis_fixtures import (  # noqa: F401 - fixtures are used by name
    client,
    held_rewards,
    learner,
    run_id,
    server,
    writer,
)
from tests.unit.replay.segments import SPEC, make_segment

pytestmark = pytest.mark.redis


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def changed(position, value):
    """The good frame with another byte."""

    def make(frame):
        return frame[:position] + bytes([value]) + frame[position + 1 :]

    return make


POISON = {
    "nothing": lambda frame: b"",
    "one byte": lambda frame: b"\x00",
    "cut in its header": lambda frame: frame[:20],
    "cut in its columns": lambda frame: frame[:-100],
    "longer than it says": lambda frame: frame + b"more",
    "larger than any frame": lambda frame: frame + bytes(MAX_FRAME_BYTES),
    "random bytes": lambda frame: np.random.default_rng(0).bytes(len(frame)),
    "zeros": lambda frame: bytes(len(frame)),
    "nested JSON": lambda frame: json.dumps([[0]] * 100).encode() + b"[" * 100_000,
    "nested msgpack": lambda frame: b"\x91" * 100_000,
    "another magic": changed(0, 0),
    "another version": changed(4, 99),
    "a changed number": lambda frame: frame[:-8] + b"\xff" + frame[-7:],
    "another run": lambda frame: encode_segment(make_segment(), SPEC, "another-run"),
}


@pytest.fixture
def poisoned(writer, learner, client, run_id, caplog):  # noqa: F811 - fixtures
    """Puts poison between two good segments, lets the learner read all three; returns what the log says."""

    def insert(make):
        for sequence in range(3):
            writer.insert(make_segment(sequence=sequence, first=4 * sequence, actor_id=9))
        key = f"hdqnn:{{{run_id}}}:segment:1"
        client.set(key, make(client.get(key)))
        with caplog.at_level(logging.WARNING):
            learner.refresh()
        return caplog.text

    return insert


@pytest.mark.parametrize("name", POISON)
def test_poison_is_counted_and_skipped_and_the_learner_goes_on(poisoned, writer, learner, name):  # noqa: F811
    tracemalloc.start()
    text = poisoned(POISON[name])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert learner.num_rejected_frames == 1
    assert "skipped bad frame 1 (1 so far)" in text
    assert held_rewards(learner) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert learner.row()["replay/rejected_frames"] == 1.0
    writer.insert(make_segment(sequence=3, first=12, actor_id=9))
    learner.refresh()
    assert held_rewards(learner)[-1] == 15
    assert np.isfinite(learner.sample(64, np.random.default_rng(0)).observation).all()
    # A few copies of one frame, whatever sizes a frame claims.
    assert peak_bytes < 8 * MAX_FRAME_BYTES


def test_a_pickle_is_never_loaded(poisoned, learner, tmp_path):  # noqa: F811
    trace = tmp_path / "executed"
    poisoned(lambda frame: pickle.dumps(Bomb(trace)))
    assert learner.num_rejected_frames == 1
    assert not trace.exists()
    pickle.loads(pickle.dumps(Bomb(trace))).close()  # noqa: S301 - our own, to see that the bomb works
    assert trace.exists()


def read_bytes(learner):  # noqa: F811 - fixture
    """Memory at the peak of a refresh."""
    tracemalloc.start()
    learner.refresh()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak_bytes


def test_what_is_larger_than_any_frame_is_not_even_read(writer, learner, client, run_id, caplog):  # noqa: F811
    for sequence in range(4):
        writer.insert(make_segment(sequence=sequence, first=4 * sequence, actor_id=9))
    for index in (1, 3):
        client.setrange(f"hdqnn:{{{run_id}}}:segment:{index}", MAX_FRAME_BYTES, b"x")
    with caplog.at_level(logging.WARNING):
        assert read_bytes(learner) < 2**22
    assert "skipped bad frame 1 (1 so far): it has 67108865 bytes, at most 67108864 are read" in caplog.text
    writer.insert(make_segment(sequence=4, first=16, actor_id=9))
    assert read_bytes(learner) < 2**22
    assert learner.row() == {"replay/rejected_frames": 2.0, "replay/missed_segments": 0.0}
    assert held_rewards(learner) == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]


def test_frames_larger_than_their_writers_said_are_read_one_by_one(writer, learner, client, run_id):  # noqa: F811
    for sequence in range(10):
        writer.insert(make_segment(sequence=sequence, first=4 * sequence))
    for index in range(1, 9):
        client.setrange(f"hdqnn:{{{run_id}}}:segment:{index}", 10 * 2**20, b"x")
    assert read_bytes(learner) < 8 * 10 * 2**20, "they were there all at once"
    assert learner.num_rejected_frames == 8
    assert held_rewards(learner) == [0, 1, 2, 3, 36, 37, 38, 39]


@pytest.mark.parametrize("kind", ["rpush", "sadd"])
def test_a_key_of_another_type_is_a_missing_segment(writer, learner, client, run_id, kind):  # noqa: F811
    for sequence in range(2):
        writer.insert(make_segment(sequence=sequence, first=4 * sequence))
    key = f"hdqnn:{{{run_id}}}:segment:0"
    client.delete(key)
    getattr(client, kind)(key, "x")
    learner.refresh()
    assert learner.row() == {"replay/rejected_frames": 0.0, "replay/missed_segments": 1.0}
    assert held_rewards(learner) == [4, 5, 6, 7]
