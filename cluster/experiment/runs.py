"""What each run of an experiment still needs, read from its directory: train, resume, evaluate, or nothing.

Nothing is held in memory alone: an experiment that was killed goes on from what its directories say. A run whose result
was kept (kept.py), by this machine or by another one, needs nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.config import read_config, to_dict
from cluster.errors import ConfigError
from cluster.experiment.grid import Experiment, PlannedRun
from cluster.experiment.kept import KeptResult, read_kept, write_kept
from cluster.run_directory import RunDirectory, read_rows

Task = Literal["train", "resume", "evaluate"]
_NOT_COMPARED = ("run_dir", "backend", "num_threads", "prometheus_port")
"""Fields that a run may have otherwise than the file: where and how it runs."""
_TAIL_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ExperimentRun:
    """A planned run and its place on disk."""

    planned: PlannedRun
    directory: Path
    """Of the experiment."""
    final_episodes: int
    final_seed: int
    results: Path | None = None
    """Where results of finished runs are kept; None keeps none."""

    @property
    def run(self) -> RunDirectory:
        """What the run leaves behind."""
        return RunDirectory(self.directory / self.planned.name)

    @property
    def log(self) -> Path:
        """What the run's commands printed."""
        return self.directory / "logs" / f"{self.planned.name}.log"

    @property
    def final(self) -> Path:
        """Result of the test episodes of the last policy, as ``hdqnn evaluate --json`` writes it."""
        return self.run.path / "final.json"

    @property
    def _unfinished_final(self) -> Path:
        return self.run.path / ".final.json"

    @property
    def _trained(self) -> Path:
        return self.run.path / "trained.json"

    def next_task(self) -> Task | None:
        """What is to be done next; None where the run is finished.

        Raises:
            ConfigError: if the directory, or its kept result, is of a run with another configuration.
        """
        if self.kept_result() is not None:
            return None
        if not self.run.config.is_file() or not self._has_checkpoint():
            return "train"
        self._check_config()
        if self._trained_steps() < self.planned.config.total_steps:
            return "resume"
        if self.final_episodes and self._final_episodes() != self.final_episodes:
            return "evaluate"
        return None

    def arguments(self, task: Task, num_threads: int | None) -> list[str]:
        """Arguments of ``hdqnn`` for a task.

        Args:
            task: what ``next_task`` said.
            num_threads: torch threads of a new run whose configuration does not say; None leaves them to the run.
        """
        if task == "train":
            is_left = num_threads is None or self.planned.config.num_threads is not None
            threads = [] if is_left else ["--num-threads", str(num_threads)]
            flags = [*self.planned.flags, *threads, "--run-dir", str(self.run.path)]
            return ["train", self.planned.preset, *flags]
        if task == "resume":
            return ["resume", str(self.run.path), "--total-steps", str(self.planned.config.total_steps)]
        episodes = ["--episodes", str(self.final_episodes), "--seed", str(self.final_seed)]
        return ["evaluate", str(self.run.path), *episodes, "--json", str(self._unfinished_final)]

    def prepare(self, task: Task) -> None:
        """Set aside a directory without a checkpoint: there is nothing in it to go on from."""
        if task == "train" and self.run.path.exists():
            aside = self.directory / "set-aside"
            aside.mkdir(parents=True, exist_ok=True)
            count = len(list(aside.glob(f"{self.planned.name}.*")))
            self.run.path.rename(aside / f"{self.planned.name}.{count + 1}")

    def record(self, task: Task) -> None:
        """Remember that a task ended well."""
        if task == "evaluate":
            self._unfinished_final.replace(self.final)
            return
        temporary = self._trained.with_name(".trained.json")
        temporary.write_text(json.dumps({"total_steps": self.planned.config.total_steps}) + "\n")
        temporary.replace(self._trained)
        # A longer training makes the old policy's test episodes those of somebody else.
        self.final.unlink(missing_ok=True)

    def keep(self) -> None:
        """Keep the result of a finished run, if there is a place for it and it is not there yet."""
        if self.results is None or self.kept_result() is not None:
            return
        made = _flat(to_dict(read_config(self.run.config)))
        result = KeptResult(
            # A path of this machine means nothing elsewhere.
            config={name: value for name, value in made.items() if name != "run_dir"},
            final_seed=self.final_seed,
            final_returns=tuple(self.final_returns() or ()),
            rounds=self.test_rounds(),
        )
        write_kept(result, self._kept)

    def kept_result(self) -> KeptResult | None:
        """The result that was kept; None where there is none, or one of a shorter run or of other final episodes.

        Raises:
            ConfigError: if it is of a run with another configuration, or cannot be read.
        """
        result = read_kept(self._kept) if self.results is not None else None
        if result is None:
            return None
        self._check_same(result.config, self._kept)
        wanted = self.final_episodes, self.final_seed if self.final_episodes else result.final_seed
        is_whole = result.config["total_steps"] == self.planned.config.total_steps
        return result if is_whole and (len(result.final_returns), result.final_seed) == wanted else None

    def test_rounds(self) -> Sequence[Mapping[str, Any]]:
        """Every test round so far, as ``evaluations.jsonl`` and kept results have them."""
        result = self.kept_result()
        return list(read_rows(self.run.evaluations)) if result is None else result.rounds

    def env_step(self) -> int:
        """Environment steps that the newest row of metrics tells of."""
        result = self.kept_result()
        if result is not None:
            return int(result.config["total_steps"])
        try:
            with self.run.metrics.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
                lines = file.read().splitlines()
        except OSError:
            return 0
        for line in reversed(lines):
            try:
                return int(json.loads(line)["env_step"])
            except (ValueError, KeyError, TypeError):
                continue
        return 0

    def final_returns(self) -> list[float] | None:
        """Returns of the final test episodes; None where they were not run."""
        kept = self.kept_result()
        if kept is not None:
            return list(kept.final_returns) or None
        result = _read_json(self.final)
        return None if result is None else [float(value) for value in result["returns"]]

    def _has_checkpoint(self) -> bool:
        return any(self.run.checkpoints.glob("step_*/manifest.json"))

    def _trained_steps(self) -> int:
        result = _read_json(self._trained)
        return 0 if result is None else int(result["total_steps"])

    def _final_episodes(self) -> int:
        return len(self.final_returns() or [])

    @property
    def _kept(self) -> Path:
        return (self.results or self.directory) / f"{self.planned.name}.json"

    def _check_config(self) -> None:
        self._check_same(_flat(to_dict(read_config(self.run.config))), self.run.path)

    def _check_same(self, found: Mapping[str, Any], where: Path) -> None:
        """Fields that only one side has came or went with a version of the program, and say nothing."""
        wanted = _flat(to_dict(self.planned.config))
        differing = [
            f"{name} = {found[name]!r} and not {wanted[name]!r}"
            for name in sorted(wanted.keys() & found.keys())
            if name not in _NOT_COMPARED and found[name] != wanted[name] and not self._can_grow(name, found[name])
        ]
        if differing:
            raise ConfigError(
                f"{where} was made with {', '.join(differing)}; an experiment holds runs of one file: change "
                "the file back, or give the changed experiment another name"
            )

    def _can_grow(self, name: str, found: Any) -> bool:
        """A shorter run is made longer where a longer one does the same from its first step on."""
        config = self.planned.config
        return name == "total_steps" and found < config.total_steps and not config.has_schedules


def experiment_runs(experiment: Experiment) -> list[ExperimentRun]:
    """The runs of an experiment with their places on disk."""
    directory, episodes, seed = experiment.directory, experiment.final_episodes, experiment.final_seed
    return [ExperimentRun(planned, directory, episodes, seed, experiment.results) for planned in experiment.runs]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
