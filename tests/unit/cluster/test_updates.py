"""Which rule batches are drawn by, what the replay hears back, and when the asymmetry is calibrated."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from cluster.config import RunConfig
from cluster.updates import Updates
from learner.config import TD3Config
from learner.critic_config import CriticConfig
from replay.sampling import EVERYTHING, SampleRule


class Source:
    def __init__(self, allowed=10**9):
        self.allowed, self.rules, self.told = allowed, [], []

    def can_sample(self, count):
        assert count == 8
        return self.allowed > 0

    def sample(self, batch_size, rng, rule):
        assert batch_size == 8
        self.allowed -= 1
        self.rules.append(rule)
        return SimpleNamespace(indices=np.arange(8) + 100 * len(self.rules))

    def update_priorities(self, indices, td_errors):
        self.told.append((indices[0], td_errors[0]))


class Learner:
    def __init__(self, *, has_errors=False):
        self.update_step, self.calibrated, self._has_errors = 0, 0, has_errors

    @property
    def td_errors(self):
        return np.full(8, float(self.update_step)) if self._has_errors else None

    def update(self, batch):
        self.update_step += 1

    def calibrate(self, batch):
        self.calibrated += 1


def make(source, learner, critic=None, **td3):
    config = dataclasses.replace(RunConfig(), td3=TD3Config(batch_size=8, **td3), critic=critic or CriticConfig())
    return Updates(config, learner, source, np.random.default_rng(0))


def test_one_step_uniform_draws_are_the_default():
    source, learner = Source(), Learner()
    assert make(source, learner).make_one()
    assert source.rules == [EVERYTHING]
    assert (learner.update_step, source.told) == (1, [])


def test_n_step_returns_use_the_learners_discount_factor():
    source = Source()
    make(source, Learner(), n_step=3, discount_factor=0.9).make_one()
    assert source.rules == [SampleRule(n_step=3, discount_factor=0.9)]


def test_errors_go_back_to_the_transitions_they_belong_to():
    source, updates = Source(), None
    updates = make(source, Learner(has_errors=True), prioritised=True)
    updates.make_one()
    updates.make_one()
    assert source.told == [(100, 1.0), (200, 2.0)]


def test_nothing_happens_where_the_law_forbids():
    source, learner = Source(allowed=0), Learner()
    assert not make(source, learner).make_one()
    assert (source.rules, learner.update_step) == ([], 0)


@pytest.mark.parametrize(("adapts", "calibrated"), [(True, 2), (False, 0)])
def test_every_hundredth_update_is_followed_by_a_calibration_where_asked(adapts, calibrated):
    source, learner = Source(), Learner()
    updates = make(source, learner, critic=CriticConfig(adapts_asymmetry=adapts))
    for _ in range(250):
        updates.make_one()
    assert learner.calibrated == calibrated
    far = [rule for rule in source.rules if rule.n_step == 50]
    assert len(far) == calibrated
    assert all(rule.newest == 20_000 and rule.discount_factor == 0.99 for rule in far)
