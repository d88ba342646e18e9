"""``hdqnn bench faults``: every fault that one machine can make, on real processes and a real server, in one JSON."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.faults.process import STEPS
from benchmarks.faults.replay_faults import Fault, compare, measure
from benchmarks.faults.stage import Stage


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
