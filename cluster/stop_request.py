"""Ctrl-C and SIGTERM as a question that loops ask."""

import signal
from types import FrameType


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a question that loops ask; the second signal ends the process at once."""

    def __init__(self) -> None:
        self.is_set = False
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def install(self) -> None:
        """Take over the signals (again, where a library took them in between)."""
        for number in self._previous:
            signal.signal(number, self._handle)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether somebody asked to stop."""
        return self.is_set

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature is fixed
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True
