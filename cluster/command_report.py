"""``hdqnn report``: what runs reached, as a table and a picture."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cluster.errors import EXIT_DONE
from cluster.plot import draw_comparison
from cluster.run_directory import open_run_directory, read_rows

_HEADER = "| run | environment | block | backend | seed | steps | last test | best test | first test ≥ goal |"


def run(arguments: list[str]) -> int:
    """Summarise runs."""
    parser = argparse.ArgumentParser(
        prog="hdqnn report",
        description="Prints a Markdown table of runs: last and best test round and when a goal was first reached.",
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run directories")
    parser.add_argument("--goal", type=float, help="mean test return whose first step is reported")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--picture", type=Path, help="also draw the test curves, one line per run, to this PNG")
    parsed = parser.parse_args(arguments)
    rows = [summarise(path, parsed.goal) for path in parsed.runs]
    lines = [_HEADER, "|" + " --- |" * (_HEADER.count("|") - 1)]
    lines += [
        "| {run} | {env_id} | {block} | {backend} | {seed} | {env_step:,} | {last} | {best} | {reached} |".format(
            **{**row, "last": _number(row["last"]), "best": _number(row["best"]), "reached": _step(row["reached"])}
        )
        for row in rows
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(rows, indent=1) + "\n")
    if parsed.picture is not None:
        draw_comparison([open_run_directory(path)[0] for path in parsed.runs], parsed.picture)
    return EXIT_DONE


def summarise(path: Path, goal: float | None) -> dict[str, Any]:
    """One row: what a run was and what its test rounds reached.

    Raises:
        ConfigError: if there is no run at this path.
    """
    run_directory, config = open_run_directory(path)
    rounds = list(read_rows(run_directory.evaluations))
    means = [float(row["mean_return"]) for row in rounds]
    reached = [int(row["env_step"]) for row in rounds if goal is not None and row["mean_return"] >= goal]
    return {
        "run": path.resolve().name,
        "env_id": config.env_id,
        "block": config.block,
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
