"""Whatever is wrong with a command ends with exit code 2, one message, and nothing half written.

Real processes; the refused commands are run together at the start, two at a time.
"""

import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
import yaml

from replay.embedded_server import EmbeddedServer
from tests.commands import SCRIPT, TINY, Finished, clean_environment, hdqnn
from tests.environments import PREFIX

pytestmark = pytest.mark.redis


@dataclass
class Case:
    arguments: str
    parts: list[str]
    """What the message says: what, got, expected, what to do."""
    environment: dict[str, str] = field(default_factory=dict)
    is_boxed: bool = False
    """The command line's own parser draws a frame around its message."""
    num_warnings: int = 0
    """Lines that lead up to the message: damage that was found on the way."""


def server_url(kind):
    """Filled in once the servers are up."""
    return f"<{kind}>"


SMOKE = "train smoke --run-dir run"
CASES = {
    "unknown command": Case("trian smoke", ["unknown command 'trian'", "expected one of train, resume"]),
    "unknown preset": Case(
        "train humanoids", ["unknown preset 'humanoids'", "humanoid, humanoid-strong", "qtrl-cartpole", "--help"]
    ),
    "unknown field": Case(f"{SMOKE} --td3.tau 1", ["--td3.tau", "hdqnn train smoke --help"], is_boxed=True),
    "wrong type": Case(f"{SMOKE} --seed one", ["--seed", "'one'", "int"], is_boxed=True),
    "out of range": Case(f"{SMOKE} --td3.batch-size 0", ["batch_size must be at least 1, got 0"], is_boxed=True),
    "negative seed": Case(f"{SMOKE} --seed -1", ["seed must be 0 or more, got -1"], is_boxed=True),
    "unknown block": Case(f"{SMOKE} --block qnn", ["--block", "'qnn'", "pqc"], is_boxed=True),
    "unknown backend": Case(
        SMOKE, ["no backend is called 'nonsense'", "QPU_BACKEND", "statevector, aer"], {"QPU_BACKEND": "nonsense"}
    ),
    "backend flag": Case(f"{SMOKE} --backend nonsense", ["no backend is called 'nonsense'", "statevector, aer"]),
    "device of an exact backend": Case(SMOKE, ["has no device", "unset QPU_DEVICE"], {"QPU_DEVICE": "ibm_fez"}),
    "unknown device": Case(f"{SMOKE} --device cuda:99", ["device 'cuda:99' cannot be used", "Expected auto, cpu"]),
    "unknown environment": Case(f"{SMOKE} --env-id Pendulum-v99", ["'Pendulum-v99'", "Expected a Gymnasium id"]),
    "missing module": Case(f"{SMOKE} --env-id no_such:Task-v0", ["no_such", "module:Id-v0"]),
    "flow of one action component": Case(f"{SMOKE} --policy.family flow", ["at least 2 components, got 1", "gaussian"]),
    "discrete actions": Case(f"{SMOKE} --env-id CartPole-v1", ["action space Discrete(2)", "continuous task"]),
    "NaN at the start": Case(f"{SMOKE} --env-id {PREFIX}NaNAtReset-v0", ["observation nan", "expected finite"]),
    "too little slack": Case(f"{SMOKE} --replay.slack-steps 9", ["wait for each other for ever", "allow a slack of"]),
    "existing directory": Case("train smoke --run-dir old", ["old exists already", "hdqnn resume", "--run-dir"]),
    "nobody at RAY_ADDRESS": Case(
        SMOKE, ["cannot join the Ray cluster", "refused", "unset RAY_ADDRESS"], {"RAY_ADDRESS": server_url("nobody")}
    ),
    "nobody at REDIS_URL": Case(
        SMOKE,
        ["no answer from the replay server", "refused", "expected a running Redis or Valkey", "is it up"],
        {"REDIS_URL": f"redis://{server_url('nobody')}/0"},
    ),
    "no URL": Case(SMOKE, ["URL cannot be read", "expected redis://", "REDIS_URL"], {"REDIS_URL": "localhost:6380"}),
    "server that evicts": Case(
        SMOKE,
        ["maxmemory-policy allkeys-lru", "expected noeviction", "set 'maxmemory-policy noeviction'"],
        {"REDIS_URL": server_url("evicting")},
    ),
    "wrong password": Case(
        SMOKE,
        ["refuses the credentials", "expected a user", "check the user and the password in REDIS_URL"],
        {"REDIS_URL": server_url("wrong password")},
    ),
    "resume nothing": Case("resume old", ["old is not a run directory", "no config.yaml"]),
    "evaluate nothing": Case("evaluate missing", ["missing is not a run directory"]),
    "report nothing": Case("report missing", ["missing is not a run directory"]),
    "resume without a whole checkpoint": Case(
        "resume fresh", ["no checkpoint in", "1 found", "bring one back"], num_warnings=1
    ),
    "resume an unreadable configuration": Case("resume garbled", ["cannot read the run's configuration"]),
    "resume a configuration of another version": Case("resume foreign", ["unknown fields ['qubits']", "known ones"]),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """What to put in for the servers that cases name."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("server")) as server, socket.create_server(("", 0)) as nobody:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        port = nobody.getsockname()[1]
        nobody.close()
        yield {
            "evicting": server.url,
            "wrong password": re.sub(r":[^:@]+@", ":hunter2@", server.url),
            "nobody": f"127.0.0.1:{port}",
        }


@pytest.fixture(scope="module")
def refused(servers, tmp_path_factory):
    """Every case's directory and what its command left."""

    def run(name):
        case, directory = CASES[name], tmp_path_factory.mktemp("refused")
        (directory / "old").mkdir()
        for run_name, text in (("fresh", "seed: 1\n"), ("garbled", "a: ["), ("foreign", "qubits: 3\n")):
            (directory / run_name).mkdir()
            (directory / run_name / "config.yaml").write_text(text)
        (directory / "fresh" / "checkpoints" / "step_000000000000").mkdir(parents=True)
        environment = dict(case.environment)
        for variable, value in environment.items():
            for kind, url in servers.items():
                value = value.replace(server_url(kind), url)
            environment[variable] = value
        before = tree(directory)
        finished = hdqnn(*case.arguments.split(), directory=directory, **environment)
        return finished, before, tree(directory)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(CASES, pool.map(run, CASES), strict=True))


