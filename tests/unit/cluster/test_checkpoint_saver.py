"""A run saves when it is due, goes on when it can't, and says so until it can again."""

import logging

import pytest
import torch

from cluster.checkpoint import load_newest
from cluster.checkpoint_saver import CheckpointSaver
from cluster.config import CheckpointConfig

TENSORS = {"learner": {"weight": torch.zeros(2)}}


def save(saver, env_step):
    saver.save(env_step, TENSORS, {"env_step": env_step})


def test_seconds_count_from_the_last_attempt(tmp_path):
    now_s = 5.0
    saver = CheckpointSaver(tmp_path, CheckpointConfig(period_s=10.0), lambda: now_s)
    assert not saver.is_due(10**9)
    now_s = 15.0
    assert saver.is_due(0)
    save(saver, 1)
    assert not saver.is_due(10**9)


def test_steps_count_in_whole_periods_also_after_a_resume(tmp_path):
    saver = CheckpointSaver(tmp_path, CheckpointConfig(period_steps=100), lambda: 0.0)
    assert [saver.is_due(step) for step in (0, 99, 100)] == [False, False, True]
    save(saver, 130)
    assert [saver.is_due(step) for step in (199, 200)] == [False, True]
    saver.start(450)
    assert [saver.is_due(step) for step in (499, 500)] == [False, True]


def test_a_full_disk_is_an_alarm_until_there_is_room_again(tmp_path, monkeypatch, caplog):
    saver = CheckpointSaver(tmp_path, CheckpointConfig(), lambda: 0.0)
    save(saver, 10)
    assert (saver.note, saver.row()) == ("", {"checkpoint/failures": 0.0})

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr("cluster.checkpoint._save_tensors", fail)
        save(saver, 2_000)
        save(saver, 3_000)
    assert "checkpoint at step 3000 failed ([Errno 28] No space left" in caplog.text
    assert saver.note == "NO CHECKPOINT SINCE STEP 2,000: disk?"
    assert saver.row() == {"checkpoint/failures": 2.0}
    assert load_newest(tmp_path).scalars["env_step"] == 10
    save(saver, 4_000)
    assert (saver.note, saver.row()) == ("", {"checkpoint/failures": 2.0})
    assert load_newest(tmp_path).scalars["env_step"] == 4_000


def test_what_is_not_about_the_disk_ends_the_run(tmp_path):
    saver = CheckpointSaver(tmp_path, CheckpointConfig(), lambda: 0.0)
    with pytest.raises(TypeError):
        saver.save(1, TENSORS, {"env_step": object()})
