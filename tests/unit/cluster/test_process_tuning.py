"""What must be in the environment before torch is loaded."""

import os

from cluster.process_tuning import default_num_threads, tune_process


def test_deterministic_algorithms_find_the_workspace_that_cublas_asks_for(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    tune_process()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")


def test_the_environment_overrides(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    tune_process()
    assert (os.environ["CUBLAS_WORKSPACE_CONFIG"], os.environ["GOMP_SPINCOUNT"]) == (":16:8", "7")


def test_where_a_gpu_learns_one_thread_acts(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert [default_num_threads(device) for device in ("cpu", "cuda", "cuda:1")] == [15, 1, 1]
