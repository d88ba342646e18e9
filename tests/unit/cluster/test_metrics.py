"""Rows reach their file whole and in order, whatever the disk does meanwhile."""

import logging
import resource

import pytest

from cluster.metrics import MetricsWriter
from cluster.run_directory import RunDirectory, read_rows


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path)


def limit_files(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    return soft


def test_rows_are_written_as_they_come(run):
    writer = MetricsWriter(run)
    writer.metrics(env_step=1, update_step=2, values={"a": 0.5})
    writer.evaluation(env_step=1, update_step=2, version=3, returns=[1.0, 2.0])
    assert list(read_rows(run.metrics)) == [{"env_step": 1, "update_step": 2, "a": 0.5}]
    (test,) = read_rows(run.evaluations)
    assert (test["mean_return"], test["returns"], test["policy_version"]) == (1.5, [1.0, 2.0], 3)
    writer.close()


def test_rows_wait_for_room_on_a_full_disk(run, caplog):
    writer = MetricsWriter(run)
    writer.metrics(env_step=0, update_step=0, values={})
    # So many bytes that the row is cut in its middle, which is where disks end.
    previous = limit_files(run.metrics.stat().st_size + 10)
    try:
        with caplog.at_level(logging.ERROR):
            for env_step in (1, 2):
                writer.metrics(env_step=env_step, update_step=0, values={})
    finally:
        limit_files(previous)
    assert [row["env_step"] for row in read_rows(run.metrics)] == [0]
    (record,) = caplog.records
    assert "its rows wait in memory, training goes on" in record.getMessage()
    writer.metrics(env_step=3, update_step=0, values={})
    assert [row["env_step"] for row in read_rows(run.metrics)] == [0, 1, 2, 3]
    writer.close()
