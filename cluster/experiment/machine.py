"""How many runs fit side by side: by cores, by memory, and by how many there are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.environment import agent_spec
from cluster.config import RunConfig

_FLOAT_BYTES = 4
_GIB = 1 << 30
_LOCKSTEP_BYTES = int(0.8 * _GIB)
"""One process without its replay; measured on Pendulum: 0.48 GB."""
_DISTRIBUTED_BYTES = int(2.5 * _GIB)
"""A run with its own Ray, replay server, actor and QPU worker; measured on Pendulum: 1.7 GB in 13 processes."""
_KEPT_FREE = 0.2
"""Share of the free memory that is left to others."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine has for runs."""

    cores: int
    memory_bytes: int
    """Free memory."""


def this_machine() -> Machine:
    """Cores that this process may use, and memory that is free inside its container."""
    return Machine(cores=len(os.sched_getaffinity(0)), memory_bytes=_free_memory_bytes())


def fitting_parallel(configs: Sequence[RunConfig], machine: Machine) -> int:
    """Runs that the machine holds side by side, judged by the largest of them; at least one.

    Args:
        configs: of the runs that are to be made.
        machine: what there is.
    """
    if not configs:
        return 1
    by_cores = machine.cores // max(map(_cores, configs))
    sizes = {(config.env_id, config.synchronous): config for config in configs}
    by_memory = int(machine.memory_bytes * (1 - _KEPT_FREE)) // max(map(_memory_bytes, sizes.values()))
    return max(1, min(by_cores, by_memory, len(configs)))


def threads_per_run(config: RunConfig, machine: Machine, parallel: int) -> int:
    """Torch threads of one of ``parallel`` runs, so that together they have a thread per core."""
    return max(1, machine.cores // parallel - (_cores(config) - 1))


def _cores(config: RunConfig) -> int:
    """A lockstep run is one process; another has its actors beside the learner."""
    return 1 if config.synchronous else 1 + config.actors.num_actors


def _memory_bytes(config: RunConfig) -> int:
    spec = agent_spec(config.env_id)
    circuit = config.policy.circuit
    row = 2 * spec.observation_size + spec.action_size + circuit.num_parameters + circuit.num_qubits + 4
    replay = min(config.replay.capacity, config.total_steps) * row * _FLOAT_BYTES
    # The server holds what the learner's mirror holds.
    return _LOCKSTEP_BYTES + replay if config.synchronous else _DISTRIBUTED_BYTES + 2 * replay


def _free_memory_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
