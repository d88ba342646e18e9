"""A run over two servers of one's own: one is killed and started again, the run is stopped, resumed and dropped."""

import os
import re
import signal
import time

import pytest
import redis

from actors.environment import agent_spec
from cluster.build_replay import transition_spec
from cluster.run_directory import RunDirectory, open_run_directory, read_rows
from replay.codec import decode_segment
from replay.embedded_server import EmbeddedServer
from tests.commands import TINY, Command, hdqnn
from tests.environments import PREFIX
from tests.integration.stored_segments import assert_every_transition_is_there_once

pytestmark = [pytest.mark.ray, pytest.mark.redis]


def read_server(server, path):
    """Every segment that a server holds, and its counters."""
    _, config = open_run_directory(path)
    run_id = (path / "run_id").read_text().strip()
    spec, key = transition_spec(config, agent_spec(config.env_id)), f"hdqnn:{{{run_id}}}"
    with redis.Redis.from_url(server.url) as client:
        counters = {name.decode(): int(value) for name, value in client.hgetall(f"{key}:counters").items()}
        frames = [client.get(f"{key}:segment:{i}") for i in range(counters["next_index"])]
    return [decode_segment(frame, spec, run_id) for frame in frames], counters


@pytest.fixture(scope="module")
def survivor(tmp_path_factory):
    """The run, how its parts ended, the answers to a drop in the middle and a resume with one URL, the last ends."""
    directory, elsewhere = tmp_path_factory.mktemp("sharded"), tmp_path_factory.mktemp("servers")
    run = RunDirectory(directory / "run")

    def env_step():
        return max((row["env_step"] for row in read_rows(run.metrics)), default=0)

    arguments = ["train", "smoke", *TINY, "--env-id", f"{PREFIX}Slow-v0", "--run-dir", "run"]
    arguments += ["--actors.num-actors", "2", "--td3.updates-per-step", "0.5", "--log-period-steps", "50"]
    with EmbeddedServer.start(elsewhere / "a") as first, EmbeddedServer.start(elsewhere / "b") as second:
        urls = {"REDIS_URL": f"{first.url},{second.url}"}
        with Command([*arguments, "--total-steps", "100000"], directory, urls) as command:
            command.wait_until(lambda: env_step() >= 400)
            os.kill(second.pid, signal.SIGKILL)
            time.sleep(1.0)
            second.restart()
            after_kill = env_step()
            command.wait_until(lambda: env_step() >= after_kill + 300)
            # By a person who knows only one of the two servers.
            while_learning = hdqnn("replay", "drop", "run", directory=directory, REDIS_URL=second.url)
            command.press_ctrl_c()
            stopped = command.wait()
        between = [read_server(server, run.path)[1]["inserted"] for server in (first, second)]
        total = sum(between) + 300
        with_one = hdqnn("resume", "run", directory=directory, REDIS_URL=first.url)
        resumed = hdqnn("resume", "run", "--total-steps", total, directory=directory, **urls)
        ends = [read_server(server, run.path) for server in (first, second)]
        answers = [
            hdqnn("replay", *arguments, directory=directory, **urls)
            for arguments in (["list"], ["drop", "run"], ["list"])
        ]
        yield run, stopped, between, with_one, resumed, [while_learning, *answers], ends


def test_the_run_outlives_a_server_and_is_resumed(survivor):
    _, stopped, between, _, resumed, _, ends = survivor
    assert stopped.code == 130, stopped
    assert "stopped and saved after" in stopped.out
    assert "replay:       on the server in REDIS_URL, until hdqnn replay drop run\n" in stopped.out
    assert "Traceback" not in stopped.out + stopped.err
    assert resumed.code == 0, resumed
    assert resumed.err == ""
    assert sum(counters["inserted"] for _, counters in ends) >= sum(between) + 300


def test_each_actor_is_on_its_server_with_every_transition_once(survivor):
    for number, (segments, counters) in enumerate(survivor[-1]):
        sequences = assert_every_transition_is_there_once(segments, counters)
        assert {actor_id for actor_id, _ in sequences} == {number}
        assert {incarnation for _, incarnation in sequences} >= {1, 2}


def test_the_ratio_holds_over_both(survivor):
    run, *_, ends = survivor
    inserted = sum(counters["inserted"] for _, counters in ends)
    last = list(read_rows(run.metrics))[-1]
    assert last["env_step"] == last["replay/size"] == inserted
    assert last["update_step"] == pytest.approx(0.5 * (inserted - 200), abs=1)
    assert last["replay/sampled"] == 16 * last["update_step"]


def test_a_resume_with_one_of_the_servers_says_what_is_missing(survivor):
    with_one = survivor[3]
    assert with_one.code != 0
    assert re.search(r"keeps its data on 2 server\(s\), REDIS_URL names 1", with_one.err), with_one
    assert "Traceback" not in with_one.err


def test_its_data_are_dropped_by_its_directory_once_nobody_learns_from_them(survivor):
    run, *_, (while_learning, listed, dropped, afterwards), ends = survivor
    name = (run.path / "run_id").read_text().strip()
    assert name.startswith("run-")
    assert while_learning.code == 2, while_learning
    assert f"a learner works with the data of run {name!r}" in while_learning.err
    assert str(run.path.resolve()) in while_learning.err
    for _, counters in ends:
        assert re.search(rf"^  {name} +{counters['inserted']:,} .* –$", listed.out, re.MULTILINE), listed
    assert dropped.code == 0, dropped
    assert dropped.out.count(f"{name}: freed") == 2
    assert afterwards.out.count(" 0 run(s)") == 2, afterwards
