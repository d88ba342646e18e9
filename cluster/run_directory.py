"""What a run leaves behind, and where.

runs/<name>/ config.yaml  metrics.jsonl  evaluations.jsonl  curve.png  tensorboard/  checkpoints/  replay/
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cluster.config import RunConfig, read_config, write_config
from cluster.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """Paths of one run."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per logging period."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """One JSON object per test round."""
        return self.path / "evaluations.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, newest last."""
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        """Data of the embedded server, or the journal of a synchronous run."""
        return self.path / "replay"

    @property
    def run_id(self) -> Path:
        """Names the run's keys on replay servers that several runs may share; fixed when the run first starts."""
        return self.path / "run_id"

    def identity(self) -> str:
        """Names this directory in words: the same for every process that trains in it, another one for a copy."""
        status = self.path.stat()
        return f"{self.path.resolve()} on {socket.gethostname()} ({status.st_dev}:{status.st_ino})"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard events."""
        return self.path / "tensorboard"

    @property
    def curve(self) -> Path:
        """Picture of the returns."""
        return self.path / "curve.png"


def create_run_directory(config: RunConfig, preset: str) -> RunDirectory:
    """Make the directory of a new run and write its configuration.

    Raises:
        ConfigError: if the directory exists already; nothing of it is touched.
    """
    run = make_run_directory(config.run_dir, f"{preset}-{datetime.now(UTC):%Y%m%d-%H%M%S}-s{config.seed}")
    write_config(config, run.config)
    return run


def make_run_directory(chosen: Path | None, default_name: str) -> RunDirectory:
    """Make a new, empty directory: the one that was asked for, else one under runs/.

    Raises:
        ConfigError: if it exists already or cannot be made.
    """
    path = chosen or Path("runs") / default_name
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(
            f"the run directory {path} exists already; expected a new one. Go on with it with "
            f"`hdqnn resume {path}`, or choose another --run-dir"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {path}: {error}") from error
    return RunDirectory(path)


def open_run_directory(path: Path) -> tuple[RunDirectory, RunConfig]:
    """Open an existing run.

    Raises:
        ConfigError: if there is no run at this path.
    """
    run = RunDirectory(path)
    if not run.config.is_file():
        raise ConfigError(f"{path} is not a run directory: it has no config.yaml; `ls runs/` lists the runs made here")
    return run, read_config(run.config)


@contextmanager
def lock_run(run: RunDirectory) -> Iterator[None]:
    """Keep other processes from training in this directory; the lock dies with this process.

    Raises:
        ConfigError: if another process trains here.
    """
    with (run.path / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ConfigError(
                f"process {lock.read().strip()} is training in {run.path}; expected nobody: wait for its end, or stop "
                "it with Ctrl-C"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a .jsonl file; a last line that was cut by a crash is left out."""
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        yield row


def drop_rows_after(path: Path, env_step: int) -> None:
    """Forget rows newer than the checkpoint that a run resumes from; on an error the file stays as it was."""
    if path.is_file():
        kept = [json.dumps(row) + "\n" for row in read_rows(path) if row["env_step"] <= env_step]
        temporary = path.with_name(f".{path.name}")
        temporary.write_text("".join(kept))
        temporary.replace(path)
