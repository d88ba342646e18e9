"""Writes what a run measures: metrics.jsonl, evaluations.jsonl, TensorBoard. Components only return numbers."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.prometheus import PrometheusExporter
from cluster.run_directory import RunDirectory

_log = logging.getLogger(__name__)


class MetricsWriter:
    """Appends rows; names are listed with their formulas in learner/README.md.

    Times and rates depend on the machine and are named ``time/…``; everything else of a synchronous run
    depends on its configuration alone.
    """

    def __init__(self, run: RunDirectory, prometheus_port: int | None = None) -> None:
        self._metrics, self._evaluations = _Rows(run.metrics), _Rows(run.evaluations)
        self._tensorboard = _tensorboard_writer(run.tensorboard)
        self._prometheus = None if prometheus_port is None else PrometheusExporter(prometheus_port)

    def metrics(self, *, env_step: int, update_step: int, values: Mapping[str, float]) -> None:
        """One row of metrics.jsonl and its TensorBoard scalars."""
        self._metrics.append({"env_step": env_step, "update_step": update_step, **values})
        self._scalars(values, env_step)
        if self._prometheus is not None:
            self._prometheus.set({"env_step": env_step, "update_step": update_step, **values})

    def evaluation(self, *, env_step: int, update_step: int, version: int, returns: Sequence[float]) -> None:
        """One test round."""
        mean = sum(returns) / len(returns)
        self._evaluations.append(
            {
                "env_step": env_step,
                "update_step": update_step,
                "policy_version": version,
                "mean_return": mean,
                "returns": list(returns),
            }
        )
        self._scalars({"evaluation/mean_return": mean}, env_step)

    def close(self) -> None:
        """Flush and close every file."""
        self._metrics.close()
        self._evaluations.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._prometheus is not None:
            self._prometheus.close()

    def _scalars(self, values: Mapping[str, float], env_step: int) -> None:
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, env_step)


class _Rows:
    """A .jsonl file; what a full disk refuses is kept in memory and written once there is room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._waiting = b""
        self._is_failing = False

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row, and those before it that still wait."""
        self._waiting += json.dumps(row).encode() + b"\n"
        try:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not self._is_failing:
                _log.error("cannot write %s (%s); its rows wait in memory, training goes on", self._path, error)
            self._is_failing = True
        else:
            self._is_failing = False

    def close(self) -> None:
        """Close the file."""
        if self._waiting:
            _log.error("the disk never had room for the last rows of %s", self._path)
        self._file.close()


def _tensorboard_writer(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        _log.warning("tensorboard is not installed: no event files (pip install tensorboard brings them)")
        return None
    return SummaryWriter(str(directory))
