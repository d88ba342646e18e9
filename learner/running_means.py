"""Means of what an update measures, kept on the device until somebody asks."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Sums and counts by name since the last ``take``.

    A sum stays the same tensor for good, so that a captured step may add to it again and again.

    Args:
        device: of the sums.
        sums: of another object of this class, to add to them and count apart.
    """

    def __init__(self, device: torch.device, sums: dict[str, Tensor] | None = None) -> None:
        self._device = device
        self.sums: dict[str, Tensor] = {} if sums is None else sums
        """On the device; zero where nothing was counted."""
        self.counts: dict[str, int] = {}
        """Values in each sum, those that have any."""

    def add(self, name: str, value: Tensor) -> None:
        """Count one more value; never waits for the device."""
        if name not in self.sums:
            self.sums[name] = torch.zeros_like(value.detach())
        self.sums[name].add_(value.detach())
        self.count([name])

    def count(self, names: Iterable[str]) -> None:
        """Count values that the device adds by itself."""
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> tuple[dict[str, float], list[str]]:
        """Means since the last call, and which of them are not finite as ``name=value``; waits for the device."""
        means = {name: float(self.sums[name]) / count for name, count in self.counts.items()}
        for name in self.counts:
            self.sums[name].zero_()
        self.counts.clear()
        return means, [f"{name}={value}" for name, value in means.items() if not math.isfinite(value)]

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: [float(self.sums[name]), count] for name, count in self.counts.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        self.take()
        for name, (total, count) in state.items():
            self.add(name, torch.tensor(total, device=self._device))
            self.counts[name] = int(count)
