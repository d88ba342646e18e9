"""Checkpoints are whole or absent, whatever goes wrong while one is written or read."""

import contextlib
import json
import logging
import os
import pickletools
import re
import resource
import shutil

import pytest
import torch

from cluster.checkpoint import load_newest, save_checkpoint
from cluster.errors import EXIT_REFUSED, CheckpointError

TENSORS = {"learner": {"weight": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3)}, "rollout": {}}
SCALARS = {"env_step": 7, "nested": {"list": [1, 2.5, None, "ü"]}, "large": 2**100}


def save(directory, env_step, *, keep=3, tensors=None, **scalars):
    return save_checkpoint(directory, env_step, tensors or TENSORS, {**SCALARS, "env_step": env_step, **scalars}, keep)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_what_is_saved_is_loaded(tmp_path):
    path = save(tmp_path, 7)
    loaded = load_newest(tmp_path)
    assert loaded.path == path
    assert loaded.scalars == SCALARS
    assert loaded.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS["learner"].items():
        assert torch.equal(loaded.tensors["learner"][name], tensor)
        assert loaded.tensors["learner"][name].dtype == tensor.dtype


def test_the_newest_is_loaded_and_only_the_newest_are_kept(tmp_path):
    for env_step in (5, 1000, 30, 999_999_999_999, 200):
        save(tmp_path, env_step, keep=3)
    assert names(tmp_path) == ["step_000000000200", "step_000000001000", "step_999999999999"]
    assert load_newest(tmp_path).scalars["env_step"] == 999_999_999_999


def test_nothing_is_pickled(tmp_path):
    path = save(tmp_path, 1)
    for file in path.iterdir():
        with file.open("rb") as opened, pytest.raises(Exception):  # noqa: B017 - anything but a valid pickle
            list(pickletools.genops(opened))
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}


def test_the_manifest_lists_every_other_file_with_size_and_hash(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == set(names(path)) - {"manifest.json"}
    for name, described in manifest["files"].items():
        assert described["bytes"] == (path / name).stat().st_size
        assert len(described["sha256"]) == 64


@pytest.mark.parametrize("call", ["_save_tensors", "_describe", "_sync", "_sync_directory"])
def test_a_failure_in_the_middle_of_writing_leaves_the_old_one(tmp_path, monkeypatch, call):
    save(tmp_path, 1)

    def fail(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"cluster.checkpoint.{call}", fail)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2)
    loaded = load_newest(tmp_path)
    assert loaded.scalars["env_step"] in ((1, 2) if call == "_sync_directory" else (1,))
    assert not [name for name in names(tmp_path) if name.startswith(".")], "a half-written checkpoint was left behind"


@pytest.mark.parametrize("call", ["rename", "replace"])
def test_a_failure_while_replacing_the_same_step_leaves_the_old_one(tmp_path, monkeypatch, call):
    save(tmp_path, 1, keep=1, attempt=1)

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(f"pathlib.Path.{call}", fail)
        with contextlib.suppress(OSError):
            save(tmp_path, 1, keep=1, attempt=2)
    assert load_newest(tmp_path).scalars["attempt"] in (1, 2)


def test_the_same_step_can_be_saved_again_and_the_later_one_counts(tmp_path):
    for attempt in range(12):
        save(tmp_path, 5, keep=2, attempt=attempt)
        assert load_newest(tmp_path).scalars["attempt"] == attempt
    assert len(names(tmp_path)) <= 2
    save(tmp_path, 6, keep=1, attempt=0)
    assert load_newest(tmp_path).scalars["env_step"] == 6
    assert len(names(tmp_path)) == 1


@contextlib.contextmanager
def small_files():
    """No file of this process may grow beyond 2 kB, which is what a full disk looks like to a write.

    Around the write alone: pytest's own output may be a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("what", ["tensors", "scalars"])
def test_a_disk_that_is_full_is_an_os_error(tmp_path, what):
    save(tmp_path, 1)
    large = {"learner": {"weight": torch.zeros(1000)}} if what == "tensors" else None
    with small_files(), pytest.raises(OSError, match=r"(?i)file too large|os error 27"):
        save(tmp_path, 2, tensors=large, text="x" * (3_000 if what == "scalars" else 0))
    assert load_newest(tmp_path).scalars["env_step"] == 1
    assert names(tmp_path) == ["step_000000000001"]


def test_what_a_killed_process_left_half_written_is_ignored_and_removed(tmp_path):
    path = save(tmp_path, 1)
    shutil.copytree(path, tmp_path / ".step_000000000002.99999")
    assert load_newest(tmp_path).scalars["env_step"] == 1
    save(tmp_path, 3)
    assert names(tmp_path) == ["step_000000000001", "step_000000000003"]


def test_a_damaged_checkpoint_of_a_later_step_never_displaces_a_new_one(tmp_path):
    flip(save(tmp_path, 9) / "state.json")
    for env_step in (1, 2, 3):
        save(tmp_path, env_step, keep=1)
        assert load_newest(tmp_path).scalars["env_step"] == env_step


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "manifest.json").unlink(), "manifest.json"),
        (lambda path: truncate(path / "manifest.json"), ""),
        (lambda path: (path / "manifest.json").write_text("[]"), ""),
        (lambda path: (path / "manifest.json").write_text('{"format": 2, "files": {}}'), "format 2, expected 1"),
        (lambda path: (path / "manifest.json").write_text('{"format": 1, "files": {}}'), "state.json"),
        (lambda path: (path / "learner.safetensors").unlink(), "learner.safetensors"),
        (lambda path: truncate(path / "learner.safetensors"), "learner.safetensors has .* the manifest says"),
        (lambda path: flip(path / "learner.safetensors"), "learner.safetensors has .* the manifest says"),
        (lambda path: flip(path / "state.json"), "state.json has .* the manifest says"),
        (lambda path: shutil.rmtree(path) or path.write_text("a file"), ""),
    ],
    ids=[
        "no manifest",
        "cut manifest",
        "wrong manifest",
        "other format",
        "empty manifest",
        "missing tensors",
        "cut tensors",
        "changed tensors",
        "changed scalars",
        "not a directory",
    ],
)
def test_a_damaged_newest_checkpoint_falls_back_with_a_warning(tmp_path, caplog, damage, reason):
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    with caplog.at_level(logging.WARNING):
        assert load_newest(tmp_path).scalars["env_step"] == 1
    (record,) = caplog.records
    assert "step_000000000002 is damaged" in record.getMessage()
    assert re.search(reason, record.getMessage())


@pytest.mark.parametrize("has_damaged", [False, True])
def test_no_whole_checkpoint_is_refused(tmp_path, has_damaged):
    if has_damaged:
        flip(save(tmp_path, 1) / "state.json")
    with pytest.raises(
        CheckpointError, match=rf"no checkpoint in .* loads \({int(has_damaged)} found.*start a new run"
    ) as raised:
        load_newest(tmp_path)
    assert raised.value.exit_code == EXIT_REFUSED


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="0 found"):
        load_newest(tmp_path / "checkpoints")
