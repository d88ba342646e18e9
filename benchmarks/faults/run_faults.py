"""Faults of a whole run: ``hdqnn train`` with Ray, QPU workers, evaluator and a server, its processes killed in turn.

The run reaches its server through the fault proxy, whose ledger says what was acknowledged; the harness plays systemd
for the server, and the person who types ``hdqnn resume`` for the learner.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks.faults.processes import descendants, process_title
from benchmarks.faults.proxy import FaultProxy
from benchmarks.faults.replay_faults import compare
from benchmarks.faults.wire_ledger import Acknowledged, SegmentId, WireLedger
from replay.codec import read_head
from replay.embedded_server import EmbeddedServer
from replay.redis_session import RedisSession

ARGUMENTS = [
    *("train", "smoke", "--run-dir", "run", "--total-steps", "1000000000", "--num-threads", "1"),
    *("--policy.circuit.num-qubits", "3", "--policy.circuit.num-layers", "2", "--policy.hidden-size", "16"),
    *("--surrogate.num-tiny-batches", "1", "--surrogate.tiny-batch-size", "16", "--td3.batch-size", "16"),
    *("--td3.updates-per-step", "0.1", "--replay.slack-steps", "400", "--replay.capacity", "1000000"),
    *("--actors.num-actors", "2", "--qpu.num-workers", "2", "--checkpoint.period-s", "3"),
    *("--evaluation.period-steps", "500", "--evaluation.num-episodes", "1"),
]
"""A run so small that its processes, not its numbers, are what is measured."""

VICTIMS = {
    "run-kill-actor": ("ray::RolloutWorker", "kill -9 of an actor's process"),
    "run-kill-qpu": ("ray::QPUActor", "kill -9 of a QPU worker"),
    "run-kill-evaluator": ("ray::TestWorker", "kill -9 of the evaluator"),
    "run-kill-board": ("ray::ParameterBoard", "kill -9 of the parameter board"),
}
_BASELINE_S = 2.0
_PATIENCE_S = 120.0
_LOOK_PERIOD_S = 0.05


@dataclass(slots=True)
class TrainingRun:
    """A real run in a directory of its own; use ``start``."""

    directory: Path
    server: EmbeddedServer
    proxy: FaultProxy
    ledger: WireLedger
    process: subprocess.Popen[bytes] | None = None
    num_starts: int = 0
    logs: list[Path] = field(default_factory=list)

    def launch(self, arguments: list[str]) -> None:
        """Start ``hdqnn``."""
        outside = ("QPU_BACKEND", "QPU_DEVICE")
        environment = {name: value for name, value in os.environ.items() if name not in outside}
        password = urlsplit(self.server.url).password
        environment["REDIS_URL"] = f"redis://:{password}@127.0.0.1:{self.proxy.port}/0"
        environment["RAY_ADDRESS"] = "local"
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        self.logs.append(self.directory / f"log-{len(self.logs)}")
        with self.logs[-1].open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cluster", *arguments],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def pids(self, title: str) -> list[int]:
        """Processes of this run with this title."""
        own = [] if self.process is None else [self.process.pid, *descendants(self.process.pid)]
        return [pid for pid in own if title in process_title(pid) and "gcs_server" not in process_title(pid)]

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait.

        Raises:
            TimeoutError: if it never happens, with the end of the run's log.
        """
        started_s = time.monotonic()
        while not is_so():
            is_late = time.monotonic() - started_s > _PATIENCE_S
            if is_late or (self.process is not None and self.process.poll() is not None):
                raise TimeoutError(f"{what} has not come; the log ends: {self.logs[-1].read_text()[-2000:]}")
            time.sleep(_LOOK_PERIOD_S)

    def acknowledged(self, since: int = 0) -> list[Acknowledged]:
        """Answered inserts from the given number of them on."""
        return self.ledger.acknowledged()[since:]

    def stored(self) -> list[SegmentId]:
        """Every segment on the server, read past the proxy."""
        run_id = (self.directory / "run" / "run_id").read_text().strip()
        key = f"hdqnn:{{{run_id}}}"
        with contextlib.closing(RedisSession(self.server.url, deadline_s=10.0)) as session:
            counters = session.call(lambda client: client.hgetall(f"{key}:counters"))
            first, after = int(counters.get(b"oldest_index", 0)), int(counters[b"next_index"])
            frames = session.call(lambda client: client.mget([f"{key}:segment:{i}" for i in range(first, after)]))
        heads = [read_head(frame) for frame in frames]
        return [SegmentId(head.actor_id, head.incarnation, head.sequence) for head in heads]

    def end_by_killing(self, pid: int) -> None:
        """Kill -9 of the driver, or of a process that takes it along; the others find out and end."""
        if self.process is None:
            return
        own = descendants(self.process.pid)
        os.kill(pid, signal.SIGKILL)
        self.process.wait(_PATIENCE_S)
        self.process = None
        started_s = time.monotonic()
        while any(_is_ours(pid) for pid in own) and time.monotonic() - started_s < _PATIENCE_S:
            time.sleep(_LOOK_PERIOD_S)
        # Ray 2.60 leaves two idle agents of its own behind for good.
        _kill_all(own)

    def close(self) -> None:
        """End everything; calling it twice is fine."""
        if self.process is not None:
            _kill_all([self.process.pid, *descendants(self.process.pid)])
            self.process.wait()
            self.process = None
        self.proxy.close()
        self.server.stop()


