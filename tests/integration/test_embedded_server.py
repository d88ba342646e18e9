import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from replay.embedded_server import EmbeddedServer, find_or_start
from replay.errors import ReplayConfigError, ReplayError, ReplayUnreachableError
from replay.file_sync import FileSync

pytestmark = pytest.mark.redis


def connect(server: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def is_alive(pid: int) -> bool:
    """Zombies, which nobody may have reaped, do not count."""
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_settings_that_matter(tmp_path):
    with EmbeddedServer.start(tmp_path, maxmemory_bytes=50_000_000) as server, connect(server) as client:
        assert server.is_running()
        settings = client.config_get("*")
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["maxmemory"] == "50000000"
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "no"
        assert settings["save"] == ""
        assert settings["bind"] == "127.0.0.1"
        assert settings["port"] != "6379"
    assert not server.is_running()
    server.stop()


def test_what_was_acknowledged_a_moment_before_kill_9_is_there(tmp_path):
    """A server that syncs its file itself loses it in one of fifteen kills on a busy disk: false negatives happen."""
    for number in range(8):
        with EmbeddedServer.start(tmp_path / str(number)) as server, connect(server) as client:
            for step in range(4):
                client.set("step", step)
            os.kill(server.pid, signal.SIGKILL)
            server.restart()
            assert connect(server).get("step") == b"3"


def test_the_file_is_brought_to_the_disk_while_the_server_lives(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr("replay.file_sync._sync", lambda path: synced.append(path.name))
    sync = FileSync(tmp_path, period_s=0.02)
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.1.incr.aof").write_bytes(b"x")
    deadline_s = time.monotonic() + 5
    while len(synced) < 3:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    sync.stop()
    before = len(synced)
    time.sleep(0.1)
    assert len(synced) == before
    assert set(synced) == {"appendonly.aof.1.incr.aof"}
    sync.stop()


def test_password_is_needed_and_is_nowhere_to_read(tmp_path):
    with EmbeddedServer.start(tmp_path) as server:
        password = server.url.split(":")[2].split("@")[0]
        assert len(password) >= 32
        assert password not in repr(server)
        with open(f"/proc/{server.pid}/cmdline") as arguments:
            assert password not in arguments.read()
        assert stat.S_IMODE((tmp_path / "server.conf").stat().st_mode) == 0o600
        port = connect(server).connection_pool.connection_kwargs["port"]
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_start_recovers_the_data(tmp_path, ending):
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        for index in range(500):
            client.set(f"key:{index}", os.urandom(1000))
        last = client.get("key:499")
        os.kill(server.pid, ending)
        deadline_s = time.monotonic() + 10
        while server.is_running() and time.monotonic() < deadline_s:
            time.sleep(0.01)
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        assert client.dbsize() == 500
        assert client.get("key:499") == last


def test_restart_keeps_address_and_password(tmp_path):
    with EmbeddedServer.start(tmp_path) as server:
        client = connect(server)
        client.set("key", "value")
        old_pid = server.pid
        os.kill(old_pid, signal.SIGKILL)
        server.restart()
        assert server.pid != old_pid
        assert client.get("key") == b"value"


def test_a_truncated_tail_is_dropped(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        client.set("whole", "1")
        client.set("cut", "x" * 1000)
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 500)
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        assert client.keys() == [b"whole"]


def test_damaged_data_say_so(tmp_path):
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        for index in range(10):
            client.set(f"key:{index}", "x" * 100)
    (log,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(log.read_bytes().replace(b"$5\r\nkey:4", b"?????????"))
    with pytest.raises(ReplayError, match=r"exited while starting in .*Bad file format"):
        EmbeddedServer.start(tmp_path)
    # The failed start let go of the directory.
    log.unlink()
    (tmp_path / "appendonlydir").rename(tmp_path / "old")
    EmbeddedServer.start(tmp_path).stop()


def test_one_run_per_directory(tmp_path):
    with EmbeddedServer.start(tmp_path), pytest.raises(ReplayConfigError) as caught:
        EmbeddedServer.start(tmp_path)
    for part in [f"process {os.getpid()} already runs", str(tmp_path), "another directory"]:
        assert part in str(caught.value)


def test_the_server_of_a_killed_run_is_taken_over(tmp_path):
    code = (
        "import sys, os, pathlib, redis\n"
        "from replay.embedded_server import EmbeddedServer\n"
        "server = EmbeddedServer.start(pathlib.Path(sys.argv[1]))\n"
        "redis.Redis.from_url(server.url).set('key', 'value')\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    orphan = int(run.stdout)
    assert is_alive(orphan)
    with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
        assert client.get("key") == b"value"
        assert not is_alive(orphan)


def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path):
    with EmbeddedServer.start(tmp_path) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)


def test_it_is_no_descendant_of_the_run(tmp_path):
    """A job manager that ends a run with everything below it must leave the server until the run has saved."""
    with EmbeddedServer.start(tmp_path) as server:
        ancestors, pid = [], server.pid
        while pid > 1:
            with open(f"/proc/{pid}/stat") as status:
                pid = int(status.read().rsplit(")", 1)[1].split()[1])
            ancestors.append(pid)
        assert os.getpid() not in ancestors
        assert os.getsid(server.pid) != os.getsid(0)


def test_a_port_taken_meanwhile_is_replaced(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [taken.getsockname()[1]]
        from replay import embedded_server

        free_port = embedded_server._free_port
        monkeypatch.setattr(embedded_server, "_free_port", lambda: ports.pop() if ports else free_port())
        with EmbeddedServer.start(tmp_path) as server, connect(server) as client:
            assert client.ping()


def test_a_start_that_takes_too_long_is_an_error(tmp_path):
    with pytest.raises(ReplayUnreachableError, match=r"is not ready in time; its log ends: "):
        EmbeddedServer.start(tmp_path, ready_timeout_s=-1.0, sleep=lambda _: time.sleep(0.001))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*"])  # noqa: S104
def test_listening_everywhere_is_refused(tmp_path, host):
    with pytest.raises(ReplayConfigError, match=f"got {host!r}".replace("*", r"\*")):
        EmbeddedServer.start(tmp_path, host)


def test_redis_url_comes_first(tmp_path):
    assert find_or_start(tmp_path, {"REDIS_URL": "redis://elsewhere:7000"}) == ("redis://elsewhere:7000", None)
    url, server = find_or_start(tmp_path, {})
    assert server is not None
    assert server.url == url
    server.stop()