def tree(directory: Path):
    """Every file of a directory but locks and the captured output, with its content."""
    paths = [path for path in directory.rglob("*") if not path.name.startswith(("out-", "err-", "lock"))]
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in paths}


def assert_one_message(finished: Finished, parts, *, is_boxed=False, num_warnings=0):
    assert finished.code == 2, finished
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", finished.err).split())
    for part in parts:
        assert part in text
    assert "Traceback" not in finished.err
    assert "Traceback" not in finished.out
    if is_boxed:
        assert finished.err.count("╭") == 1
    else:
        *before, last = finished.err.splitlines()
        assert len(before) == num_warnings, finished.err
        assert all(line.startswith("WARNING ") for line in before)
        assert last.startswith("hdqnn: ")


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_with_one_message_and_nothing_is_written(refused, name):
    finished, before, after = refused[name]
    assert_one_message(
        finished, CASES[name].parts, is_boxed=CASES[name].is_boxed, num_warnings=CASES[name].num_warnings
    )
    assert finished.out == ""
    assert after == before


def test_no_message_shows_a_password(refused, servers):
    for finished, *_ in refused.values():
        assert "hunter2" not in finished.err
        assert re.search(r":([^:@]+)@", servers["evicting"]).group(1) not in finished.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A directory with a short synchronous run in ``run``."""
    directory = tmp_path_factory.mktemp("trained")
    arguments = ["train", "smoke", *TINY, "--synchronous", "--run-dir", "run", "--total-steps", "240"]
    assert hdqnn(*arguments, directory=directory).code == 0
    return directory


def edit_config(directory, **changes):
    path = directory / "run" / "config.yaml"
    original = path.read_text()
    path.write_text(yaml.safe_dump({**yaml.safe_load(original), **changes}))
    return lambda: path.write_text(original)


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_a_checkpoint_of_another_environment_is_refused(trained, command):
    undo = edit_config(trained, env_id="Hopper-v4")
    before = tree(trained)
    finished = hdqnn(command, "run", directory=trained)
    after = tree(trained)
    undo()
    assert finished.code == 2
    messages = [line for line in finished.err.splitlines() if line.startswith("hdqnn: ")]
    assert len(messages) == 1
    assert "another environment" in messages[0]
    assert "Traceback" not in finished.err
    assert {name: data for name, data in after.items() if "tensorboard" not in name} == {
        name: data for name, data in before.items() if "tensorboard" not in name
    }


def test_nan_in_the_middle_of_a_synchronous_run_ends_it(tmp_path):
    arguments = ["train", "smoke", *TINY, "--synchronous", "--run-dir", "run"]
    finished = hdqnn(*arguments, "--env-id", f"{PREFIX}NaNLater-v0", directory=tmp_path)
    assert_one_message(finished, ["NaNLater-v0 returned the reward nan", "expected finite", "fix the environment"])


def test_output_that_nobody_reads_ends_quietly(tmp_path):
    for arguments in (["train", "--help"], ["--help"]):
        process = subprocess.Popen(
            [str(SCRIPT), *arguments],
            env=clean_environment(),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdout.close()  # long before anything is written: importing takes a moment
        assert process.stderr.read() == ""
        assert process.wait() != 0
        process.stderr.close()
