"""``hdqnn replay``: which runs a command line means, what is refused, and what a person sees."""

import pytest

from cluster.__main__ import run
from cluster.command_replay import chosen_runs, describe, ended_runs
from cluster.errors import ConfigError
from replay.errors import ReplayConfigError
from replay.stored_runs import ServerContents, StoredRun

CANARY = "canary-password"


def stored(run_id, *, learner="", **changes):
    fields = {"num_keys": 5, "num_bytes": 2_500_000, "num_transitions": 1_000, "unused_s": 3, **changes}
    return StoredRun(run_id=run_id, learner=learner, **fields)


def server(*runs, label="redis://a:6390/0", used_bytes=52_100_000, limit_bytes=60_000_000):
    return ServerContents(label=label, used_bytes=used_bytes, limit_bytes=limit_bytes, runs=runs)


@pytest.fixture(autouse=True)
def _no_server(monkeypatch):
    monkeypatch.delenv("REDIS_URL", raising=False)


def test_the_table():
    big = stored("humanoid-s1-0a1b2c3d", num_bytes=2_340_000_000, num_transitions=1_000_000, unused_s=7_800)
    small = stored("x-1", num_bytes=4_100, num_transitions=12, unused_s=None, learner="/runs/x on host (1:2)")
    assert describe(server(big, small)) == (
        "redis://a:6390/0: 52.1 MB of at most 60.0 MB in use, 2 run(s)\n"
        "  run                   transitions    memory   unused for  learner\n"
        "  humanoid-s1-0a1b2c3d    1,000,000    2.3 GB   2 h 10 min  –\n"
        "  x-1                            12    4.1 kB            –  /runs/x on host (1:2)\n"
    )


def test_a_server_without_runs_and_without_a_limit():
    assert describe(server(limit_bytes=0)) == "redis://a:6390/0: 52.1 MB in use, 0 run(s)\n"


def test_nothing_that_others_wrote_acts_on_the_terminal():
    shown = describe(server(stored("a\x1b[2J\nb", learner="\x1b]0;x\x07")))
    assert "\x1b" not in shown
    assert shown.count("\n") == 3
    assert "a?[2J?b" in shown


def test_runs_are_named_by_id_or_by_directory_and_count_once(tmp_path):
    (tmp_path / "run_id").write_text("b-2\n")
    everything = [server(stored("a-1"), stored("c-3")), server(stored("b-2"))]
    assert chosen_runs(everything, [str(tmp_path), "a-1", "b-2"]) == ["b-2", "a-1"]


def test_an_unknown_run_names_the_known_ones(tmp_path):
    with pytest.raises(ConfigError) as caught:
        chosen_runs([server(stored("b-2")), server(stored("a-1"), label="redis://b:6390/0")], ["a-1", "nonsense"])
    for part in ["'nonsense' at redis://a:6390/0, redis://b:6390/0", "one of a-1, b-2, or", "a server of its own"]:
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="there are none"):
        chosen_runs([server()], [str(tmp_path)])


def test_a_run_that_is_learned_from_on_any_server_is_refused():
    everything = [server(stored("a"), stored("b")), server(stored("a", learner="/runs/a on h"), label="redis://b/0")]
    with pytest.raises(ReplayConfigError) as caught:
        chosen_runs(everything, ["b", "a"])
    for part in ["run 'a' at redis://b/0: /runs/a on h", "Stop it first", "--stop ID", "another 30 s"]:
        assert part in str(caught.value)
    assert chosen_runs(everything, ["b"]) == ["b"]


def test_ended_are_those_that_are_learned_from_on_no_server():
    everything = [server(stored("a"), stored("b"), stored("d")), server(stored("a", learner="x"), stored("c"))]
    assert ended_runs(everything) == ["b", "d", "c"]


@pytest.mark.parametrize("arguments", [["list"], ["drop", "a"], ["drop", "--ended", "--yes"]], ids=" ".join)
def test_without_a_server_it_says_where_a_replay_is(capsys, arguments):
    assert run(["replay", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("hdqnn: REDIS_URL is not set; expected")
    assert "in its own directory" in said.err


@pytest.mark.parametrize("arguments", [["drop"], ["drop", "a", "--ended"]], ids=" ".join)
def test_runs_or_all_ended_ones(capsys, monkeypatch, arguments):
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    assert run(["replay", *arguments]) == 2
    assert "not both and not neither" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", f"redis://:{CANARY}@host/0"],
        ["list", "--url", f"redis://:{CANARY}@host/0"],
        ["drop", "a", f"--server=redis://:{CANARY}@host/0"],
        ["drop", f"redis://:{CANARY}@host/0"],
        ["list", "--servers", f"redis://:{CANARY}@host:port/0"],
        ["list", "--servers", f"redis://:{CANARY}@127.0.0.1:1/0,redis://:{CANARY}/@host"],
    ],
    ids=["positional", "another option", "shortened option", "as a run", "unreadable", "several"],
)
def test_no_password_in_any_message(capsys, monkeypatch, arguments):
    monkeypatch.setattr("cluster.command_replay._DEADLINE_S", 0.1)
    assert run(["replay", *arguments]) == 2
    said = capsys.readouterr()
    assert said.err
    assert CANARY not in said.out + said.err
    assert "Traceback" not in said.err


def test_help_says_what_a_drop_costs(capsys):
    for arguments in (["--help"], ["list", "--help"], ["drop", "--help"]):
        with pytest.raises(SystemExit) as raised:
            run(["replay", *arguments])
        assert raised.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in ("hdqnn replay drop RUN", "cannot be resumed any more", "Refused while a learner", "unused for"):
        assert part in out
