"""The picture of a run: training and test returns over environment steps."""

import logging
from collections.abc import Sequence
from pathlib import Path

from cluster.config import read_config
from cluster.quantum_train.config import is_quantum_train
from cluster.quantum_train.config import read_config as read_team_config
from cluster.run_directory import RunDirectory, read_rows

_log = logging.getLogger(__name__)


def draw_curve(run: RunDirectory, title: str) -> Path | None:
    """Draw curve.png from the run's .jsonl files; None where matplotlib is missing or there is nothing to draw."""
    try:
        import matplotlib as mpl
    except ImportError:
        _log.warning("matplotlib is not installed: no curve.png (pip install matplotlib brings it)")
        return None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in read_rows(run.metrics) if "rollout/episode_return" in row]
    rounds = list(read_rows(run.evaluations))
    if not rows and not rounds:
        return None
    figure, axes = plt.subplots(figsize=(7, 4))
    if rows:
        axes.plot(
            [row["env_step"] for row in rows],
            [row["rollout/episode_return"] for row in rows],
            color="0.6",
            label="training episodes (with noise)",
        )
    if rounds:
        steps = [row["env_step"] for row in rounds]
        axes.plot(steps, [row["mean_return"] for row in rounds], color="C0", label="test rounds (mean)")
        axes.fill_between(
            steps,
            [min(row["returns"]) for row in rounds],
            [max(row["returns"]) for row in rounds],
            color="C0",
            alpha=0.2,
            label="test rounds (lowest to highest episode)",
        )
    axes.set(xlabel="environment steps", ylabel="episode return", title=title)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(run.curve, dpi=120)
    plt.close(figure)
    return run.curve


def draw_comparison(runs: Sequence[RunDirectory], path: Path) -> None:
    """Draw the test curves of several runs into one picture, coloured by block.

    Raises:
        ImportError: if matplotlib is missing.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    colors: dict[str, str] = {}
    for run in runs:
        label = _label(run)
        is_first = label not in colors
        color = colors.setdefault(label, f"C{len(colors)}")
        rounds = list(read_rows(run.evaluations))
        axes.plot(
            [row["env_step"] for row in rounds],
            [row["mean_return"] for row in rounds],
            color=color,
            alpha=0.7,
            label=label if is_first else None,
        )
    axes.set(xlabel="environment steps", ylabel="mean return of a test round")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _label(run: RunDirectory) -> str:
    """What lines of one colour have in common."""
    return read_team_config(run.config).label if is_quantum_train(run.path) else read_config(run.config).block
