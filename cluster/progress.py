"""Tells a person how a run is doing: one live line on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

_LIVE_PERIOD_S = 0.5
_PLAIN_PERIOD_S = 10.0
_WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Status:
    """What the progress line shows."""

    env_step: int
    total_steps: int
    update_step: int
    training_return: float | None = None
    """Mean over the last finished training episodes."""
    evaluation_return: float | None = None
    """Mean of the last test round."""
    qpu_ms: float | None = None
    """Mean time of a QPU request, as the actors see it."""
    qpu_note: str = ""
    """Load of the QPU workers; budget and breaker of paid devices."""
    waiting: str = ""
    """Who waits for whom."""


class Progress:
    """Prints the status of a run now and then.

    Args:
        stream: where to print.
        clock: monotonic seconds.
        plain_period_s: seconds between two lines where nothing can be rewritten.
    """

    def __init__(
        self,
        stream: TextIO = sys.stdout,
        clock: Callable[[], float] = time.monotonic,
        *,
        plain_period_s: float = _PLAIN_PERIOD_S,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._is_live = stream.isatty()
        self._period_s = _LIVE_PERIOD_S if self._is_live else plain_period_s
        self._last = -self._period_s
        self._history: list[tuple[float, int, int]] = []

    def update(self, status: Status) -> None:
        """Print the status if the last one is old enough."""
        if not self._is_due():
            return
        now = self._last
        self._history.append((now, status.env_step, status.update_step))
        while len(self._history) > 2 and now - self._history[0][0] > _WINDOW_S:
            self._history.pop(0)
        self._write(self._format(status))

    def show(self, make_line: Callable[[], str]) -> None:
        """Print a line of somebody else's making if the last one is old enough."""
        if self._is_due():
            self._write(make_line())

    def say(self, text: str) -> None:
        """Print a whole line that stays."""
        self._stream.write(f"\r\x1b[2K{text}\n" if self._is_live else f"{text}\n")
        self._stream.flush()

    def _is_due(self) -> bool:
        now = self._clock()
        if now - self._last < self._period_s:
            return False
        self._last = now
        return True

    def _write(self, line: str) -> None:
        self._stream.write(f"\r\x1b[2K{line}" if self._is_live else f"{line}\n")
        self._stream.flush()

    def _format(self, status: Status) -> str:
        then, first_step, first_update = self._history[0]
        elapsed = self._history[-1][0] - then
        parts = [f"step {status.env_step:,}/{status.total_steps:,}", f"updates {status.update_step:,}"]
        if elapsed > 0:
            steps_per_s = (status.env_step - first_step) / elapsed
            parts.append(f"{steps_per_s:.0f} steps/s")
            parts.append(f"{(status.update_step - first_update) / elapsed:.0f} updates/s")
            if steps_per_s > 0:
                parts.append(f"{format_duration((status.total_steps - status.env_step) / steps_per_s)} left")
        if status.training_return is not None:
            parts.append(f"return {status.training_return:.0f}")
        if status.evaluation_return is not None:
            parts.append(f"test {status.evaluation_return:.0f}")
        if status.qpu_ms is not None:
            parts.append(f"QPU {status.qpu_ms:.1f} ms")
        if status.qpu_note:
            parts.append(status.qpu_note)
        if status.waiting:
            parts.append(status.waiting)
        return " | ".join(parts)


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 05 s, 2 h 10 min."""
    total = max(0, round(seconds))
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"
