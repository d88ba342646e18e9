import re

import pytest
import redis

from replay.embedded_server import EmbeddedServer
from replay.errors import ReplayConfigError, ReplayUnreachableError
from replay.server_check import describe_server

pytestmark = pytest.mark.redis


def test_one_line_says_what_matters(tmp_path):
    with (
        EmbeddedServer.start(tmp_path, maxmemory_bytes=2_000_000_000) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        password = server.url.split(":")[2].split("@")[0]
        line = describe_server(server.url)
        assert re.fullmatch(
            r"(Valkey|Redis) \d+\.\d+\.\d+ at redis://127\.0\.0\.1:\d+/0, noeviction, 2\.0 GB at most, "
            r"append-only file on, round trip \d+\.\d\d ms",
            line,
        )
        assert password not in line
        client.config_set("appendonly", "no")
        client.config_set("maxmemory", 0)
        line = describe_server(server.url)
        assert "no memory limit, append-only file OFF: a restart of the server loses the replay" in line
        client.config_set("maxmemory-policy", "allkeys-lfu")
        with pytest.raises(ReplayConfigError, match="maxmemory-policy allkeys-lfu"):
            describe_server(server.url)
    with pytest.raises(ReplayUnreachableError, match="is it up"):
        describe_server(server.url, deadline_s=0.1)
