"""A real run with IBM's client, with secrets in its environment that nothing it leaves may hold; about 40 s."""

import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from replay.embedded_server import EmbeddedServer
from tests.commands import TINY, hdqnn
from tests.environments import PREFIX
from tests.integration.ibm_http import TOKEN, FakeIBM

pytestmark = [pytest.mark.ray, pytest.mark.redis]

CANARIES = {"ibm": TOKEN, "redis": "canary-password-5d0e", "aws": "canary-secret-key-77aa"}


def holding(root, secret):
    """Files below a directory that hold a secret; sockets and the like are no files."""
    encoded = secret.encode()
    return [path for path in Path(root).rglob("*") if path.is_file() and encoded in path.read_bytes()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What a run and a failing run said, and everything that they wrote: their directory, journal and Ray's session."""
    directory = tmp_path_factory.mktemp("secrets")
    ray_directory = Path(tempfile.mkdtemp(prefix="hd"))  # short: Ray puts sockets there
    with EmbeddedServer.start(tmp_path_factory.mktemp("server")) as server, FakeIBM() as ibm:
        ibm.polls_before_done = 0
        with redis.Redis.from_url(server.url) as client:
            client.acl_setuser("run", enabled=True, passwords=[f"+{CANARIES['redis']}"], keys=["*"], commands=["+@all"])
        environment = {
            "QPU_BACKEND": "ibm",
            **ibm.environment(directory / "journal"),
            "AWS_SECRET_ACCESS_KEY": CANARIES["aws"],
            "REDIS_URL": f"redis://run:{CANARIES['redis']}@127.0.0.1:{urlsplit(server.url).port}/0",
            "RAY_TMPDIR": str(ray_directory),
        }
        arguments = ["train", "smoke", *TINY, "--env-id", f"{PREFIX}Seeded-v0", "--td3.learning-starts", "40"]
        arguments += ["--evaluation.period-steps", "1000", "--evaluation.num-episodes", "1", "--total-steps", "48"]
        run = hdqnn(*arguments, "--run-dir", "run", directory=directory, timeout_s=250, **environment)
        broken = {**environment, "REDIS_URL": environment["REDIS_URL"].replace(CANARIES["redis"], "wrong-canary-9b9b")}
        refused = hdqnn("resume", "run", "--total-steps", "96", directory=directory, **broken)
    yield directory, ray_directory, run, refused
    shutil.rmtree(ray_directory, ignore_errors=True)


def test_the_run_needed_the_password_and_ended_well(finished):
    directory, _, run, refused = finished
    assert run.code == 0, run
    assert refused.code == 2, refused
    assert "refuses the credentials" in refused.err
    assert list((directory / "run" / "checkpoints").iterdir())
    assert list((directory / "journal").iterdir())


@pytest.mark.parametrize("name", CANARIES)
def test_no_secret_is_in_anything_that_a_run_leaves(finished, name):
    directory, ray_directory, _, _ = finished
    assert holding(directory, CANARIES[name]) == []
    assert holding(ray_directory, CANARIES[name]) == []


def test_no_secret_is_in_what_a_refused_run_says(finished):
    directory, ray_directory, _, refused = finished
    assert "canary" not in refused.out + refused.err
    assert holding(directory, "wrong-canary-9b9b") + holding(ray_directory, "wrong-canary-9b9b") == []


def test_ray_wrote_where_the_search_looked(finished):
    _, ray_directory, _, _ = finished
    assert len([path for path in ray_directory.rglob("*.log") if path.is_file()]) > 3


def test_the_search_finds_what_it_looks_for(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "x.bin").write_bytes(b"\xff" + CANARIES["ibm"].encode() + b"\x00")
    os.mkfifo(tmp_path / "pipe")
    assert [path.name for path in holding(tmp_path, CANARIES["ibm"])] == ["x.bin"]
