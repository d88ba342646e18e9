"""``hdqnn bench faults``: every fault that one machine can make, on real processes and a real server, in one JSON."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.process import STEPS
from benchmarks.faults.replay_faults import Fault, compare, make_faults, measure, measure_emptied
from benchmarks.faults.run_faults import (
    VICTIMS,
    measure_learner,
    measure_node,
    measure_server,
    measure_victim,
    start_run,
)
from benchmarks.faults.stage import Stage

_WINDOW_S = 5.0
_RUN_FAULTS = (*VICTIMS, "run-kill-server", "run-kill-learner", "run-kill-node")
_EMPTIED = "empty-server"


def run_faults(only: Sequence[str] | None, repeats: int) -> dict[str, Any]:
    """Make the named faults, or all of them; about 20 min for all five times, mostly waiting.

    Returns:
        Fault name → what ``measure`` and its siblings counted; ``everything`` as of ``run_on_stage``.

    Raises:
        ValueError: for a name that is not known.
    """
    on_stage = make_faults()
    wanted = list(only or fault_names())
    if unknown := sorted(set(wanted) - set(fault_names())):
        raise ValueError(f"unknown faults {unknown}; the known ones are {fault_names()}")
    results: dict[str, Any] = {}
    if chosen := {name: fault for name, fault in on_stage.items() if name in wanted}:
        results |= run_on_stage(chosen, repeats=repeats, window_s=_WINDOW_S)
    if _EMPTIED in wanted:
        results[_EMPTIED] = measure_emptied(repeats=repeats)
    if chosen_names := [name for name in _RUN_FAULTS if name in wanted]:
        results |= run_on_training(chosen_names, repeats=repeats, window_s=_WINDOW_S)
    return results


def fault_names() -> list[str]:
    """Every fault, in the order in which they are made."""
    return [*make_faults(), _EMPTIED, *_RUN_FAULTS]


def run_on_stage(faults: Mapping[str, Fault], *, repeats: int, window_s: float) -> dict[str, Any]:
    """Put one stage through faults, one after another.

    Returns:
        Fault name → what ``measure`` counted; and under ``everything`` the sets of the whole time, with
        ``missing_in_mirror``, the transitions stored but not held by the learner (or held twice, if negative).
    """
    with tempfile.TemporaryDirectory() as directory, Stage.start(Path(directory)) as stage:
        results: dict[str, Any] = {
            name: measure(stage, fault, repeats=repeats, window_s=window_s) for name, fault in faults.items()
        }
        stage.stop_actors()
        held = stage.stop_learner()
        stored = stage.stored()
        acknowledged = {entry.segment for entry in stage.acknowledged()}
        results["everything"] = {
            **compare(acknowledged, stored, set(stage.sampled())),
            "missing_in_mirror": float(STEPS * len(stored) - held),
        }
    return results


def run_on_training(names: Sequence[str], *, repeats: int, window_s: float) -> dict[str, Any]:
    """Put one training run through faults, one after another; fault name → what was counted."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory, start_run(Path(directory)) as run:
        for name in names:
            if name in VICTIMS:
                results[name] = measure_victim(run, name, repeats=repeats, window_s=window_s)
            elif name == "run-kill-server":
                results[name] = measure_server(run, repeats=repeats, window_s=window_s)
            elif name == "run-kill-learner":
                results[name] = measure_learner(run, repeats=repeats)
            else:
                results[name] = measure_node(run, repeats=repeats)
    return results
