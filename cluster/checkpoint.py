"""Checkpoints on disk: whole or absent. Weights as safetensors, everything else as JSON.

A checkpoint is a directory, written under a temporary name, synced, renamed; its manifest (sizes and
SHA-256 of every file) is written last, so a directory without a valid manifest is not a checkpoint.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cluster.errors import CheckpointError

_log = logging.getLogger(__name__)
_FORMAT = 1
_PREFIX = "step_"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One loaded checkpoint."""

    path: Path
    tensors: dict[str, dict[str, torch.Tensor]]
    """Group name (learner, rollout, …) → tensor name → tensor."""
    scalars: dict[str, Any]
    """Everything else, as JSON."""


def save_checkpoint(
    directory: Path,
    env_step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    scalars: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write one checkpoint atomically and remove all but the newest ``keep``.

    Raises:
        OSError: if the disk is full or not writable; older checkpoints are untouched then.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for stale in directory.glob(f".{_PREFIX}*"):
        shutil.rmtree(stale)
    final = _new_name(directory, env_step)
    temporary = directory / f".{final.name}"
    temporary.mkdir()
    try:
        for group, named in tensors.items():
            _save_tensors(named, temporary / f"{group}.safetensors")
        (temporary / "state.json").write_text(json.dumps(dict(scalars)))
        files = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
        _sync(temporary)
        (temporary / "manifest.json").write_text(json.dumps({"format": _FORMAT, "files": files}, indent=1))
        _sync(temporary)
        temporary.rename(final)
        _sync_directory(directory)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    # A damaged one may claim a later step than the one that was just written, which is never removed.
    for old in [path for path in _by_age(directory) if path != final][keep - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def has_checkpoints(directory: Path) -> bool:
    """Whether any was ever finished here, whole or damaged by now."""
    return bool(_by_age(directory))


def load_newest(directory: Path) -> Checkpoint:
    """Load the newest checkpoint that is whole; broken ones are skipped with a warning.

    Raises:
        CheckpointError: if there is none.
    """
    candidates = _by_age(directory)
    for path in candidates:
        try:
            return _load(path)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            _log.warning("checkpoint %s is damaged (%s); trying the one before it", path, error)
    raise CheckpointError(
        f"no checkpoint in {directory} loads ({len(candidates)} found, expected at least one whole one); "
        "bring one back from a copy of the run, or start a new run"
    )


def _load(path: Path) -> Checkpoint:
    manifest = json.loads((path / "manifest.json").read_text())
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']}, expected {_FORMAT}")
    if "state.json" not in manifest["files"]:
        raise ValueError("the manifest does not list state.json")
    for name, expected in manifest["files"].items():
        found = _describe(path / name)
        if found != expected:
            raise ValueError(f"{name} has {found}, the manifest says {expected}")
    tensors = {Path(name).stem: load_file(path / name) for name in manifest["files"] if name.endswith(".safetensors")}
    return Checkpoint(path, tensors, json.loads((path / "state.json").read_text()))


def _new_name(directory: Path, env_step: int) -> Path:
    """A name that sorts after every checkpoint of this step: replacing one would leave a moment with neither."""
    name = f"{_PREFIX}{env_step:012d}"
    earlier = sorted(path.name for path in directory.glob(f"{name}*"))
    if not earlier:
        return directory / name
    return directory / f"{name}.{int(earlier[-1].removeprefix(name).removeprefix('.') or 0) + 1:03d}"


def _save_tensors(named: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        save_file(dict(named), path)
    except SafetensorError as error:
        # What safetensors makes of a full disk, for tensors that are fine.
        raise OSError(f"cannot write {path.name}: {error}") from error


def _by_age(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{_PREFIX}*"), reverse=True)


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _sync(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_directory(directory)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
