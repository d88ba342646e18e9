import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest

from cluster.errors import ClusterUnreachableError, ConfigError
from cluster.head_tunnel import HeadTunnel, load_cluster_file

CLUSTER = "provider: {type: local, head_ip: h}\nfile_mounts: {~/hdqnn-rl/pyproject.toml: pyproject.toml}\n"

# Behaves as ray's launcher commands do, driven by files beside it.
FAKE_RAY = """#!/bin/sh
here=$(dirname "$0")
test -f "$here/broken" && { echo "Head node of cluster (x) not found!"; exit 1; }
case $1 in
  get-head-ip) echo noise; echo 10.0.0.1;;
  rsync-down) test "$3" = "~/.ray/auth_token" && cp "$here/token" "$4";;
  dashboard) echo $$ >> "$here/tunnels"; exec python3 -m http.server --bind 127.0.0.1 "$4";;
esac
"""


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    for name, text in (("ray", FAKE_RAY), ("ssh", ""), ("rsync", "")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "token").write_text("secret\n")
    return tmp_path


@pytest.fixture
def tunnel(place):
    made = HeadTunnel(place / "cluster.yaml", ray=str(place / "ray"))
    yield made
    made.close()


def connects(url: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rsplit(":", 1)[1]))) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot read .*c\.yaml \(No such file or directory\): expected a cluster file"),
        ("a: [", "is not YAML"),
        ("a: 1", "is no cluster file: expected a mapping with provider.type"),
        ("provider: {type: local, head_ip: replace-with-head-address}", "edit the lines marked EDIT"),
        ("provider: {type: aws}", "does not ship this project"),
    ],
)
def test_file_that_cannot_be_used_says_why(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_cluster_file(path)


@pytest.mark.parametrize("program", ["ssh", "rsync"])
def test_missing_program_is_named(place, monkeypatch, program):
    (place / program).unlink()
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(ConfigError, match=f"{program} is missing on this machine"):
        HeadTunnel(place / "cluster.yaml", ray=str(place / "ray"))


def test_cluster_that_is_up_gives_its_head_and_token(tunnel):
    assert tunnel.check_is_up() == "10.0.0.1"
    assert tunnel.fetch_token() == "secret"


def test_cluster_that_is_down_says_which_command_starts_it(place, tunnel):
    (place / "broken").touch()
    with pytest.raises(ConfigError, match=r"(?s)is not up.*run `ray up .*cluster\.yaml` first.*Head node.*not found"):
        tunnel.check_is_up()
    with pytest.raises(ConfigError, match="no authentication token came from the head node"):
        tunnel.fetch_token()


def test_tunnel_is_kept_while_it_lives_and_opened_again_when_it_died(place, tunnel):
    async def use() -> None:
        first = await tunnel.url()
        assert connects(first)
        assert await tunnel.url() == first
        os.kill(int((place / "tunnels").read_text()), signal.SIGKILL)
        tunnel._process.wait(10)
        second = await tunnel.url()
        assert connects(second)
        tunnel.close()
        assert not connects(second)

    asyncio.run(use())
    assert len((place / "tunnels").read_text().splitlines()) == 2


def test_tunnel_that_cannot_be_opened_shows_what_ray_said(place, tunnel):
    (place / "broken").touch()
    with pytest.raises(ClusterUnreachableError, match=r"(?s)no ssh tunnel to the head node.*not found"):
        asyncio.run(tunnel.url())
