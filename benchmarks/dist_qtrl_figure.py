"""The figure of the Dist-QTRL grid: what runs where, how depth and agents learn, how rounds shrink with agents."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

_BOXES = (
    (0.5, 0.88, "leader: angles θ, mapping model\naverages gradients, Adam, checkpoints"),
    (0.2, 0.52, "agent 1\nown QPU: circuit(θ) → p\nmapping(bits, p) → weights"),
    (0.8, 0.52, "agent K\nown QPU: circuit(θ) → p\nmapping(bits, p) → weights"),
    (0.2, 0.14, "environments 1\nplain network acts"),
    (0.8, 0.14, "environments K\nplain network acts"),
)
_ARROWS = (
    ((0.4, 0.8), (0.22, 0.64)),
    ((0.6, 0.8), (0.78, 0.64)),
    ((0.2, 0.4), (0.2, 0.22)),
    ((0.8, 0.4), (0.8, 0.22)),
)


def draw(cells: Sequence[dict[str, Any]], path: Path, *, target: float) -> None:
    """Draw three panels.

    Args:
        cells: results per kind of run, with a ``curve`` of (round, mean return) per seed.
        path: PNG to write.
        target: return whose first round is counted.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (workflow, curves, speed) = plt.subplots(1, 3, figsize=(16, 4.6))
    _draw_workflow(workflow)
    _draw_curves(curves, [cell for cell in cells if cell["seeds"]], target)
    _draw_speed(speed, cells)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_workflow(axes: Any) -> None:
    for x, y, text in _BOXES:
        axes.text(x, y, text, ha="center", va="center", fontsize=8, bbox={"boxstyle": "round", "facecolor": "0.95"})
    for start, end in _ARROWS:
        axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "<->", "color": "0.4"})
    axes.text(0.5, 0.52, "…", ha="center", fontsize=16)
    axes.set(xlim=(0, 1), ylim=(0, 1), title="(a) who does what")
    axes.axis("off")


def _draw_curves(axes: Any, cells: Sequence[dict[str, Any]], target: float) -> None:
    shown = [cell for cell in cells if cell["num_agents"] == 1 or (cell["num_agents"] == 4 and cell["is_scaled"])]
    for index, cell in enumerate(shown):
        longest = max(row["curve"][-1][0] for row in cell["seeds"])
        rounds = np.arange(1, longest + 1)
        # A run that has ended well stays where it ended.
        lines = [np.interp(rounds, *np.array(row["curve"]).T) for row in cell["seeds"]]
        style = "-" if cell["parametrisation"] == "quantum_train" else "--"
        color = f"C{index}"
        axes.plot(rounds, np.median(lines, axis=0), style, color=color, label=_label(cell))
        axes.fill_between(rounds, np.min(lines, axis=0), np.max(lines, axis=0), color=color, alpha=0.12)
    axes.axhline(target, color="0.5", linewidth=0.8)
    axes.set(
        xlabel="rounds = episodes per agent",
        ylabel="training return, mean of 20 rounds",
        title="(b) depth and agents: median and range of seeds",
    )
    axes.legend(fontsize=7, loc="upper right")


def _draw_speed(axes: Any, cells: Sequence[dict[str, Any]]) -> None:
    first: dict[str, float] = {}
    for index, (kind, is_scaled) in enumerate(product(("quantum_train", "classical"), (False, True))):
        group = [
            cell
            for cell in cells
            if cell["parametrisation"] == kind
            and (kind == "classical" or cell["depth"] == 3)
            and (cell["is_scaled"] == is_scaled or cell["num_agents"] == 1)
        ]
        medians = [(cell["num_agents"], cell["median_rounds"]) for cell in group if cell["median_rounds"] is not None]
        for cell in group:
            rounds = [row["rounds"] for row in cell["seeds"] if row["rounds"] is not None]
            axes.plot([cell["num_agents"]] * len(rounds), rounds, "o", color=f"C{index}", alpha=0.3)
        if medians:
            rule = "rates × √K" if is_scaled else "same rates"
            axes.plot(*zip(*sorted(medians), strict=True), "-", color=f"C{index}", label=f"{kind}, {rule}")
            first.setdefault(kind, sorted(medians)[0][1])
    if "quantum_train" in first:
        axes.plot([1, 8], [first["quantum_train"], first["quantum_train"] / 8], ":", color="0.5", label="linear")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set(
        xlabel="agents K",
        ylabel="rounds to the target",
        title="(c) rounds to the target, depth 3: median of the seeds that reached it",
    )
    axes.legend(fontsize=7)


def _label(cell: dict[str, Any]) -> str:
    if cell["parametrisation"] == "classical":
        return f"classical, K = {cell['num_agents']}"
    return f"QTRL L = {cell['depth']}, K = {cell['num_agents']}{', rates × 2' if cell['is_scaled'] else ''}"
