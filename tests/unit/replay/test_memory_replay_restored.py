"""A journal on disk: what comes back after a death, what is refused, and how it stays small."""

import numpy as np
import pytest

from replay.codec import frame_bytes
from replay.errors import (
    CorruptFrameError,
    ReplayConfigError,
    ReplayLostError,
    SequenceGapError,
)
from replay.memory_replay import MemoryReplay
from replay.rate_limiter import SampleToInsertRatio
from replay.types import ReplayCounts
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment

LIMITER = SampleToInsertRatio(2.0, 8, 16.0)


def make_replay(capacity: int = 20, journal=None) -> MemoryReplay:
    return MemoryReplay(SPEC, LIMITER, capacity, journal)


def fill(replay: MemoryReplay, sequences) -> None:
    for sequence in sequences:
        replay.insert(make_segment(1 + sequence % 5, sequence=sequence, first=10 * sequence))


def test_restored_replay_continues_bit_identically(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    fill(original, range(20))
    original.announce_policy_version(3)
    original.sample(8, np.random.default_rng(1))
    state = original.state()
    fill(original, range(20, 30))
    expected = original.sample(64, np.random.default_rng(2))
    original.close()

    restored = MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)
    assert restored.poll().policy_version == 3
    assert restored.refresh() == ReplayCounts(inserted=state["inserted"], sampled=8)
    assert not restored.insert(make_segment(5, sequence=19)).is_new
    fill(restored, range(20, 30))
    assert_same_batch(restored.sample(64, np.random.default_rng(2)), expected)
    again = MemoryReplay.restore(SPEC, LIMITER, 20, journal, restored.state())
    assert_same_batch(again.sample(64, np.random.default_rng(2)), expected)
    assert again.register_actor(0) == 2


def test_restore_of_an_empty_checkpoint_drops_what_came_after(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    state = original.state()
    fill(original, range(3))
    original.close()
    assert len(MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)) == 0


def test_half_written_tail_is_cut_off(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    fill(original, range(3))
    state = original.state()
    original.close()
    with journal.open("ab") as file:
        file.write(b"\xff\xff\xff\x7fHDQS")
    assert len(MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)) == 6
    assert journal.stat().st_size == 16 + state["journal_offset"]


def test_short_journal_is_a_lost_replay(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    fill(original, range(3))
    state = original.state()
    original.close()
    journal.write_bytes(journal.read_bytes()[:-1])
    with pytest.raises(ReplayLostError, match="but the checkpoint was written at"):
        MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)


def test_damaged_journal_is_refused(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    fill(original, range(3))
    state = original.state()
    original.close()
    damaged = bytearray(journal.read_bytes())
    damaged[16:20] = b"\xff\xff\xff\x7f"
    journal.write_bytes(damaged)
    with pytest.raises(CorruptFrameError, match="is damaged at byte 16: a record of 2147483647 bytes"):
        MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)
    damaged[0:4] = b"HDQS"
    journal.write_bytes(damaged)
    with pytest.raises(CorruptFrameError, match="expected a journal of version 2"):
        MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)


