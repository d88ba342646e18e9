"""``hdqnn experiment``: a grid of runs from one file, side by side, resumed where it stopped, and its report."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cluster.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, ConfigError
from cluster.experiment.grid import Experiment, read_experiment
from cluster.experiment.machine import fitting_parallel, this_machine, threads_per_run
from cluster.experiment.processes import CommandSpawner
from cluster.experiment.runs import ExperimentRun, experiment_runs
from cluster.experiment.scheduler import Outcome, Scheduler
from cluster.progress import Progress, format_duration
from cluster.run_directory import RunDirectory, lock_run
from cluster.stop_request import StopRequest

_PLAIN_PERIOD_S = 60.0
_ORPHANS_S = 60.0

_TEACH = """\
A file like this is an experiment:

  # blocks.yaml
  presets: [pendulum]                    # as `hdqnn train --help` lists them
  blocks: [pqc, linear, mlp, zeros]
  seeds: 10                              # 1 to 10; or a list
  overrides:                             # any field of `hdqnn train PRESET --help`, for every run
    synchronous: true
    stop_return: null                    # every run to its end: curves of equal length
  variants:                              # optional: one more axis of the grid
    paper: {}
    wide: {critic.hidden_size: 512}
  baseline: linear paper                 # the group that the others are compared with
  goals: {Pendulum-v1: -200}             # return that counts as solved
  final_episodes: 100                    # test episodes of each run's last policy
  results: results/blocks                # optional: a small file per finished run, for grids made in pieces

  hdqnn experiment blocks.yaml --dry-run        the runs, their commands, how many side by side
  hdqnn experiment blocks.yaml                  run them; once more goes on where it stopped
  hdqnn experiment blocks.yaml --report         statistics and figure of what is finished

Ctrl-C saves every running run. runs/blocks/ then holds a directory per run, logs/, and report/ with report.md,
statistics.json, curves.csv, finals.csv and curves.png. docs/experiments.md says what the numbers mean.
"""


def run(arguments: list[str]) -> int:
    """Run an experiment, or report it."""
    parsed = _parse(arguments)
    experiment = read_experiment(parsed.file, parsed.directory)
    if parsed.parallel is not None and parsed.parallel < 1:
        raise ConfigError(f"--parallel must be at least 1, got {parsed.parallel}")
    runs = experiment_runs(experiment)
    if parsed.report:
        return _report(experiment)
    machine = this_machine()
    todo = [run.planned.config for run in runs if run.next_task() is not None]
    parallel = parsed.parallel or fitting_parallel(todo, machine)
    num_threads = min((threads_per_run(config, machine, parallel) for config in todo), default=1)
    if parsed.dry_run:
        sys.stdout.write("".join(_plan(runs, parallel, num_threads)))
        return EXIT_DONE
    experiment.directory.mkdir(parents=True, exist_ok=True)
    with lock_run(RunDirectory(experiment.directory)):
        outcome = _run(runs, parallel, num_threads)
    if outcome.done and not outcome.stopped and not parsed.no_report:
        _report(experiment)
    return _last_lines(outcome, experiment, parsed.file)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="hdqnn experiment",
        description="Runs a grid of presets × variants × blocks × seeds and writes statistics with intervals.",
        epilog=_TEACH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="the experiment, YAML")
    parser.add_argument("--report", action="store_true", help="start nothing: only write the report of finished runs")
    parser.add_argument("--no-report", action="store_true", help="run only")
    parser.add_argument("--dry-run", action="store_true", help="list what each run would do next, and do nothing")
    parser.add_argument("--parallel", type=int, help="runs side by side (default: what cores and memory hold)")
    parser.add_argument("--directory", type=Path, help="where the experiment is kept (default: runs/<name>)")
    return parser.parse_args(arguments)


def _run(runs: Sequence[ExperimentRun], parallel: int, num_threads: int) -> Outcome:
    progress = Progress(plain_period_s=_PLAIN_PERIOD_S)
    stop = StopRequest()
    started_s = time.monotonic()
    _wait_for_orphans(runs)
    scheduler = Scheduler(
        runs,
        parallel=parallel,
        num_threads=num_threads,
        spawn=CommandSpawner(num_threads),
        progress=progress,
        should_stop=stop,
    )
    progress.say(f"{len(runs)} runs in {runs[0].directory}, {parallel} side by side, {num_threads} thread(s) each")
    stop.install()
    try:
        outcome = scheduler.run()
    finally:
        stop.restore()
    progress.say(f"{format_duration(time.monotonic() - started_s)} altogether")
    return outcome


def _wait_for_orphans(runs: Sequence[ExperimentRun]) -> None:
    """Runs of an experiment that was killed save and end by themselves; until then their directories are theirs."""
    deadline_s = time.monotonic() + _ORPHANS_S
    for one in runs:
        while (one.run.path / "lock").exists():
            try:
                with lock_run(one.run):
                    break
            except ConfigError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.5)


def _report(experiment: Experiment) -> int:
    from cluster.experiment.report import report_directory, write_report

    sys.stdout.write(write_report(experiment))
    sys.stdout.write(f"\nreport:       {report_directory(experiment)}\n")
    return EXIT_DONE


def _plan(runs: Sequence[ExperimentRun], parallel: int, num_threads: int) -> list[str]:
    tasks = [(run, run.next_task()) for run in runs]
    waiting = [(run, task) for run, task in tasks if task is not None]
    lines = [f"hdqnn {' '.join(run.arguments(task, num_threads))}\n" for run, task in waiting]
    summary = f"{len(runs)} runs, {len(runs) - len(waiting)} finished; {parallel} side by side\n"
    return [*lines, summary]


def _last_lines(outcome: Outcome, experiment: Experiment, file: Path) -> int:
    say = sys.stdout.write
    say(f"{len(outcome.done)} of {len(experiment.runs)} runs done\n")
    for name in outcome.failed:
        say(f"failed:       {name}, log {experiment.directory / 'logs' / name}.log\n")
    if outcome.failed or outcome.stopped:
        say(f"go on with:   hdqnn experiment {file}\n")
    if outcome.stopped:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if outcome.failed else EXIT_DONE
