"""What this machine can hold, so that a request too large for it is refused with its size instead of being killed."""

import math
import os
from pathlib import Path

from qpu_service.errors import InvalidCircuitError

_MIB = 2**20
_UNCHECKED_BYTES = 64 * _MIB
"""Smaller requests are not compared with the machine's memory."""
_CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def check_memory(num_bytes: int, what: str, instead: str) -> None:
    """Refuse what does not fit.

    Args:
        num_bytes: memory that will be allocated.
        what: what for.
        instead: what to ask for.

    Raises:
        InvalidCircuitError: if this machine, or the container that this process is in, has less memory.
    """
    if num_bytes < _UNCHECKED_BYTES:
        return
    present = memory_bytes()
    if num_bytes > present:
        raise InvalidCircuitError(
            f"{what} need {math.ceil(num_bytes / _MIB):,} MiB, but this machine has {present // _MIB:,} MiB; "
            f"ask for {instead}"
        )


def memory_bytes(limit_files: tuple[str, ...] = _CONTAINER_LIMITS) -> int:
    """Memory of the machine, or the smallest limit of the container around this process.

    Args:
        limit_files: where Linux says it, in bytes; any of them may be missing or say ``max``.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in limit_files:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)
