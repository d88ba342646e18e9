"""The progress line, on a terminal and elsewhere, with a clock of the test's own."""

import io

import pytest

from cluster.progress import Progress, Status, format_duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def make_progress(stream):
    clock = Clock()
    return Progress(stream, clock), clock


def test_elsewhere_a_line_every_ten_seconds_with_rates_and_time_left():
    stream = io.StringIO()
    progress, clock = make_progress(stream)
    for second in range(31):
        clock.now_s = 1000.0 + second
        progress.update(Status(env_step=100 * second, total_steps=100_000, update_step=50 * second))
    assert stream.getvalue().splitlines() == [
        "step 0/100,000 | updates 0",
        "step 1,000/100,000 | updates 500 | 100 steps/s | 50 updates/s | 16 min 30 s left",
        "step 2,000/100,000 | updates 1,000 | 100 steps/s | 50 updates/s | 16 min 20 s left",
        "step 3,000/100,000 | updates 1,500 | 100 steps/s | 50 updates/s | 16 min 10 s left",
    ]


def test_on_a_terminal_one_line_is_rewritten_twice_a_second():
    stream = Terminal()
    progress, clock = make_progress(stream)
    for tenth in range(11):
        clock.now_s = 1000.0 + tenth / 10
        progress.update(Status(env_step=tenth, total_steps=100, update_step=0))
    text = stream.getvalue()
    assert text.count("\r\x1b[2K") == 3
    assert "\n" not in text
    assert text.endswith("step 10/100 | updates 0 | 10 steps/s | 0 updates/s | 9 s left")


@pytest.mark.parametrize(("stream", "start"), [(io.StringIO(), ""), (Terminal(), "\r\x1b[2K")], ids=["plain", "tty"])
def test_what_is_said_stays_on_a_line_of_its_own(stream, start):
    progress, _ = make_progress(stream)
    progress.say("test round: 5")
    assert stream.getvalue() == f"{start}test round: 5\n"


def test_a_full_status_shows_returns_qpu_and_who_waits():
    stream = io.StringIO()
    progress, _ = make_progress(stream)
    progress.update(
        Status(
            env_step=1_234,
            total_steps=20_000,
            update_step=234,
            training_return=-1234.56,
            evaluation_return=-150.2,
            qpu_ms=0.449,
            waiting="learner waits for actors",
        )
    )
    assert stream.getvalue() == (
        "step 1,234/20,000 | updates 234 | return -1235 | test -150 | QPU 0.4 ms | learner waits for actors\n"
    )


def test_rates_are_of_the_last_half_minute():
    stream = io.StringIO()
    progress, clock = make_progress(stream)
    env_step = 0
    for second in range(0, 200, 10):
        clock.now_s = 1000.0 + second
        env_step += 10 if second < 100 else 1000
        progress.update(Status(env_step=env_step, total_steps=10**6, update_step=0))
    assert "| 100 steps/s |" in stream.getvalue().splitlines()[-1]


def test_no_time_left_is_told_while_nothing_moves():
    stream = io.StringIO()
    progress, clock = make_progress(stream)
    for second in (0, 10):
        clock.now_s = 1000.0 + second
        progress.update(Status(env_step=5, total_steps=10, update_step=0))
    assert stream.getvalue().splitlines()[-1] == "step 5/10 | updates 0 | 0 steps/s | 0 updates/s"


def test_steps_beyond_the_end_leave_no_negative_time():
    stream = io.StringIO()
    progress, clock = make_progress(stream)
    for second, env_step in ((0, 0), (10, 110)):
        clock.now_s = 1000.0 + second
        progress.update(Status(env_step=env_step, total_steps=100, update_step=0))
    assert stream.getvalue().splitlines()[-1].endswith("| 0 s left")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.9, "1 h 00 min"),
        (7_800, "2 h 10 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations_as_people_say_them(seconds, text):
    assert format_duration(seconds) == text
