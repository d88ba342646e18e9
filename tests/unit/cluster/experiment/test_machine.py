"""How many runs fit, on machines of the test's own."""

import dataclasses

import pytest

from cluster.experiment.machine import Machine, _free_memory_bytes, fitting_parallel, this_machine, threads_per_run
from cluster.presets import get_preset

GIB = 1 << 30
LOCKSTEP = dataclasses.replace(get_preset("smoke"), synchronous=True)
DISTRIBUTED = get_preset("smoke")


@pytest.mark.parametrize(
    ("configs", "cores", "gib", "expected"),
    [
        ([LOCKSTEP] * 9, 4, 64, 4),
        ([LOCKSTEP] * 3, 16, 64, 3),
        ([LOCKSTEP] * 9, 16, 4, 3),
        ([DISTRIBUTED] * 9, 16, 64, 8),
        ([DISTRIBUTED] * 9, 16, 8, 2),
        ([LOCKSTEP, DISTRIBUTED] * 9, 4, 64, 2),
        ([DISTRIBUTED] * 9, 1, 1, 1),
        ([], 8, 8, 1),
    ],
)
def test_parallel_is_what_cores_and_memory_hold(configs, cores, gib, expected):
    assert fitting_parallel(configs, Machine(cores, gib * GIB)) == expected


def test_a_large_replay_takes_room():
    humanoid = dataclasses.replace(get_preset("humanoid"), synchronous=True)
    short = dataclasses.replace(humanoid, total_steps=1_000)
    machine = Machine(64, 16 * GIB)
    # A million transitions of 2 · 376 + 17 + 220 + 10 + 4 numbers are 3.7 GiB.
    assert fitting_parallel([humanoid] * 64, machine) == 2
    assert fitting_parallel([short] * 64, machine) == 15


def test_threads_share_the_cores():
    assert [threads_per_run(LOCKSTEP, Machine(16, GIB), parallel) for parallel in (1, 3, 16, 20)] == [16, 5, 1, 1]
    assert [threads_per_run(DISTRIBUTED, Machine(16, GIB), parallel) for parallel in (1, 4, 8)] == [15, 3, 1]


@pytest.mark.parametrize(("limit", "expected"), [("max", 8 * GIB), (str(5 * GIB), 3 * GIB), (str(90 * GIB), 8 * GIB)])
def test_free_memory_is_the_containers(tmp_path, limit, expected):
    (tmp_path / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {8 * GIB // 1024} kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{2 * GIB}\n")
    assert _free_memory_bytes(tmp_path / "meminfo", tmp_path) == expected
    assert _free_memory_bytes(tmp_path / "meminfo", tmp_path / "none") == 8 * GIB


def test_this_machine_has_something():
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.memory_bytes > 0
