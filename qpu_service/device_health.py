"""How a device service is doing, for people and dashboards: failures in a row, pauses, devices left, budget left."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """State of one worker's device service at one moment."""

    failures_in_a_row: int = 0
    """Failed calls since the last one that was answered."""
    paused_s: float = 0.0
    """Seconds until the service is asked again; above 0 the breaker is open and nothing is sent."""
    devices_given_up: int = 0
    """Devices that were left for another because they were not available."""
    budget_left_s: float | None = None
    """QPU seconds neither charged nor set aside for jobs in flight, over all workers; None without a limit."""
    budget_left_jobs: int | None = None
    """Jobs that may still be sent, over all workers; None without a limit."""


@runtime_checkable
class ReportsHealth(Protocol):
    """What a backend behind a service offers besides CircuitBackend."""

    def health(self) -> DeviceHealth:
        """State now; never blocks on a job, so any thread may ask."""
        ...


class Breaker:
    """Counts failures of a service and remembers until when it is left alone.

    One thread writes; reading from others is safe.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._resumes_s = clock()
        self.failures_in_a_row = 0
        self.devices_given_up = 0

    @property
    def paused_s(self) -> float:
        """Seconds until the next call."""
        return max(0.0, self._resumes_s - self._clock())

    def answered(self) -> None:
        """The service answered."""
        self.failures_in_a_row = 0
        self._resumes_s = self._clock()

    def failed(self) -> None:
        """A call failed, or was not answered in time."""
        self.failures_in_a_row += 1

    def pause(self, seconds: float) -> None:
        """The service is left alone from now on."""
        self._resumes_s = self._clock() + seconds

    def give_up_device(self) -> None:
        """Circuits go to another device."""
        self.devices_given_up += 1
