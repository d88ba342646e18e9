"""A process that somebody else starts again at once pauses by itself, the longer the more often it died."""

import pytest

from cluster.restart_pause import StartLog


class Process:
    """Each life of it is a new StartLog, as after kill -9."""

    def __init__(self, directory):
        self.directory, self.now_s, self.name = directory, 1_000.0, "qpu-7"

    def start(self, *, after_s=1.0):
        self.now_s += after_s
        return StartLog(self.name, self.directory, clock=lambda: self.now_s, sleep=self.sleep).begin()

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def process(tmp_path):
    return Process(tmp_path)


def test_pauses_double_up_to_half_a_minute(process):
    assert [process.start() for _ in range(11)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_long_pause_is_no_sign_of_health(process):
    for _ in range(9):
        process.start()
    assert process.start(after_s=59.0) == 30.0
    assert process.start(after_s=61.0) == 0.0


def test_deaths_far_apart_are_no_loop(process):
    assert [process.start(after_s=61.0) for _ in range(9)] == [0] * 9


def test_processes_count_apart_and_an_end_is_no_death(process, tmp_path):
    for _ in range(4):
        process.start()
    process.name = "qpu-8"
    assert process.start() == 0
    process.name = "qpu-7"
    StartLog("qpu-7", tmp_path).end()
    assert [path.name.split("-")[-1] for path in tmp_path.iterdir()] == ["8.starts"]
    assert [process.start(), process.start(), process.start()] == [0, 0, 0.5]


@pytest.mark.parametrize("text", ["", "nonsense", "1 2 3", "9e9 5"])
def test_a_damaged_file_means_no_pause(process, tmp_path, text):
    process.start()
    next(tmp_path.iterdir()).write_text(text)
    assert process.start() == 0


def test_a_directory_that_cannot_be_written_means_no_pause(process, tmp_path):
    process.directory = tmp_path / "missing"
    assert [process.start() for _ in range(4)] == [0, 0, 0, 0]
