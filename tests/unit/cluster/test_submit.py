import subprocess

import pytest

from cluster.errors import ConfigError
from cluster.submit import FORWARDED_VARIABLES, choose_job, entrypoint_for, main, split_command, token_from_environment
from tests.unit.cluster.dashboard import FakeDashboard, serve


@pytest.fixture
def dashboard(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "token-1")
    for name in FORWARDED_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with serve(FakeDashboard()) as fake:
        yield fake


@pytest.mark.parametrize(
    ("argv", "own", "command"),
    [
        (["c.yaml", "--", "train", "--seed", "2"], ["c.yaml"], ["train", "--seed", "2"]),
        (["c.yaml", "--another", "--", "train", "--", "x"], ["c.yaml", "--another"], ["train", "--", "x"]),
        (["c.yaml", "--list"], ["c.yaml", "--list"], []),
    ],
)
def test_command_of_hdqnn_starts_after_the_first_double_dash(argv, own, command):
    assert split_command(argv) == (own, command)


def test_entrypoint_runs_hdqnn_in_the_project_with_its_arguments_unchanged_and_every_core(tmp_path):
    program = tmp_path / "bin" / "hdqnn"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$PWD|$OMP_NUM_THREADS|$1|$2"\n')
    program.chmod(0o755)
    environment = {"PATH": f"{program.parent}:/usr/bin:/bin", "HDQNN_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = ["sh", "-c", entrypoint_for(["train", "a b; $(x) 'q'"])]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.stdout == f"{tmp_path}||train|a b; $(x) 'q'\n"


def test_entrypoint_on_a_foreign_cluster_says_what_is_wrong():
    result = subprocess.run(["sh", "-c", entrypoint_for(["train"])], env={}, capture_output=True, text=True)
    assert result.returncode != 0
    assert "not started with cluster/node.sh" in result.stderr


ACTIVE = {"hdqnn-1": "x && exec hdqnn train humanoid"}


@pytest.mark.parametrize(
    ("active", "entrypoint", "another", "expected"),
    [
        pytest.param({}, "e", False, ("new", True), id="empty cluster"),
        pytest.param(ACTIVE, ACTIVE["hdqnn-1"], False, ("hdqnn-1", False), id="the same run goes on: attach"),
        pytest.param(ACTIVE, ACTIVE["hdqnn-1"], True, ("new", True), id="the same run, wanted twice"),
        pytest.param(ACTIVE, "e", True, ("new", True), id="beside another run"),
    ],
)
def test_choice_between_starting_and_attaching(active, entrypoint, another, expected):
    assert choose_job(active, entrypoint, another=another, new_id="new") == expected


def test_second_run_beside_a_different_one_is_refused_with_the_ways_out():
    with pytest.raises(ConfigError, match=r"(?s)hdqnn-1: hdqnn train humanoid.*--attach.*--stop ID.*--another"):
        choose_job(ACTIVE, "e", another=False, new_id="new")


@pytest.mark.parametrize(("final", "code"), [("SUCCEEDED", 0), ("FAILED", 1), ("STOPPED", 1)])
def test_run_is_started_once_followed_and_its_status_becomes_the_exit_code(dashboard, capsys, monkeypatch, final, code):
    monkeypatch.setenv("QPU_BACKEND", "aer")
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "secret")
    dashboard.final_status = final
    assert main([dashboard.url, "--", "train", "smoke"]) == code
    output = capsys.readouterr()
    assert output.out == "env {'env_vars': {'QPU_BACKEND': 'aer'}}\n"
    assert f"ended: {final}. Job is RUNNING." in output.err
    assert dashboard.requests.count("POST /api/jobs/") == 1
    (entrypoint,) = [job["entrypoint"] for job in dashboard.jobs.values()]
    assert entrypoint.endswith("exec hdqnn train smoke")


def test_settings_of_a_device_go_with_the_job_and_what_only_the_head_may_know_stays(dashboard, capsys, monkeypatch):
    for name, value in (("QPU_BUDGET_SECONDS", "600"), ("QPU_MODE", "session"), ("QPU_BUDGET_JOBS", "")):
        monkeypatch.setenv(name, value)
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QPU_JOURNAL_DIR"):
        monkeypatch.setenv(name, "of this machine")
    assert main([dashboard.url, "--", "train", "smoke"]) == 0
    assert capsys.readouterr().out == "env {'env_vars': {'QPU_MODE': 'session', 'QPU_BUDGET_SECONDS': '600'}}\n"


def test_submission_whose_reply_is_lost_is_not_repeated(dashboard):
    dashboard.drop_reply_to_submit = True
    assert main([dashboard.url, "--", "train"]) == 0
    assert len(dashboard.jobs) == 1


def test_same_command_attaches_and_shows_the_last_lines_only(dashboard, capsys):
    log = "".join(f"line {i}\n" for i in range(100))
    dashboard.add("hdqnn-1", entrypoint_for(["train"]), status="RUNNING", log=log)
    assert main([dashboard.url, "--", "train"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"line {i}" for i in range(60, 100)]
    assert "already running: hdqnn-1" in output.err


def test_newest_run_is_attached_to_and_foreign_jobs_are_not_ours(dashboard, capsys):
    dashboard.add("hdqnn-2", "b", status="RUNNING", log="two\n", start_time=2)
    dashboard.add("hdqnn-1", "a", status="PENDING", log="one\n", start_time=1)
    dashboard.add("raysubmit_x", "c", status="RUNNING", start_time=3)
    dashboard.add("hdqnn-0", "d", status="FAILED", start_time=4)
    assert main([dashboard.url, "--list"]) == 0
    assert capsys.readouterr().out == "hdqnn-1  a\nhdqnn-2  b\n"
    assert main([dashboard.url, "--attach"]) == 0
    assert capsys.readouterr().out == "two\n"


def test_stopping_follows_to_the_end_and_is_a_success(dashboard, capsys):
    dashboard.add("hdqnn-1", "a", status="RUNNING", log="saved\n")
    assert main([dashboard.url, "--stop", "hdqnn-1"]) == 0
    assert "saved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command: expected e.g. `-- train humanoid`"),
        (["--attach"], "no run is on this cluster"),
        (["--stop", "hdqnn-9"], "the cluster does not know /api/jobs/hdqnn-9/stop"),
    ],
)
def test_mistakes_are_named_and_exit_with_2(dashboard, capsys, arguments, message):
    assert main([dashboard.url, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_wrong_token_is_named_and_not_shown(dashboard, capsys, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong-token")
    assert main([dashboard.url, "--list"]) == 2
    error = capsys.readouterr().err
    assert "refused the authentication token" in error
    assert "wrong-token" not in error


def test_address_without_a_dashboard_is_an_error(capsys):
    assert main(["http://127.0.0.1:9", "--list"]) == 2
    assert "GET /api/jobs/: Cannot connect to host 127.0.0.1:9" in capsys.readouterr().err


def test_token_is_found_as_ray_finds_it(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token_from_environment() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-home\n")
    assert token_from_environment() == "of-home"
    (tmp_path / "named").write_text("of-path")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert token_from_environment() == "of-path"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-variable")
    assert token_from_environment() == "of-variable"
