"""The figure of an experiment, after Fig. 4 of arXiv:2503.09119: test returns over environment steps, a line per group.

The paper has one run per line, its rounds as dots and a rolling mean over ten of them. Here a line is the interquartile
mean over the seeds with its 95 % interval; a group of one seed is drawn as the paper does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cluster.experiment.statistics import Band

_ROLLING_ROUNDS = 10
_PANEL_INCHES = (6.4, 4.2)


@dataclass(frozen=True, slots=True)
class Curve:
    """Test rounds of one group on one environment."""

    group: str
    steps: Sequence[int]
    """Rounds that every seed of the group has had."""
    band: Band
    values: Float64[np.ndarray, "R K"]
    """Mean return of each seed's rounds."""


def draw_figure(curves: Mapping[str, Sequence[Curve]], path: Path, goals: Mapping[str, float]) -> None:
    """Draw a panel per environment.

    Args:
        curves: environment id → groups.
        path: the PNG.
        goals: environment id → return drawn as a dashed line.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    width, height = _PANEL_INCHES
    figure, panels = plt.subplots(1, len(curves), figsize=(width * len(curves), height), squeeze=False)
    names = list(dict.fromkeys(curve.group for groups in curves.values() for curve in groups))
    for axes, (env_id, groups) in zip(panels[0], curves.items(), strict=True):
        for curve in groups:
            color = f"C{names.index(curve.group) % 10}"
            num_seeds = len(curve.values)
            label = f"{curve.group} ({num_seeds} seed{'s' if num_seeds > 1 else ''})"
            if num_seeds == 1:
                axes.plot(curve.steps, curve.values[0], ".", color=color, alpha=0.4)
                axes.plot(curve.steps, rolling_mean(curve.values[0], _ROLLING_ROUNDS), color=color, label=label)
                continue
            axes.plot(curve.steps, curve.band.value, color=color, label=label)
            axes.fill_between(curve.steps, curve.band.low, curve.band.high, color=color, alpha=0.15, linewidth=0)
        if env_id in goals:
            axes.axhline(goals[env_id], color="0.4", linestyle="--", linewidth=1)
        axes.set(title=env_id, xlabel="environment steps", ylabel="mean return of a test round")
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def rolling_mean(values: Float64[np.ndarray, "K"], window: int) -> Float64[np.ndarray, "K"]:
    """Mean of each value and up to ``window - 1`` before it."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))
