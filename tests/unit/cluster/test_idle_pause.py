"""The learner's loop looks often at first, seldom after a while, and at once again when there was work."""

import pytest

from cluster.idle_pause import IdlePause


class Clock:
    """Time that passes in sleeps alone."""

    def __init__(self):
        self.now_s = 100.0
        self.sleeps = []

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now_s += seconds


def make():
    clock = Clock()
    return clock, IdlePause(lambda: clock.now_s, clock.sleep)


def test_work_is_followed_by_no_pause():
    clock, pause = make()
    for _ in range(3):
        pause.after(8)
    assert clock.sleeps == []


def test_a_wait_is_overshot_by_a_tenth_and_by_no_more_than_50_ms():
    clock, pause = make()
    while clock.now_s < 160.0:
        waited_s = clock.now_s - 100.0
        pause.after(0)
        assert 0.002 <= clock.sleeps[-1] <= min(0.0021 + 0.1 * waited_s, 0.05 + 1e-9)
    assert clock.sleeps[0] == pytest.approx(0.002)
    assert len(clock.sleeps) < 60 / 0.05 + 50, "a minute's wait is not spent looking"


def test_after_work_it_looks_often_again():
    clock, pause = make()
    for _ in range(100):
        pause.after(0)
    assert clock.sleeps[-1] == pytest.approx(0.05)
    pause.after(1)
    pause.after(0)
    assert clock.sleeps[-1] == pytest.approx(0.002)
