"""What the runs of an experiment reached, read from their directories, and the tables of every seed."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.experiment.runs import ExperimentRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """One run that has had at least one test round."""

    name: str
    env_id: str
    group: str
    block: str
    variant: str
    seed: int
    is_finished: bool
    env_step: int
    """Of the last test round."""
    update_step: int
    curve: dict[int, float]
    """Step of the test round, rounded down to the period → mean return of the round."""
    final_returns: tuple[float, ...]
    """Of the final test episodes; those of the last test round where no others were asked for."""

    @property
    def score(self) -> float:
        """Mean return of the final test episodes."""
        return sum(self.final_returns) / len(self.final_returns)


def read_result(run: ExperimentRun) -> RunResult | None:
    """What a run reached so far; None before its first test round."""
    rounds = run.test_rounds()
    if not rounds:
        return None
    planned, config = run.planned, run.planned.config
    period = config.evaluation.period_steps
    # Runs insert whole segments, so the same round comes some steps earlier or later; the last one has its own step.
    curve = {}
    for row in rounds:
        step = int(row["env_step"])
        key = step // period * period if step < config.total_steps else config.total_steps
        curve[key] = float(row["mean_return"])
    final = run.final_returns() if run.final_episodes else None
    return RunResult(
        name=planned.name,
        env_id=config.env_id,
        group=planned.group,
        block=planned.block,
        variant=planned.variant,
        seed=planned.seed,
        is_finished=run.next_task() is None,
        env_step=int(rounds[-1]["env_step"]),
        update_step=int(rounds[-1]["update_step"]),
        curve=curve,
        final_returns=tuple(final or rounds[-1]["returns"]),
    )


def write_curves(runs: Sequence[ExperimentRun], path: Path) -> None:
    """Every test round of every run, unrounded, one row each."""

    def rows() -> Iterator[list[object]]:
        for run in runs:
            planned = run.planned
            for row in run.test_rounds():
                yield [
                    *(planned.config.env_id, planned.group, planned.block, planned.variant, planned.seed),
                    *(
                        row["env_step"],
                        row["update_step"],
                        row["mean_return"],
                        min(row["returns"]),
                        max(row["returns"]),
                    ),
                ]

    header = ["environment", "group", "block", "variant", "seed", "env_step", "update_step", "mean_return"]
    _write(path, [*header, "lowest_return", "highest_return"], rows())


def write_finals(results: Sequence[RunResult], path: Path) -> None:
    """Final score of every finished run."""
    header = ["environment", "group", "block", "variant", "seed", "env_step", "update_step", "episodes", "mean_return"]
    rows = (
        [
            *(result.env_id, result.group, result.block, result.variant, result.seed),
            *(result.env_step, result.update_step, len(result.final_returns), result.score),
        ]
        for result in results
        if result.is_finished
    )
    _write(path, header, rows)


def _write(path: Path, header: Sequence[str], rows: Iterator[list[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
