"""Rows of metrics while nothing moves: who waits for a device sees its state all the same. About 2 s."""

from cluster.run_directory import read_rows
from tests.unit.cluster.test_session import Run


def test_a_row_comes_by_the_clock_where_steps_are_slow(tmp_path):
    run = Run(tmp_path / "run")
    for run.now_s in (0.0, 59.0, 60.0, 61.0, 119.0, 120.5):
        run.session.tick(values={"qpu/breaker_open": 1.0}, longest_gap_s=60.0)
    rows = [(row["time/elapsed_s"], row["qpu/breaker_open"]) for row in read_rows(run.directory.metrics)]
    assert rows == [(60.0, 1.0), (120.5, 1.0)]


def test_without_a_gap_rows_depend_on_steps_alone(tmp_path):
    run = Run(tmp_path / "run")
    for run.now_s in (0.0, 1e4, 1e6):
        run.session.tick(values={"qpu/breaker_open": 1.0})
    assert list(read_rows(run.directory.metrics)) == []
