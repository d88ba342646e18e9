"""Faults: break parts of a running system on purpose and count what was lost, doubled, and how long it took."""

import argparse
from collections.abc import Sequence
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench faults``."""
    from benchmarks.faults.bench import fault_names

    names = fault_names()
    parser.add_argument("--only", nargs="+", choices=names, metavar="FAULT", help=f"some of {', '.join(names)}")
    parser.add_argument("--repeats", type=int, default=5, help="how often each fault is made (default 5)")


def run(*, only: Sequence[str] | None = None, repeats: int = 5) -> dict[str, Any]:
    """Make the faults; see ``bench.run_faults``."""
    from benchmarks.faults.bench import run_faults

    return run_faults(only, repeats)
