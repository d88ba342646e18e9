"""Which Ray a run joins, and that a wrong address is refused at once."""

import socket
import subprocess
import sys

import pytest

from cluster.errors import EXIT_REFUSED, ClusterUnreachableError
from cluster.ray_address import existing_address


@pytest.fixture
def listening():
    """host:port on which somebody accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def silent():
    """host:port on which nobody does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """The file in which ``ray start`` leaves the address of this node's cluster."""
    path = tmp_path / "ray_current_cluster"
    monkeypatch.setattr("cluster.ray_address.CURRENT_CLUSTER", path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return path


def test_nothing_set_and_nothing_running_starts_an_own_ray(recorded):
    assert existing_address() is None


def test_the_ray_of_this_node_is_joined_while_it_lives(recorded, listening, silent):
    recorded.write_text(f"{listening}\n")
    assert existing_address() == listening
    recorded.write_text(silent)
    assert existing_address() is None
    recorded.write_text("rubbish")
    assert existing_address() is None


@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_ray_address_wins(recorded, listening, monkeypatch, prefix):
    recorded.write_text("127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", f"{prefix}{listening}")
    assert existing_address() == f"{prefix}{listening}"


def test_auto_means_the_ray_of_this_node(recorded, listening, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterUnreachableError, match="cluster at auto: no Ray runs on this node"):
        existing_address()
    recorded.write_text(listening)
    assert existing_address() == listening


def test_local_starts_an_own_ray_beside_a_running_one(recorded, listening, monkeypatch):
    recorded.write_text(listening)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert existing_address() is None


def test_an_address_where_nobody_listens_is_refused(recorded, silent, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", silent)
    with pytest.raises(ClusterUnreachableError, match=f"cluster at {silent}: .*refused.*unset RAY_ADDRESS") as raised:
        existing_address()
    assert raised.value.exit_code == EXIT_REFUSED


@pytest.mark.parametrize("address", ["head", "head:port", ":", "::::"])
def test_what_is_not_an_address_is_refused(recorded, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterUnreachableError, match=r"is not host:port.*Expected RAY_ADDRESS to be host:port"):
        existing_address()


def test_checking_an_address_does_not_import_ray():
    code = "import cluster.ray_address, sys; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
