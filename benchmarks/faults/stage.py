"""Two actors, a learner and a replay server as real processes, with a fault proxy between, for faults to be made on.

The stage plays the supervisor: what dies is started again at once, as ``cluster`` does in a run.
"""

import contextlib
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from benchmarks.faults.process import CAPACITY, RUN, SPEC, URL, make_segment
from benchmarks.faults.proxy import FaultProxy
from benchmarks.faults.wire_ledger import Acknowledged, SegmentId, WireLedger
from replay.codec import decode_segment
from replay.embedded_server import EmbeddedServer, find_server_binary
from replay.redis_dataset import RedisDataset
from replay.redis_session import RedisSession

_LOOK_PERIOD_S = 0.005
_PATIENCE_S = 90.0
_FETCH = 500


@dataclass(slots=True)
class Stage:
    """Everything of one replay that can break; use as a context manager."""

    directory: Path
    server: EmbeddedServer
    proxy: FaultProxy
    ledger: WireLedger
    run_id: str = "faults"
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def start(cls, directory: Path, *, num_actors: int = 2) -> Self:
        """Start all processes and wait until transitions are sampled."""
        with _told_about_full_disks(directory):
            server = EmbeddedServer.start(directory / "server")
        address = urlsplit(server.url)
        ledger = WireLedger()
        proxy = FaultProxy("127.0.0.1", address.port or 0, ledger)
        stage = cls(directory, server, proxy, ledger)
        try:
            stage.start_process("learner")
            for actor_id in range(num_actors):
                stage.start_process(f"actor {actor_id}")
            stage.wait_until(lambda: bool(stage.sampled()), "anything to be sampled")
            # One that connects to an emptied server for the first time has lost nothing and makes a new data set.
            stage.wait_until(
                lambda: len({entry.segment.actor_id for entry in stage.acknowledged()}) == num_actors,
                "every actor to have inserted",
            )
        except BaseException:
            stage.close()
            raise
        return stage

    @property
    def samples(self) -> Path:
        """What the learner sampled, see ``process.learn``."""
        return self.directory / "sampled.txt"

    def start_process(self, name: str) -> None:
        """Start "learner" or "actor N" (again)."""
        arguments = ["learn", str(self.samples)] if name == "learner" else ["write", name.removeprefix("actor ")]
        password = urlsplit(self.server.url).password
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            URL: f"redis://:{password}@127.0.0.1:{self.proxy.port}/0",
            RUN: self.run_id,
        }
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.faults.process", *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """Kill -9, then what a supervisor does."""
        self.processes[name].kill()
        self.processes[name].wait()
        self.start_process(name)

    def kill_server(self) -> None:
        """Kill -9 of the server, which is then started again on what its append-only file holds."""
        os.kill(self.server.pid, signal.SIGKILL)
        with _told_about_full_disks(self.directory):
            self.server.restart()

    def freeze_server(self, seconds: float) -> None:
        """SIGSTOP, as a host that swaps or a virtual machine that is moved."""
        os.kill(self.server.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(self.server.pid, signal.SIGCONT)

    def fill_disk(self, seconds: float) -> None:
        """No file of the server may grow for some time, which is what a full disk is to its append-only file."""
        largest = max(path.stat().st_size for path in self.server.directory.rglob("*.aof"))
        try:
            resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (largest + 1_000, resource.RLIM_INFINITY))
            time.sleep(seconds)
        finally:
            resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def session(self) -> RedisSession:
        """A connection past the proxy."""
        return RedisSession(self.server.url, deadline_s=10.0)

    def stored(self) -> list[SegmentId]:
        """Every segment on the server, read past the proxy and checked number by number.

        Raises:
            ValueError: if a stored segment is not what its actor had sent.
        """
        session = self.session()
        with contextlib.closing(session):
            dataset = RedisDataset(session, self.run_id, SPEC, capacity=CAPACITY)
            ring = session.call(dataset.read())
            found = []
            for start in range(ring.oldest_index, ring.next_index, _FETCH):
                keys = [f"{dataset.segment_prefix}{i}" for i in range(start, min(start + _FETCH, ring.next_index))]
                for frame in session.call(lambda client, keys=keys: client.mget(keys)):  # type: ignore[misc]
                    segment = decode_segment(frame, SPEC, self.run_id)
                    identity = SegmentId(segment.actor_id, segment.incarnation, segment.sequence)
                    if (segment.observations != make_segment(*identity).observations).any():
                        raise ValueError(f"segment {identity} was changed on its way into the replay")
                    found.append(identity)
        return found

    def acknowledged(self, since: int = 0) -> list[Acknowledged]:
        """Answered inserts from the given number of them on."""
        return self.ledger.acknowledged()[since:]

    def sampled(self) -> list[SegmentId]:
        """Segments that a sample touched; a learner that started over may report one again."""
        if not self.samples.exists():
            return []
        lines = [line.split() for line in self.samples.read_text().splitlines()]
        return [SegmentId(*map(int, line)) for line in lines if len(line) == 3]

    def stop_actors(self) -> None:
        """End the actors."""
        for name in [name for name in self.processes if name != "learner"]:
            process = self.processes.pop(name)
            process.kill()
            process.wait()

    def stop_learner(self) -> int:
        """Let the learner read everything and end; returns the number of transitions that it holds."""
        learner = self.processes.pop("learner")
        learner.terminate()
        learner.wait(_PATIENCE_S)
        last = self.samples.read_text().splitlines()[-1].split()
        return int(last[1]) if last[0] == "held" else -1

    def wait_until(self, is_so: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> float:
        """Wait; returns how long it took, s.

        Raises:
            TimeoutError: if it never happens, with the ends of the processes' logs.
        """
        started_s = time.monotonic()
        while not is_so():
            if time.monotonic() - started_s > patience_s:
                logs = "\n".join(f"{path.name}: {path.read_text()[-500:]}" for path in self.directory.glob("*.log"))
                raise TimeoutError(f"waited {patience_s:.0f} s for {what}; the logs end:\n{logs}")
            time.sleep(_LOOK_PERIOD_S)
        return time.monotonic() - started_s

    def close(self) -> None:
        """End everything; calling it twice is fine."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.processes.clear()
        self.proxy.close()
        self.server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def _told_about_full_disks(directory: Path) -> Iterator[None]:
    """Servers started here get an error at a file size limit, as on a full disk, where they else got a signal."""
    wrapper = directory / "bin" / "valkey-server"
    if not wrapper.exists():
        wrapper.parent.mkdir()
        wrapper.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {shlex.quote(str(find_server_binary()))} \"$@\"\n")
        wrapper.chmod(0o700)
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{wrapper.parent}{os.pathsep}{path}"
    try:
        yield
    finally:
        os.environ["PATH"] = path
