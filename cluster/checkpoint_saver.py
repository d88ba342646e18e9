"""When a run writes its checkpoints, and what follows when that fails: training goes on, and everybody can see it."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from cluster.checkpoint import save_checkpoint
from cluster.config import CheckpointConfig

_log = logging.getLogger(__name__)


class CheckpointSaver:
    """Periods and failures of one run's checkpoints.

    Args:
        directory: where they are kept.
        config: how often, how many.
        clock: monotonic seconds.
    """

    def __init__(self, directory: Path, config: CheckpointConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory, self._config, self._clock = directory, config, clock
        self._last_s = clock()
        self._failing_since: int | None = None
        self._num_failures = 0
        self.start(0)

    def start(self, env_step: int) -> None:
        """The run is at this step, and what it was is saved."""
        period = self._config.period_steps
        self._next_step = None if period is None else (env_step // period + 1) * period

    def is_due(self, env_step: int) -> bool:
        """Whether it is time for the next one."""
        if self._next_step is not None:
            return env_step >= self._next_step
        return self._clock() - self._last_s >= self._config.period_s

    def save(
        self, env_step: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], scalars: Mapping[str, Any]
    ) -> None:
        """Write one; a disk that is full is reported and told by ``note`` and ``row`` until one succeeds."""
        try:
            save_checkpoint(self._directory, env_step, tensors, scalars, self._config.keep)
        except OSError as error:
            self._num_failures += 1
            if self._failing_since is None:
                self._failing_since = env_step
            _log.error("checkpoint at step %d failed (%s); older ones are kept, training goes on", env_step, error)
        else:
            self._failing_since = None
        self._last_s = self._clock()
        self.start(env_step)

    @property
    def note(self) -> str:
        """An alarm for the progress line; empty where all is well."""
        return "" if self._failing_since is None else f"NO CHECKPOINT SINCE STEP {self._failing_since:,}: disk?"

    def row(self) -> dict[str, float]:
        """Values for a row of metrics."""
        return {"checkpoint/failures": float(self._num_failures)}
