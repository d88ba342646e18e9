"""``hdqnn`` as people run it: a process of its own, in a directory of its own."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.faults.processes import descendants, process_title

ROOT = Path(__file__).parents[1]
SCRIPT = Path(sys.executable).with_name("hdqnn")
OUTSIDE = ("REDIS_URL", "QPU_BACKEND", "QPU_DEVICE", "RAY_ADDRESS")

TINY = [
    *("--policy.circuit.num-qubits", "3"),
    *("--policy.circuit.num-layers", "2"),
    *("--policy.hidden-size", "16"),
    *("--td3.batch-size", "16"),
    *("--critic.hidden-size", "16"),
    *("--surrogate.num-tiny-batches", "1"),
    *("--surrogate.tiny-batch-size", "16"),
    *("--num-threads", "1"),
]
"""A policy and a learner so small that a run's time is its processes' starts."""


@dataclass
class Finished:
    """What a command left at the terminal."""

    code: int
    out: str
    err: str


@dataclass
class Command:
    """A running ``hdqnn``; leads a process group, as a command in a terminal does."""

    arguments: list[str]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self._out = (self.directory / f"out-{time.monotonic_ns()}").open("w+")
        self._err = (self.directory / f"err-{time.monotonic_ns()}").open("w+")
        self.process = subprocess.Popen(
            [str(SCRIPT), *map(str, self.arguments)],
            cwd=self.directory,
            env=clean_environment(**self.environment),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
            start_new_session=True,
        )

    @property
    def out(self):
        return Path(self._out.name).read_text()

    @property
    def err(self):
        return Path(self._err.name).read_text()

    def wait(self, timeout_s=240.0):
        code = self.process.wait(timeout_s)
        self._out.close()
        self._err.close()
        return Finished(code, self.out, self.err)

    def wait_until(self, is_so, timeout_s=240.0):
        """Until ``is_so()`` is true, while the command runs."""
        deadline_s = time.monotonic() + timeout_s
        while not is_so():
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.out}\n{self.err}"
            assert time.monotonic() < deadline_s, f"still waiting after {timeout_s} s:\n{self.out}\n{self.err}"
            time.sleep(0.05)

    def press_ctrl_c(self):
        """SIGINT to the whole group, as a terminal sends it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # First the one that would start the others again.
        for pid in [self.process.pid, *descendants(self.process.pid), *replay_servers(self.directory)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def hdqnn(*arguments, directory, timeout_s=240.0, **environment):
    """Run ``hdqnn`` to its end."""
    with Command(list(arguments), Path(directory), environment) as command:
        return command.wait(timeout_s)


def clean_environment(**changes):
    """This process's environment without what would point a run elsewhere; every run starts a Ray of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in OUTSIDE}
    return {**environment, "RAY_ADDRESS": "local", "PYTHONPATH": str(ROOT), **changes}


def replay_servers(directory):
    """Process ids of the replay servers of the runs below a directory; they are nobody's children."""
    pids = [int(lock.read_text() or 0) for lock in directory.rglob("server.lock")]
    return [pid for pid in pids if "-server" in process_title(pid)]
