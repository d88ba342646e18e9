"""kill -9 on every kind of process of a run: it ends as if nothing had happened, and nothing acknowledged is lost."""

import os
import signal

import pytest

from benchmarks.faults.processes import descendants, process_title
from cluster.run_directory import RunDirectory, read_rows
from tests.commands import TINY, Command, replay_servers
from tests.environments import PREFIX
from tests.integration.stored_segments import assert_every_transition_is_there_once, read_replay

pytestmark = [pytest.mark.ray, pytest.mark.redis]

VICTIMS = ["ray::RolloutWorker", "ray::QPUActor", "ray::TestWorker", "ray::ParameterBoard", "-server "]
STEPS = 3_500
"""Five deaths with 200 steps after each leave 2,000 to spare, because on a busy machine rows come late."""


def processes(command, title):
    """Pids of the run's own processes with this title; other runs on the machine are never touched."""
    own = [*descendants(command.process.pid), *replay_servers(command.directory)]
    return [pid for pid in own if title in process_title(pid) and "gcs_server" not in process_title(pid)]


@pytest.fixture(scope="module")
def survivor(tmp_path_factory):
    """The directory and the end of a run whose processes were all killed, one after another."""
    directory = tmp_path_factory.mktemp("kills")
    run = RunDirectory(directory / "run")

    def env_step():
        return max((row["env_step"] for row in read_rows(run.metrics)), default=0)

    arguments = ["train", "smoke", *TINY, "--env-id", f"{PREFIX}Slow-v0", "--run-dir", "run"]
    arguments += ["--total-steps", str(STEPS), "--log-period-steps", "50", "--evaluation.period-steps", "100"]
    arguments += ["--td3.updates-per-step", "0.25", "--replay.slack-steps", "200"]
    with Command(arguments, directory) as command:
        command.wait_until(lambda: env_step() >= 250 and len(list(read_rows(run.evaluations))) >= 1)
        for title in VICTIMS:
            (victim,) = processes(command, title)
            os.kill(victim, signal.SIGKILL)
            before = env_step()
            # Enough for at least one more test round, and for parameters to be published several times.
            command.wait_until(lambda before=before: env_step() >= before + 200)
            assert victim not in processes(command, title)
        return run, command.wait(), env_step()


def test_the_run_ends_as_if_nothing_had_happened(survivor):
    _, finished, env_step = survivor
    assert finished.code == 0, finished
    assert env_step >= STEPS
    assert "done after" in finished.out
    assert "Traceback" not in finished.out + finished.err


def test_every_death_is_told(survivor):
    _, finished, _ = survivor
    for part in (
        "actor 0 failed",
        "QPU worker",
        "the evaluator failed",
        "the replay server died; starting it again",
    ):
        assert part in finished.err


def test_every_acknowledged_transition_is_in_the_replay_exactly_once(survivor):
    run, _, env_step = survivor
    segments, counters = read_replay(run.path)
    sequences = assert_every_transition_is_there_once(segments, counters)
    assert counters["inserted"] == env_step
    assert {actor_id for actor_id, _ in sequences} == {0}
    assert len(sequences) >= 2, "the killed actor was not started again as another incarnation"


def test_learning_kept_its_ratio_to_what_was_inserted(survivor):
    run, _, env_step = survivor
    last = list(read_rows(run.metrics))[-1]
    assert last["update_step"] == pytest.approx(0.25 * (env_step - 200), abs=1)
    assert last["replay/sampled"] == 16 * last["update_step"]


def test_test_rounds_went_on(survivor):
    run, _, env_step = survivor
    rounds = list(read_rows(run.evaluations))
    assert len(rounds) >= 10
    assert rounds[-1]["env_step"] == env_step
    assert [row["env_step"] for row in rounds] == sorted(row["env_step"] for row in rounds)
    versions = [row["policy_version"] for row in rounds]
    assert versions == sorted(set(versions))