@contextlib.contextmanager
def start_run(directory: Path) -> Iterator[TrainingRun]:
    """A run that trains, has been tested, and has a checkpoint."""
    server = EmbeddedServer.start(directory / "server")
    ledger = WireLedger()
    run = TrainingRun(directory, server, FaultProxy("127.0.0.1", urlsplit(server.url).port or 0, ledger), ledger)
    try:
        run.launch(ARGUMENTS)
        files = directory / "run"
        run.wait_until(lambda: len(list((files / "checkpoints").glob("step_*"))) > 0, "the first checkpoint")
        run.wait_until(lambda: (files / "evaluations.jsonl").stat().st_size > 0, "the first test round")
        yield run
    finally:
        run.close()


def measure_victim(run: TrainingRun, name: str, *, repeats: int, window_s: float) -> dict[str, Any]:
    """Kill one process of a kind several times; keys as of ``replay_faults.measure``."""
    title, text = VICTIMS[name]

    def kill() -> Callable[[], bool]:
        victim = run.pids(title)[0]
        others = set(run.pids(title))
        before = {entry.segment[:2] for entry in run.acknowledged()}
        os.kill(victim, signal.SIGKILL)
        if name == "run-kill-actor":
            return lambda: any(entry.segment[:2] not in before for entry in run.acknowledged()[-100:])
        return lambda: bool(set(run.pids(title)) - others)

    return {"fault": text, **_measure(run, kill, repeats=repeats, window_s=window_s)}


def measure_server(run: TrainingRun, *, repeats: int, window_s: float) -> dict[str, Any]:
    """Kill the replay server under the run several times; keys as of ``replay_faults.measure``."""

    def kill() -> Callable[[], bool]:
        os.kill(run.server.pid, signal.SIGKILL)
        run.server.restart()
        first = len(run.acknowledged())
        return lambda: len(run.acknowledged()) > first

    result = _measure(run, kill, repeats=repeats, window_s=window_s)
    return {"fault": "kill -9 of the replay server under a run", **result}


def measure_learner(run: TrainingRun, *, repeats: int) -> dict[str, Any]:
    """Kill the learner, which is the driver, several times, and resume; keys as of ``replay_faults.measure``."""

    def kill() -> Callable[[], bool]:
        if run.process is not None:
            run.end_by_killing(run.process.pid)
        first = len(run.acknowledged())
        run.launch(["resume", "run"])
        return lambda: len(run.acknowledged()) > first

    result = _measure(run, kill, repeats=repeats, window_s=0.0)
    return {"fault": "kill -9 of the learner, hdqnn resume", **result}


def measure_node(run: TrainingRun, *, repeats: int) -> dict[str, Any]:
    """Kill the raylet of the only node, which ends the run, and resume; keys as of ``replay_faults.measure``."""

    def kill() -> Callable[[], bool]:
        run.end_by_killing(run.pids("/raylet/raylet ")[0])
        first = len(run.acknowledged())
        run.launch(["resume", "run"])
        return lambda: len(run.acknowledged()) > first

    result = _measure(run, kill, repeats=repeats, window_s=0.0)
    return {"fault": "kill -9 of the only Ray node's raylet, hdqnn resume", **result}


def _measure(
    run: TrainingRun, kill: Callable[[], Callable[[], bool]], *, repeats: int, window_s: float
) -> dict[str, Any]:
    first, recoveries_s, lost_shares = len(run.acknowledged()), [], []
    for _ in range(repeats):
        time.sleep(_BASELINE_S)
        broken_s = time.monotonic()
        rate = _steps_between(run, broken_s - _BASELINE_S, broken_s) / _BASELINE_S
        run.wait_until(kill(), "recovery")
        recoveries_s.append(time.monotonic() - broken_s)
        time.sleep(max(0.0, broken_s + window_s - time.monotonic()))
        seen_s = max(window_s, recoveries_s[-1])
        lost_shares.append(1.0 - _steps_between(run, broken_s, broken_s + seen_s) / max(rate * seen_s, 1.0))
    acknowledged = {entry.segment for entry in run.acknowledged(first)}
    return {
        "repeats": float(repeats),
        **compare(acknowledged, run.stored(), set()),
        "recovery_p50_s": float(np.percentile(recoveries_s, 50)),
        "recovery_p95_s": float(np.percentile(recoveries_s, 95)),
        "window_s": window_s,
        "throughput_lost_percent": 100.0 * max(0.0, float(np.mean(lost_shares))),
    }


def _steps_between(run: TrainingRun, start_s: float, end_s: float) -> int:
    return sum(entry.steps for entry in run.acknowledged() if start_s < entry.at_s <= end_s)


def _is_ours(pid: int) -> bool:
    """Whether a process does a part of the run's work."""
    title = process_title(pid)
    return title.startswith("ray::") and not title.endswith("Agent")


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
