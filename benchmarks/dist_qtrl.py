"""Claim: K agents with a circuit each learn in fewer rounds than one; and how much of it a classical policy shows too.

A grid of runs in one process each, bit-reproducible, kept under one directory; a run that is there already is not run
again, so the grid can be made in pieces. The settings of learning are the source's: REINFORCE, one episode per agent
and round, Adam with 1e-3; teams also with rates times √K, since a better gradient alone makes no step longer.

Source: arXiv:2412.08845, Figure 1 (b) and (c).
"""

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.dist_qtrl_figure import draw
from cluster.checkpoint import load_newest
from cluster.errors import CheckpointError
from cluster.quantum_train.command import train
from cluster.run_directory import RunDirectory, read_rows

_TARGET = 195.0
"""Joint training return (drawn actions) that counts as learned: the threshold of CartPole-v0."""
_WINDOW = 20
"""Rounds that the mean goes over."""
_STOP = 475.0
"""Mean return of two test rounds in a row (most probable actions) that ends a run."""
_MAX_ROUNDS = 5_000
"""Of a run. One whose policy has collapsed to a constant action would make ten thousands of rounds of a few steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One kind of run."""

    parametrisation: str
    depth: int
    num_agents: int
    total_steps: int
    is_scaled: bool = False
    """Learning rates times √K, the rule for Adam (arXiv:2205.10287), instead of the same for all."""

    @property
    def name(self) -> str:
        """In file names and tables."""
        depth = f"L{self.depth}-" if self.parametrisation == "quantum_train" else ""
        return f"{self.parametrisation}-{depth}K{self.num_agents}{'-scaled' if self.is_scaled else ''}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench dist_qtrl``."""
    parser.add_argument("--directory", type=Path, default=Path("runs/dist-qtrl"), help="where the runs are kept")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind (default: %(default)s)")
    parser.add_argument("--figure", type=Path, help="also draw the figure to this PNG")
    parser.add_argument("--minutes", type=float, help="start no further run after so many minutes")


def run(
    directory: Path = Path("runs/dist-qtrl"),
    seeds: int = 5,
    figure: Path | None = None,
    minutes: float | None = None,
) -> dict[str, Any]:
    """Make the runs that are missing, and read all that are there.

    Args:
        directory: of the runs.
        seeds: runs of each kind.
        figure: PNG to draw.
        minutes: time after which no further run starts; what is missing is listed then.

    Returns:
        ``cells``: per kind and seed rounds and episodes per agent to the target, last test return; ``missing`` runs.
    """
    started_s = time.monotonic()
    missing = []
    for cell, seed in _runs(range(1, seeds + 1)):
        path = directory / f"{cell.name}-s{seed}"
        if _is_finished(path):
            continue
        if minutes is not None and time.monotonic() - started_s > 60 * minutes:
            missing.append(path.name)
            continue
        if path.exists():
            path.rename(path.with_name(f"{path.name}.unfinished-{time.monotonic_ns()}"))
        train("qtrl-cartpole-source", _flags(cell, seed, path))
    cells = [_read(cell, directory, range(1, seeds + 1)) for cell in _cells()]
    if figure is not None:
        draw(cells, figure, target=_TARGET)
    for cell_result in cells:
        for row in cell_result["seeds"]:
            del row["curve"]
    return {"target": _TARGET, "window_rounds": _WINDOW, "cells": cells, "missing": missing}


def _cells() -> list[Cell]:
    deep = [Cell(parametrisation="quantum_train", depth=d, num_agents=1, total_steps=400_000) for d in (7, 13)]
    teams = [
        Cell(parametrisation=kind, depth=3, num_agents=k, total_steps=400_000 + 100_000 * (k - 1), is_scaled=scaled)
        for kind in ("quantum_train", "classical")
        for scaled in (False, True)
        for k in ((2, 4, 8) if scaled else (1, 2, 4, 8))
    ]
    return [*deep, *teams]


def _runs(seeds: Sequence[int]) -> Iterator[tuple[Cell, int]]:
    """Seed by seed, so that what is done at any time is balanced."""
    for seed in seeds:
        for cell in _cells():
            yield cell, seed


def _flags(cell: Cell, seed: int, path: Path) -> list[str]:
    rate = str(1e-3 * math.sqrt(cell.num_agents if cell.is_scaled else 1))
    return [
        "--synchronous",
        *("--learning.circuit-learning-rate", rate, "--learning.mapping-learning-rate", rate),
        *("--parametrisation", cell.parametrisation, "--depth", str(cell.depth), "--agents", str(cell.num_agents)),
        *(
            "--total-steps",
            str(cell.total_steps),
            "--total-rounds",
            str(_MAX_ROUNDS),
            "--seed",
            str(seed),
            "--run-dir",
            str(path),
        ),
        # The run is over when it has learned; a test costs as much as many rounds.
        *("--tests.period-rounds", "50", "--tests.num-episodes", "10", "--stop-return", str(_STOP)),
    ]


def _is_finished(path: Path) -> bool:
    try:
        load_newest(RunDirectory(path).checkpoints)
    except CheckpointError:
        return False
    return any(read_rows(RunDirectory(path).evaluations))


def _read(cell: Cell, directory: Path, seeds: Sequence[int]) -> dict[str, Any]:
    rows = []
    for seed in seeds:
        path = directory / f"{cell.name}-s{seed}"
        if _is_finished(path):
            rows.append({"seed": seed, **_summary(RunDirectory(path))})
    reached = [row["rounds"] for row in rows if row["rounds"] is not None]
    return {
        "name": cell.name,
        "parametrisation": cell.parametrisation,
        "depth": cell.depth,
        "num_agents": cell.num_agents,
        "is_scaled": cell.is_scaled,
        "reached": f"{len(reached)} of {len(rows)}",
        "median_rounds": statistics.median(reached) if reached else None,
        "seeds": rows,
    }


def _summary(run: RunDirectory) -> dict[str, Any]:
    rows = [row for row in read_rows(run.metrics) if int(row["team/round"]) <= _MAX_ROUNDS]
    curve = [(int(row["team/round"]), float(row["rollout/episode_return"])) for row in rows]
    values = [value for _, value in curve]
    means = [statistics.fmean(values[max(0, i + 1 - _WINDOW) : i + 1]) for i in range(len(values))]
    first = next((curve[i][0] for i in range(_WINDOW - 1, len(means)) if means[i] >= _TARGET), None)
    tests = [float(row["mean_return"]) for row in read_rows(run.evaluations)]
    if first is None and len(tests) >= 2 and min(tests[-2:]) >= _STOP:
        # Its tests ended the run before drawn actions came so far on average.
        first = curve[-1][0]
    return {
        "rounds": first,
        "episodes_per_agent": first,  # one episode per agent and round
        "env_steps": int(rows[-1]["env_step"]),
        "last_test": tests[-1],
        "best_test": max(tests),
        "curve": list(zip((number for number, _ in curve), means, strict=True)),
    }
