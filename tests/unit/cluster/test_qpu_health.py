"""State of paid devices as metrics and as words."""

import pytest

from cluster.qpu_health import health_note, health_row, load_note
from qpu_service.device_health import DeviceHealth

WELL = DeviceHealth(budget_left_s=412.6, budget_left_jobs=37)
ILL = DeviceHealth(failures_in_a_row=3, paused_s=59.7, devices_given_up=1, budget_left_s=400.0)


def test_simulators_have_no_columns_and_no_words():
    assert health_row([]) == {}
    assert health_note([]) == ""


def test_a_row_holds_breaker_and_budget_of_all_workers():
    assert health_row([WELL, ILL]) == {
        "qpu/breaker_open": 1.0,
        "qpu/failures_in_a_row": 3.0,
        "qpu/paused_s": 59.7,
        "qpu/devices_given_up": 1.0,
        "qpu/budget_left_s": 400.0,
        "qpu/budget_left_jobs": 37.0,
    }


QUIET = {
    "qpu/circuits_per_s": 2950.4,
    "qpu/shots_per_s": 2950.4,
    "qpu/batch_circuits": 15.8,
    "qpu/queue_ms": 0.04,
    "qpu/run_ms": 0.86,
    "qpu/queued_circuits": 0.0,
    "qpu/errors": 0.0,
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "2,950 circuits/s in runs of 16 (queue 0.0 ms, run 0.9 ms)"),
        (
            {"qpu/shots_per_s": 295_040.0, "qpu/queued_circuits": 128.0, "qpu/errors": 2.0},
            "2,950 circuits/s in runs of 16, 295,040 shots/s (queue 0.0 ms, run 0.9 ms), 128 waiting, 2 errors",
        ),
    ],
)
def test_load_in_words(changes, words):
    assert load_note({**QUIET, **changes}) == words
    assert load_note({}) == ""


def test_what_has_no_limit_has_no_column():
    assert not [name for name in health_row([DeviceHealth()]) if "budget" in name]


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (DeviceHealth(), ""),
        (WELL, "QPU budget left: 413 s, 37 jobs"),
        (DeviceHealth(budget_left_jobs=1_200), "QPU budget left: 1,200 jobs"),
        (DeviceHealth(failures_in_a_row=1), "QPU service failed once"),
        (ILL, "QPU budget left: 400 s | QPU service failed 3 times, next try in 1 min 00 s | QPU devices given up: 1"),
    ],
)
def test_the_progress_line_says_it_in_words(health, words):
    assert health_note([health]) == words
