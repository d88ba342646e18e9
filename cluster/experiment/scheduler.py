"""Keeps a number of runs going, each in processes of its own, until every run is finished or somebody stops it.

It must never read or change what is inside a run: what a run needs next is told by its directory (runs.py), and the
work is done by ``hdqnn train``, ``resume`` and ``evaluate`` as a person would call them.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cluster.errors import ConfigError
from cluster.experiment.runs import ExperimentRun, Task
from cluster.progress import Progress, format_duration

_LOOK_PERIOD_S = 0.2


class RunningCommand(Protocol):
    """What the scheduler needs of a process."""

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to save and end."""
        ...


class Spawn(Protocol):
    """Starts ``hdqnn`` with these arguments, its output appended to ``log``."""

    def __call__(self, arguments: Sequence[str], log: Path) -> RunningCommand:
        """The started command."""
        ...


@dataclass(slots=True)
class Outcome:
    """Where the runs stand."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    """Not finished because somebody stopped the experiment, waiting ones included."""


@dataclass(slots=True)
class _Active:
    run: ExperimentRun
    task: Task
    command: RunningCommand


class Scheduler:
    """Runs the tasks of an experiment.

    Args:
        runs: in the order in which they start.
        parallel: runs side by side.
        num_threads: torch threads of each; None leaves them to the runs.
        spawn: starts a command.
        progress: tells a person.
        should_stop: asked all the time; every running command is asked to end then.
        clock: monotonic seconds.
        sleep: waits between two looks.
    """

    def __init__(
        self,
        runs: Sequence[ExperimentRun],
        *,
        parallel: int,
        num_threads: int | None,
        spawn: Spawn,
        progress: Progress,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._runs, self._parallel, self._num_threads = runs, parallel, num_threads
        self._spawn, self._progress, self._should_stop = spawn, progress, should_stop
        self._clock, self._sleep = clock, sleep
        self._active: list[_Active] = []
        self._outcome = Outcome()
        self._is_stopping = False

    def run(self) -> Outcome:
        """Until nothing is left; a run that fails is reported and the others go on.

        Raises:
            ConfigError: before anything starts, if a directory holds a run of another configuration.
        """
        tasks = [(run, run.next_task()) for run in self._runs]
        for run in [run for run, task in tasks if task is None]:
            run.keep()
            self._outcome.done.append(run.planned.name)
        waiting = deque((run, task) for run, task in tasks if task is not None)
        self._started_s, self._first_steps = self._clock(), self._steps_made()
        try:
            while waiting or self._active:
                while waiting and len(self._active) < self._parallel and not self._should_stop():
                    self._start(*waiting.popleft())
                self._look()
                if self._should_stop():
                    self._outcome.stopped += [run.planned.name for run, _ in waiting]
                    waiting.clear()
                    break
                self._progress.show(lambda: self._line(len(waiting)))
                self._sleep(_LOOK_PERIOD_S)
        finally:
            self._stop_all()
        return self._outcome

    def _start(self, run: ExperimentRun, task: Task) -> None:
        run.prepare(task)
        run.log.parent.mkdir(parents=True, exist_ok=True)
        command = self._spawn(run.arguments(task, self._num_threads), run.log)
        self._active.append(_Active(run, task, command))

    def _look(self) -> None:
        """Take the commands that have ended, and start what their runs need next in the same place."""
        for active in list(self._active):
            code = active.command.poll()
            if code is None:
                continue
            self._active.remove(active)
            if code != 0:
                self._end_badly(active, code)
                continue
            try:
                self._go_on(active)
            except (ConfigError, OSError) as error:
                self._fail(active, str(error))

    def _go_on(self, active: _Active) -> None:
        """After a task that ended well."""
        run, name = active.run, active.run.planned.name
        run.record(active.task)
        following = run.next_task()
        if following == active.task:
            self._fail(active, f"{following} ended well and left the run as it was")
        elif following is None:
            run.keep()
            self._outcome.done.append(name)
            self._progress.say(f"{name}: done ({len(self._outcome.done)} of {len(self._runs)}){_result(active)}")
        elif self._is_stopping or self._should_stop():
            self._outcome.stopped.append(name)
        else:
            self._start(run, following)

    def _end_badly(self, active: _Active, code: int) -> None:
        if self._is_stopping or self._should_stop():
            self._outcome.stopped.append(active.run.planned.name)
        else:
            self._fail(active, f"{active.task} ended with {code}: {_last_line(active.run.log)}")

    def _fail(self, active: _Active, reason: str) -> None:
        self._outcome.failed.append(active.run.planned.name)
        self._progress.say(f"{active.run.planned.name}: FAILED, {reason}; log: {active.run.log}")

    def _stop_all(self) -> None:
        """Ask every command to save and end, and wait for it; asked again, they end without saving."""
        if not self._active:
            return
        self._is_stopping = True
        self._progress.say(f"stopping {len(self._active)} running: each saves a checkpoint; Ctrl-C again does not wait")
        for active in self._active:
            active.command.terminate()
        while self._active:
            try:
                self._look()
                self._sleep(_LOOK_PERIOD_S)
            except KeyboardInterrupt:
                for active in self._active:
                    active.command.terminate()

    def _steps_made(self) -> int:
        return sum(min(run.env_step(), run.planned.config.total_steps) for run in self._runs)

    def _line(self, num_waiting: int) -> str:
        made, total = self._steps_made(), sum(run.planned.config.total_steps for run in self._runs)
        parts = [
            f"{len(self._outcome.done)} of {len(self._runs)} done",
            f"{len(self._active)} running",
            f"{num_waiting} waiting",
            *([f"{len(self._outcome.failed)} FAILED"] if self._outcome.failed else []),
            f"step {made:,}/{total:,}",
        ]
        elapsed_s, new_steps = self._clock() - self._started_s, made - self._first_steps
        if new_steps > 0:
            parts.append(f"{format_duration((total - made) * elapsed_s / new_steps)} left")
        return " | ".join(parts)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    return lines[-1] if lines else "it said nothing"


def _result(active: _Active) -> str:
    returns = active.run.final_returns()
    return f", {len(returns)} test episodes: mean return {sum(returns) / len(returns):.1f}" if returns else ""
