"""The statistics of an experiment as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any


def markdown(content: Mapping[str, Any]) -> str:
    """The tables of a report.

    Args:
        content: what statistics.json holds.
    """
    return "\n".join(_lines(content)) + "\n"


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {content['experiment']}"
    yield ""
    yield f"Score: {content['score']}. In brackets: {content['interval']}. IQM: mean of the middle half of the seeds."
    for env_id, environment in content["environments"].items():
        yield ""
        yield f"## {env_id}"
        yield ""
        yield from _table(environment)
    over_all = content["improvement_over_all_environments"]
    if over_all:
        yield ""
        yield "## Over all environments"
        yield ""
        yield "| group | probability of improvement |"
        yield "|---|---|"
        for name, interval in over_all.items():
            yield f"| {name} | {_interval(interval, 2)} |"
    if content["unfinished"]:
        yield ""
        yield f"Not finished, so in none of the tables: {', '.join(content['unfinished'])}."


def _table(environment: Mapping[str, Any]) -> Iterator[str]:
    baseline, goal = environment["baseline"], environment["goal"]
    columns = ["group", "seeds", "IQM", "mean", "median", "lowest", "highest"]
    columns += [] if baseline is None else [f"P(better than {baseline})"]
    columns += [] if goal is None else [f"reached {goal:g}", f"gap to {goal:g}"]
    yield _row(columns)
    yield "|" + "---|" * len(columns)
    for name, group in environment["groups"].items():
        cells = [name, str(len(group["seeds"]))]
        cells += [_interval(group[statistic]) for statistic in ("iqm", "mean", "median")]
        cells += [f"{group[extreme]:,.1f}" for extreme in ("lowest", "highest")]
        if baseline is not None:
            cells.append("baseline" if group["improvement"] is None else _interval(group["improvement"], 2))
        if goal is not None:
            cells += [f"{group['reached_goal']} of {len(group['seeds'])}", _interval(group["optimality_gap"])]
        yield _row(cells)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(interval: Mapping[str, float], digits: int = 1) -> str:
    return f"{interval['value']:,.{digits}f} [{interval['low']:,.{digits}f}, {interval['high']:,.{digits}f}]"
