"""Means of what an update measures, kept on the device until somebody asks."""

import math
from typing import Any

import torch
from torch import Tensor


class RunningMeans:
    """Sums and counts by name since the last ``take``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.sums: dict[str, Tensor] = {}
        """On the device."""
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Count one more value; never waits for the device."""
        value = value.detach()
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> tuple[dict[str, float], list[str]]:
        """Means since the last call, and which of them are not finite as ``name=value``; waits for the device."""
        means = {name: float(total) / self._counts[name] for name, total in self.sums.items()}
        self.sums.clear()
        self._counts.clear()
        return means, [f"{name}={value}" for name, value in means.items() if not math.isfinite(value)]

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: [float(total), self._counts[name]] for name, total in self.sums.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        self.sums = {name: torch.tensor(total, device=self._device) for name, (total, _) in state.items()}
        self._counts = {name: int(count) for name, (_, count) in state.items()}