def test_journal_of_another_checkpoint_is_refused(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    fill(original, range(3))
    state = original.state()
    original.close()
    with pytest.raises(ReplayLostError, match=r"holds 6 transitions up to byte .* the checkpoint counts 7"):
        MemoryReplay.restore(SPEC, LIMITER, 20, journal, {**state, "inserted": 7})


def test_an_old_journal_is_never_overwritten(tmp_path):
    journal = tmp_path / "journal"
    original = make_replay(journal=journal)
    fill(original, range(1))
    with pytest.raises(ReplayConfigError, match=r"already holds .* resume from its checkpoint"):
        make_replay(journal=journal)


def test_full_disk_leaves_the_journal_whole(tmp_path, monkeypatch):
    replay = make_replay(journal=tmp_path / "journal")
    fill(replay, range(2))
    written = replay._journal._file

    class FullDisk:
        def write(self, data):
            if len(data) < 200:
                raise OSError(28, "No space left on device")
            return written.write(data[:100])

        def __getattr__(self, name):
            return getattr(written, name)

    replay._journal._file = FullDisk()
    with pytest.raises(OSError, match="No space left"):
        replay.insert(make_segment(3, sequence=2))
    replay._journal._file = written
    assert len(replay) == 3
    replay.insert(make_segment(3, sequence=2))
    restored = MemoryReplay.restore(SPEC, LIMITER, 20, tmp_path / "journal", replay.state())
    assert len(restored) == 6


def test_without_a_journal_there_is_no_state():
    with pytest.raises(ReplayConfigError, match="keeps no journal"):
        make_replay().state()


def test_capacity_in_bytes_holds_here_and_after_a_restart(tmp_path):
    size = frame_bytes(4, SPEC)
    options = {"capacity_bytes": 3 * size, "is_prioritised": True}
    replay = MemoryReplay(SPEC, LIMITER, 100, tmp_path / "journal", **options)
    for sequence in range(8):
        replay.insert(make_segment(4, sequence=sequence, first=4 * sequence))
        assert len(replay) == min(4 * sequence + 4, 12)
    again = MemoryReplay.restore(SPEC, LIMITER, 100, tmp_path / "journal", replay.state(), **options)
    for held in (replay, again):
        assert held.take(0, 100)[0].reward.tolist() == list(range(20, 32))
        assert held.take(0, 100)[0].indices.tolist() == list(range(20, 32))
    # A segment that alone is larger than the limit is still taken, as on a server.
    replay.insert(make_segment(40, sequence=8, first=100))
    assert len(replay) == 40


def test_the_journal_stays_bounded_and_every_kept_checkpoint_restores(tmp_path, monkeypatch):
    """Three checkpoints are kept, as in a run; 400 segments into a replay of five."""
    monkeypatch.setattr("replay.journal._MIN_DROPPED_BYTES", 0)
    journal = tmp_path / "journal"
    replay = make_replay(capacity=20, journal=journal)
    kept, sizes, rng = [], [], np.random.default_rng(0)
    for sequence in range(400):
        fill(replay, [sequence])
        if sequence % 3:
            continue
        batch = replay.sample(16, np.random.default_rng(sequence))
        kept = [*kept, (replay.state(), batch, sequence)][-3:]
        replay.forget_before(kept[0][0]["journal_first"])
        sizes.append(journal.stat().st_size)
        if rng.random() < 0.2:
            # Resumed, from the newest checkpoint or an older one.
            replay.close()
            del kept[rng.integers(1, len(kept) + 1) :]
            state, batch, at = kept[-1]
            replay = MemoryReplay.restore(SPEC, LIMITER, 20, journal, state)
            assert_same_batch(replay.sample(16, np.random.default_rng(at)), batch)
            fill(replay, range(at + 1, sequence + 1))
    assert max(sizes) < 6 * 20 * frame_bytes(1, SPEC)
    assert replay.insert(make_segment(sequence=399)).is_new is False
    with pytest.raises(SequenceGapError):
        replay.insert(make_segment(sequence=401))


def test_a_checkpoint_whose_transitions_were_shed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("replay.journal._MIN_DROPPED_BYTES", 0)
    journal = tmp_path / "journal"
    replay = make_replay(journal=journal)
    fill(replay, range(3))
    old = replay.state()
    fill(replay, range(3, 60))
    replay.forget_before(replay.state()["journal_first"])
    replay.close()
    with pytest.raises(ReplayLostError, match="but the checkpoint was written at"):
        MemoryReplay.restore(SPEC, LIMITER, 20, journal, old)


def test_a_disk_without_room_puts_shedding_off(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("replay.journal._MIN_DROPPED_BYTES", 0)
    journal = tmp_path / "journal"
    replay = make_replay(journal=journal)
    fill(replay, range(60))
    size = journal.stat().st_size
    (tmp_path / "journal.new").mkdir()
    replay.forget_before(replay.state()["journal_first"])
    assert journal.stat().st_size == size
    assert "old transitions stay" in caplog.text
    fill(replay, range(60, 62))
    (tmp_path / "journal.new").rmdir()
    replay.forget_before(replay.state()["journal_first"])
    assert journal.stat().st_size < size / 2
