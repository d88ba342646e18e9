"""Writes the table of docs/reliability.md from the JSON of ``hdqnn bench faults``.

Usage: ``python -m benchmarks.faults.table JSON PAGE``. The file keeps everything but what stands between its two marks.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_START, _END = "<!-- faults: start -->", "<!-- faults: end -->"
_HEAD = (
    "| fault | times | acknowledged segments | lost | doubled | recovery p50 / p95 | throughput lost "
    "| `hdqnn bench faults --only …` |\n|---|---|---|---|---|---|---|---|"
)


def render(results: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    return "\n".join([_HEAD, *(_row(name, row) for name, row in results.items() if "fault" in row)])


def write_into(page: Path, results: Mapping[str, Any]) -> None:
    """Replace the table of a page.

    Raises:
        ValueError: if the page has no marks.
    """
    text = page.read_text()
    if text.count(_START) != 1 or text.count(_END) != 1:
        raise ValueError(f"{page} must have the lines {_START!r} and {_END!r} once each; put them where the table goes")
    before, rest = text.split(_START)
    _, after = rest.split(_END)
    page.write_text(f"{before}{_START}\n{render(results)}\n{_END}{after}")


def _row(name: str, row: Mapping[str, Any]) -> str:
    recovery = f"{row['recovery_p50_s']:.2f} s / {row['recovery_p95_s']:.2f} s"
    if "silent" in row:
        cells = ["–", "–", "–", f"every process ends: {recovery}", "–"]
        if row["silent"]:
            cells[0] = f"{row['silent']:.0f} processes went on silently"
    else:
        lost = f"{row['throughput_lost_percent']:.0f} % of {max(row['window_s'], row['recovery_p50_s']):.0f} s"
        cells = [
            f"{row['acknowledged']:,.0f}",
            f"{row['lost']:.0f}",
            f"{row['duplicated']:.0f}",
            recovery,
            lost,
        ]
    return f"| {row['fault']} | {row['repeats']:.0f} | {' | '.join(cells)} | `{name}` |"


def main(source: str, page: str) -> None:
    """Write the table of one file into another."""
    write_into(Path(page), json.loads(Path(source).read_text()))


if __name__ == "__main__":
    main(*sys.argv[1:])
