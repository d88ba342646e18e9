"""Claim: simulators keep nothing of the circuits that they have run: memory does not grow with their number.

``hdqnn bench soak --circuits 1000000``; a slow simulator stops after ``--seconds`` and says how many it ran.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.qpu import random_circuits
from qpu_service.backends.registry import make_backend
from qpu_service.interfaces import CircuitBackend

_WARM_UP = 0.2
"""Part of the circuits, or of the time, after which memory counts: caches and allocators are full by then."""
_MAX_SAMPLES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench soak``."""
    parser.add_argument("--circuits", type=int, default=1_000_000, help="circuits through each simulator")
    parser.add_argument("--seconds", type=float, default=300.0, help="longest time for one simulator")
    parser.add_argument("--simulators", default="statevector,aer", help="comma-separated backends")


def run(*, circuits: int = 1_000_000, seconds: float = 300.0, simulators: str = "statevector,aer") -> dict[str, Any]:
    """Run many of the paper's circuits on each simulator with one thread, every batch another one.

    Args:
        circuits: how many.
        seconds: longest time for one simulator.
        simulators: comma-separated backends.

    Returns:
        Per simulator: ``circuits`` run, ``seconds``, resident memory at the first and last sample after the warm-up in
        MiB, and ``bytes_per_circuit``, the slope of a least-squares line through resident memory against circuits.
    """
    return {name: soak(make_backend(name), circuits, seconds) for name in simulators.split(",")}


def soak(backend: CircuitBackend, num_circuits: int, max_s: float, batch: int = 250) -> dict[str, float]:
    """As ``run``, for one backend, which is closed at the end."""
    started_s = time.monotonic()
    every = max(1, num_circuits // batch // _MAX_SAMPLES)
    samples: list[tuple[float, float, float]] = []
    done = calls = 0
    while done < num_circuits and time.monotonic() - started_s < max_s:
        count = min(batch, num_circuits - done)
        backend.run(random_circuits(count, 10, 10, 1, seed=calls))
        done, calls = done + count, calls + 1
        if calls % every == 0:
            samples.append((done, time.monotonic() - started_s, resident_bytes()))
    backend.close()
    counted = np.array([(count, rss) for count, _, rss in samples if count > _WARM_UP * done], dtype=np.float64)
    if len(counted) < 3:
        raise ValueError(
            f"{backend.name} ran {done} circuits in {max_s} s, which gives {len(counted)} samples of memory; a line "
            "needs 3: raise --circuits or --seconds"
        )
    slope = float(np.polyfit(counted[:, 0] - counted[0, 0], counted[:, 1] - counted[0, 1], 1)[0])
    return {
        "circuits": done,
        "seconds": time.monotonic() - started_s,
        "first_mib": counted[0, 1] / 2**20,
        "last_mib": counted[-1, 1] / 2**20,
        "bytes_per_circuit": slope,
    }


def resident_bytes() -> int:
    """Resident memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
