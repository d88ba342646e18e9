"""Settings of the replay."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """How much is kept and how tightly acting and learning are coupled."""

    capacity: int = 1_000_000
    """Transitions kept; the oldest segments fall out. Source: TD3 (arXiv:1802.09477)."""
    capacity_bytes: int = 0
    """Bytes of stored segments kept, whichever limit is reached first; 0 for no such limit. A Humanoid-v4 transition
    with its circuit takes 2.5 kB (``hdqnn bench replay``)."""
    slack_steps: int = 1_000
    """Environment steps that actors may run ahead of the configured update-to-data ratio before they wait."""
    durability: Literal["everysec", "waitaof"] = "everysec"
    """When an insert counts as stored: once the server has it (its death loses nothing, its machine's death up to the
    last second), or once it is on the server's disk (WAITAOF), which costs every insert an fsync."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("capacity", "slack_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.capacity_bytes < 0:
            raise ValueError(f"capacity_bytes must not be negative, got {self.capacity_bytes}; 0 means no limit")
