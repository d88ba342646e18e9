"""Settings of the learner's process that must be made before torch is loaded.

Measured on two cores with the paper's sizes (`benchmarks/` has the learner's figures): without the
allocator setting every update maps and unmaps its activations, 1,500 page faults and 15 % of its time;
with OpenMP's default spinning and one other busy process, two threads are 5 to 10 times slower than one, and
threads that sleep too soon must be woken for every small operation (docs/learner-speed.md).
"""

import ctypes
import os

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 30
_SPIN_COUNT = "20000"
_CUBLAS_WORKSPACE = ":4096:8"  # eight buffers of 4 MiB; a setting that NVIDIA names as reproducible


def tune_process() -> None:
    """Keep freed memory for the next update, and let waiting OpenMP threads sleep soon; the environment overrides."""
    os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
    # Without it cuBLAS refuses to work where torch is told to be deterministic, as a lockstep run does.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", _CUBLAS_WORKSPACE)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # not glibc: its allocator has no such setting
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)


def default_num_threads(device: str) -> int:
    """Torch threads of the learner's process: every core but the one that actors and services need; at least one.

    One where a GPU learns: what is left for the processor, a policy that acts, is too small to be shared.
    """
    return 1 if device.startswith("cuda") else max(1, (os.cpu_count() or 1) - 1)
