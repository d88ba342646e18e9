"""Scheduling with commands of the test's own: how many at a time, what follows what, failures, stops."""

import io

import pytest

from cluster.errors import ConfigError
from cluster.experiment.scheduler import Scheduler
from cluster.progress import Progress
from tests.unit.cluster.experiment.places import begin, evaluate, finish, make_runs


class Machine:
    """Commands that end after two looks and leave what real ones leave; time passes when the scheduler sleeps."""

    def __init__(self, runs, exit_codes=None):
        self.runs = {str(run.run.path): run for run in runs}
        self.exit_codes = exit_codes or {}
        self.started, self.running, self.most, self.now_s = [], [], 0, 0.0

    def __call__(self, arguments, log):
        path = next(path for path in self.runs if path in arguments)
        command = Command(self, self.runs[path], arguments[0])
        self.started.append((arguments[0], command.run.planned.name))
        self.running.append(command)
        self.most = max(self.most, len(self.running))
        log.write_text("loading\nhdqnn: it broke\n\n")
        return command

    def sleep(self, seconds):
        self.now_s += seconds


class Command:
    def __init__(self, machine, run, task):
        self.machine, self.run, self.task = machine, run, task
        self.looks, self.terminated = 0, 0

    def poll(self):
        self.looks += 1
        if self.terminated:
            return self.end(130)
        return self.end(self.machine.exit_codes.get((self.task, self.run.planned.name), 0)) if self.looks > 2 else None

    def end(self, code):
        self.machine.running.remove(self)
        if self.task == "train":
            begin(self.run)
        if self.task == "evaluate" and code == 0:
            evaluate(self.run, [-3, -4, -5])
        return code

    def terminate(self):
        self.terminated += 1


def schedule(runs, machine, *, parallel=2, stop_after=None):
    out = io.StringIO()
    scheduler = Scheduler(
        runs,
        parallel=parallel,
        num_threads=1,
        spawn=machine,
        progress=Progress(out, lambda: machine.now_s, plain_period_s=0.3),
        should_stop=lambda: stop_after is not None and len(machine.started) >= stop_after,
        clock=lambda: machine.now_s,
        sleep=machine.sleep,
    )
    return scheduler.run(), out.getvalue()


@pytest.mark.parametrize("parallel", [1, 2, 9])
def test_every_run_is_trained_and_evaluated_with_so_many_side_by_side(tmp_path, parallel):
    runs = make_runs(tmp_path)
    machine = Machine(runs)
    outcome, out = schedule(runs, machine, parallel=parallel)
    names = [run.planned.name for run in runs]
    assert sorted(outcome.done) == sorted(names)
    assert (outcome.failed, outcome.stopped) == ([], [])
    assert machine.most == min(parallel, 4)
    assert sorted(machine.started) == sorted([(task, name) for name in names for task in ("train", "evaluate")])
    assert [name for task, name in machine.started if task == "train"] == names
    assert "smoke-pqc-s1: done (1 of 4), 3 test episodes: mean return -4.0" in out
    assert all(run.next_task() is None for run in runs)


def test_finished_runs_are_skipped_and_begun_ones_resumed(tmp_path):
    runs = make_runs(tmp_path)
    finish(runs[0], [1, 2, 3])
    begin(runs[1])
    machine = Machine(runs)
    outcome, _ = schedule(runs, machine, parallel=1)
    assert len(outcome.done) == 4
    assert machine.started[:2] == [("resume", "smoke-zeros-s1"), ("evaluate", "smoke-zeros-s1")]
    assert not [task for task, name in machine.started if name == "smoke-pqc-s1"]


def test_a_failed_run_is_named_with_its_log_and_the_rest_goes_on(tmp_path):
    runs = make_runs(tmp_path)
    outcome, out = schedule(runs, Machine(runs, {("train", "smoke-pqc-s1"): 1, ("evaluate", "smoke-pqc-s2"): 2}))
    assert sorted(outcome.failed) == ["smoke-pqc-s1", "smoke-pqc-s2"]
    assert sorted(outcome.done) == ["smoke-zeros-s1", "smoke-zeros-s2"]
    log = tmp_path / "runs" / "logs" / "smoke-pqc-s1.log"
    assert f"smoke-pqc-s1: FAILED, train ended with 1: hdqnn: it broke; log: {log}\n" in out


def test_a_command_that_changes_nothing_is_a_failure_and_not_a_loop(tmp_path):
    runs = make_runs(tmp_path, blocks="pqc", seeds=1)
    machine = Machine(runs)
    runs[0].log.parent.mkdir(parents=True)
    finish(runs[0], [1, 2])
    outcome, out = schedule(runs, Idle(runs))
    assert outcome.failed == ["smoke-pqc-s1"]
    assert "evaluate ended well and left the run as it was" in out
    assert machine.started == []


class Idle(Machine):
    """Every command ends well at once, and leaves too few test episodes."""

    def __call__(self, arguments, log):
        command = super().__call__(arguments, log)
        evaluate(command.run, [1, 2])
        command.end = lambda _: 0
        return command


def test_a_stop_ends_every_command_once_and_starts_nothing(tmp_path):
    runs = make_runs(tmp_path)
    machine = Machine(runs)
    commands = []
    original = machine.__class__.__call__

    class Watched(Machine):
        def __call__(self, arguments, log):
            commands.append(original(self, arguments, log))
            return commands[-1]

    watched = Watched(runs)
    outcome, out = schedule(runs, watched, stop_after=2)
    assert len(watched.started) == 2
    assert [command.terminated for command in commands] == [1, 1]
    assert watched.running == []
    assert sorted(outcome.stopped) == sorted(run.planned.name for run in runs)
    assert "stopping 2 running" in out
    again, _ = schedule(runs, Machine(runs))
    assert len(again.done) == 4


def test_an_error_of_the_scheduler_leaves_no_command_behind(tmp_path):
    runs = make_runs(tmp_path)

    class Breaking(Machine):
        def __call__(self, arguments, log):
            if len(self.started) == 1:
                raise OSError("no more processes")
            return super().__call__(arguments, log)

    machine = Breaking(runs)
    with pytest.raises(OSError, match="no more processes"):
        schedule(runs, machine)
    assert machine.running == []
    assert len(machine.started) == 1


def test_a_run_of_another_file_is_refused_before_anything_starts(tmp_path):
    runs = make_runs(tmp_path)
    begin(runs[3])
    changed = make_runs(tmp_path, overrides={"log_period_steps": 7})
    machine = Machine(changed)
    with pytest.raises(ConfigError, match="log_period_steps = 100 and not 7"):
        schedule(changed, machine)
    assert machine.started == []


def test_the_line_counts_runs_and_steps_and_says_how_long(tmp_path):
    runs = make_runs(tmp_path, blocks="pqc", final_episodes=0)
    machine = Machine(runs)

    class Stepping(Machine):
        def sleep(self, seconds):
            super().sleep(seconds)
            for run in runs:
                if run.run.path.exists():
                    run.run.metrics.write_text('{"env_step": 300}\n')

    _, out = schedule(runs, Stepping(runs), parallel=1)
    assert machine.started == []
    line = next(line for line in out.splitlines() if line.startswith("1 of 2 done | 1 running | 0 waiting"))
    # 300 of 1,200 steps: what is left takes three times as long as what was.
    assert "step 300/1,200" in line
    assert line.endswith(" s left")
