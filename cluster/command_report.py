"""``hdqnn report``: what runs reached, as a table and a picture."""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.errors import EXIT_DONE
from cluster.plot import draw_comparison
from cluster.quantum_train.config import is_quantum_train
from cluster.quantum_train.config import read_config as read_team_config
from cluster.run_directory import RunDirectory, open_run_directory, read_rows

_BLOCK_HEADER = (
    "| environment | block | seeds | last test, mean | lowest seed | highest seed "
    "| reached the goal | median first step |"
)
_HEADER = "| run | environment | block | backend | seed | steps | last test | best test | first test ≥ goal |"


def run(arguments: list[str]) -> int:
    """Summarise runs."""
    parser = argparse.ArgumentParser(
        prog="hdqnn report",
        description="Prints a Markdown table of runs: last and best test round and when a goal was first reached.",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--goal", type=float, help="mean test return whose first step is reported")
    parser.add_argument("--by-block", action="store_true", help="one row per environment and block, over the seeds")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--picture", type=Path, help="also draw the test curves, one line per run, to this PNG")
    parsed = parser.parse_args(arguments)
    runs = _only_runs(parsed.runs)
    rows = [summarise(path, parsed.goal) for path in runs]
    table = _table_by_block(rows) if parsed.by_block else _table(rows)
    sys.stdout.write("\n".join(table) + "\n")
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(rows, indent=1) + "\n")
    if parsed.picture is not None:
        draw_comparison([RunDirectory(path) for path in runs], parsed.picture)
    return EXIT_DONE


def _only_runs(paths: Sequence[Path]) -> list[Path]:
    """``runs/*`` also names what an experiment keeps there: said and left out, unless no run would be left."""
    others = [path for path in paths if path.exists() and not (path / "config.yaml").exists()]
    if len(others) == len(paths):
        return list(paths)
    for path in others:
        sys.stderr.write(
            f"hdqnn: left out {path}, which is not a run directory; an experiment is reported by "
            "`hdqnn experiment FILE --report`\n"
        )
    return [path for path in paths if path not in others]


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        _HEADER,
        _rule(_HEADER),
        *(
            "| {run} | {env_id} | {block} | {backend} | {seed} | {env_step:,} | {last} | {best} | {reached} |".format(
                **{**row, "last": _number(row["last"]), "best": _number(row["best"]), "reached": _step(row["reached"])}
            )
            for row in rows
        ),
    ]


def _table_by_block(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Every seed counts: mean, lowest and highest of the last rounds, never the best seed's."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["last"] is not None:
            groups.setdefault((row["env_id"], row["block"]), []).append(row)
    lines = [_BLOCK_HEADER, _rule(_BLOCK_HEADER)]
    for (env_id, block), group in groups.items():
        last = [row["last"] for row in group]
        reached = sorted(row["reached"] for row in group if row["reached"] is not None)
        lines.append(
            f"| {env_id} | {block} | {len(group)} | {statistics.fmean(last):.1f} | {min(last):.1f} | {max(last):.1f} "
            f"| {len(reached)} of {len(group)} | {_step(round(statistics.median(reached)) if reached else None)} |"
        )
    return lines


def _rule(header: str) -> str:
    return "|" + " --- |" * (header.count("|") - 1)


def summarise(path: Path, goal: float | None) -> dict[str, Any]:
    """One row: what a run was and what its test rounds reached.

    Raises:
        ConfigError: if there is no run at this path.
    """
    run_directory = RunDirectory(path)
    config: Any = read_team_config(run_directory.config) if is_quantum_train(path) else open_run_directory(path)[1]
    rounds = list(read_rows(run_directory.evaluations))
    means = [float(row["mean_return"]) for row in rounds]
    reached = [int(row["env_step"]) for row in rounds if goal is not None and row["mean_return"] >= goal]
    return {
        "run": path.resolve().name,
        "env_id": config.env_id,
        "block": config.label if is_quantum_train(path) else config.block,
        "backend": config.backend or "none",
        "seed": config.seed,
        "env_step": int(rounds[-1]["env_step"]) if rounds else 0,
        "last": means[-1] if means else None,
        "best": max(means) if means else None,
        "reached": reached[0] if reached else None,
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _step(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
