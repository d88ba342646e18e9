"""How long the learner's loop sleeps while there is nothing to learn."""

import time
from collections.abc import Callable

_SHORTEST_S = 0.002
_SHARE = 0.1
_LONGEST_S = 0.05


class IdlePause:
    """Short pauses at first, longer ones the longer nothing comes.

    A wait is overshot by a tenth of itself and never by more than 50 ms, and a learner that waits for minutes (random
    actions at the start, a QPU's queue) leaves its core to those it waits for: looking every 2 ms takes a third of one.

    Args:
        clock: seconds, monotonic.
        sleep: of that many seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._idle_since_s: float | None = None

    def after(self, num_updates: int) -> None:
        """Sleep if the last turn made no update."""
        if num_updates:
            self._idle_since_s = None
            return
        now_s = self._clock()
        if self._idle_since_s is None:
            self._idle_since_s = now_s
        self._sleep(min(_SHORTEST_S + _SHARE * (now_s - self._idle_since_s), _LONGEST_S))
