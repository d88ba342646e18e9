"""Which number format the critics' matrix products run in on the device at hand."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from learner.config import Precision

_CPU_FLAG = "amx_bf16"
"""Tiles of bfloat16: several times the products of float32. Without them other processors imitate it, ten times slower
than float32, or multiply it (avx512_bf16), which nobody has measured here."""


def critic_autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """For the passes of the critics: nearly all of an update's products. Policy, surrogate, losses stay in float32."""
    dtype = precision_dtype(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def in_float32(layer: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """A last layer outside of mixed precision: bfloat16 has no decimals for a value of hundreds."""
    if not torch.is_autocast_enabled(inputs.device.type):
        return layer(inputs)
    with torch.autocast(inputs.device.type, enabled=False):
        return layer(inputs.float())


def precision_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on GPUs and on processors with tiles for it, float32 elsewhere."""
    if precision == "auto":
        has_bfloat16 = device.type == "cuda" or (device.type == "cpu" and _CPU_FLAG in _cpu_flags())
        return torch.bfloat16 if has_bfloat16 else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@cache
def _cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Instruction sets of the processor; none where the system does not say."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())
