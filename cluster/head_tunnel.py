"""The way from this machine to the head node of a cluster that `ray up` made. The one module that runs programs.

Everything goes through Ray's own launcher commands, which know the machine's address, user and key; they go over ssh,
so that no port of the cluster but ssh has to be open.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import yaml

from cluster.errors import ClusterUnreachableError, ConfigError

REMOTE_PROJECT = "~/hdqnn-rl"
_DASHBOARD_PORT = 8265
_COMMAND_TIMEOUT_S = 180.0
_TUNNEL_TIMEOUT_S = 90.0
_PLACEHOLDER = "replace-with-"


def load_cluster_file(path: Path) -> Mapping[str, Any]:
    """Read and check a cluster file.

    Args:
        path: YAML for `ray up`.

    Returns:
        Its content.

    Raises:
        ConfigError: if it is missing, is no cluster file, still has a placeholder, or lacks what submitting needs.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}): expected a cluster file such as cluster/aws.yaml, "
            "or the http:// address of a Ray dashboard"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(config, dict) or "type" not in (config.get("provider") or {}):
        raise ConfigError(f"{path} is no cluster file: expected a mapping with provider.type; see cluster/aws.yaml")
    if _PLACEHOLDER in str(config):
        raise ConfigError(
            f"{path} still has a value '{_PLACEHOLDER}…': edit the lines marked EDIT, then `ray up {path}`"
        )
    if f"{REMOTE_PROJECT}/pyproject.toml" not in (config.get("file_mounts") or {}):
        raise ConfigError(
            f"{path} does not ship this project: expected file_mounts to {REMOTE_PROJECT}; see cluster/aws.yaml"
        )
    return config


def ray_program() -> str:
    """Path of the ray command of this environment.

    Raises:
        ConfigError: if there is none.
    """
    beside_python = Path(sys.executable).with_name("ray")
    program = str(beside_python) if beside_python.exists() else shutil.which("ray")
    if program is None:
        raise ConfigError("the ray command is missing: expected it beside this Python; run `make setup`")
    return program


class HeadTunnel:
    """An ssh tunnel to the dashboard of a cluster's head node, opened when needed and again when it broke."""

    def __init__(
        self,
        cluster_file: Path,
        *,
        ray: str | None = None,
        dashboard_port: int = _DASHBOARD_PORT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Check that this machine can do it; connects to nothing yet.

        Args:
            cluster_file: YAML that `ray up` was run with.
            ray: path of the ray command; default: of this environment.
            dashboard_port: port of the dashboard on the head node.
            clock: monotonic seconds.

        Raises:
            ConfigError: if the file or a program is missing.
        """
        config = load_cluster_file(cluster_file)
        for program in ("ssh", "rsync"):
            if shutil.which(program) is None:
                raise ConfigError(
                    f"{program} is missing on this machine: Ray's launcher needs ssh and rsync; install them"
                )
        if config["provider"]["type"] == "aws" and importlib.util.find_spec("boto3") is None:
            raise ConfigError("boto3 is missing: Ray's launcher needs it for AWS; `pip install boto3`")
        self._file = cluster_file
        self._ray = ray or ray_program()
        self._dashboard_port = dashboard_port
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self._url = ""

    def check_is_up(self) -> str:
        """Address of the head node.

        Raises:
            ConfigError: if the cluster is not up.
        """
        result = self._run_ray("get-head-ip", str(self._file))
        if result.returncode != 0:
            raise ConfigError(
                f"the cluster of {self._file} is not up, or this machine cannot see it: run `ray up {self._file}` first"
                f"\n{_last_lines(result.stdout)}"
            )
        return result.stdout.strip().splitlines()[-1]

    def fetch_token(self) -> str:
        """Ray's authentication token, read from the head node over ssh and kept in memory only.

        Raises:
            ConfigError: if the head node cannot be reached or has no token.
        """
        with tempfile.TemporaryDirectory(prefix="hdqnn-") as private:
            target = Path(private) / "auth_token"
            result = self._run_ray("rsync-down", str(self._file), "~/.ray/auth_token", str(target))
            if result.returncode != 0 or not target.exists():
                raise ConfigError(
                    f"no authentication token came from the head node: expected ~/.ray/auth_token there, which "
                    f"`ray up {self._file}` makes\n{_last_lines(result.stdout)}"
                )
            return target.read_text(encoding="utf-8").strip()

    async def url(self) -> str:
        """Address of the dashboard, on this machine."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            await self._open()
        return self._url

    def close(self) -> None:
        """End the tunnel."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
            self._process = None
        if self._output is not None:
            self._output.close()
            self._output = None

    async def _open(self) -> None:
        port = _free_port()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the tunnel; closed by close()
        # A session of its own: Ctrl-C in this terminal is for the follower, and close() ends ray and its ssh together.
        # An open stdin: ssh -tt would end the remote side at its end of file.
        self._process = subprocess.Popen(
            [self._ray, "dashboard", str(self._file), "--port", str(port), "--remote-port", str(self._dashboard_port)],
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = self._clock() + _TUNNEL_TIMEOUT_S
        while not _accepts(port):
            if self._process.poll() is not None or self._clock() > deadline:
                self._output.seek(0)
                text = self._output.read().decode(errors="replace")
                self.close()
                raise ClusterUnreachableError(f"no ssh tunnel to the head node\n{_last_lines(text)}")
            await asyncio.sleep(0.2)
        self._url = f"http://127.0.0.1:{port}"

    def _run_ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [self._ray, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ConfigError(
                f"`ray {arguments[0]}` gave no answer in {_COMMAND_TIMEOUT_S:.0f} s: is the head node's ssh reachable?"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _last_lines(text: str, count: int = 6) -> str:
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-count:])
