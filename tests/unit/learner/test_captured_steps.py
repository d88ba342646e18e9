"""The logic of captured steps with a recorder that replays by running the work again on the same tensors."""

import numpy as np
import pytest
import torch

from learner.captured_steps import CapturedSteps
from tests.unit.learner.test_td3 import make_batch, make_learner


class RerunRecorder:
    """Replays like a graph: whatever the work reads must lie where it lay when it was recorded."""

    def __init__(self):
        self.warm_ups = 0
        self.records = 0
        self.replays = 0

    def warm_up(self, work):
        self.warm_ups += 1
        work()

    def record(self, work):
        self.records += 1

        def replay():
            self.replays += 1
            work()

        return replay


def captured_learner(**td3):
    learner = make_learner(**td3)
    recorder = RerunRecorder()
    learner.execute = CapturedSteps(learner, recorder)
    return learner, recorder


@pytest.mark.parametrize("prioritised", [False, True])
def test_captured_updates_are_the_plain_ones(prioritised):
    plain = make_learner(prioritised=prioritised)
    captured, _ = captured_learner(prioritised=prioritised)
    for step in range(1, 17):
        batch = make_batch(np.random.default_rng(step))
        plain.update(batch)
        captured.update(batch)
        if prioritised:
            assert np.array_equal(captured.td_errors, plain.td_errors)
        if step % 4 == 0:
            assert captured.metrics() == plain.metrics()
    for name in ("policy", "critic", "target_policy", "target_critic", "surrogate"):
        for ours, theirs in zip(getattr(captured, name).parameters(), getattr(plain, name).parameters(), strict=True):
            assert torch.equal(ours, theirs), name


def test_each_kind_of_update_is_recorded_once_after_its_warm_up():
    learner, recorder = captured_learner(policy_delay=4)
    for step in range(1, 25):
        learner.update(make_batch(np.random.default_rng(step)))
    assert (recorder.warm_ups, recorder.records, recorder.replays) == (6, 2, 18)


def test_the_batch_is_copied_to_addresses_that_stay():
    learner, _ = captured_learner()
    seen = []
    plain_step = learner.run_step

    def run_step(batch, kind):
        seen.append((batch.observation.data_ptr(), batch.observation.clone()))
        plain_step(batch, kind)

    learner.run_step = run_step
    batches = [make_batch(np.random.default_rng(step)) for step in range(4)]
    for batch in batches:
        learner.update(batch)
    assert len({address for address, _ in seen}) == 1
    for batch, (_, observation) in zip(batches, seen, strict=True):
        assert np.array_equal(batch.observation, observation.numpy())


def test_metrics_of_an_update_survive_the_next_replay():
    learner, _ = captured_learner(policy_delay=1)
    losses = []
    for step in range(8):
        learner.update(make_batch(np.random.default_rng(step)))
        losses.append(float(learner.means.sums["critic_loss"]) - sum(losses))
    assert len(set(losses)) == 8
    assert learner.metrics()["critic_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
