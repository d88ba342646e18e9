"""Running statistics against numpy's over everything at once."""

import json

import numpy as np
import pytest
import torch

from learner.normalisation import ObservationNormaliser, ReturnMoments, ReturnScale


def test_statistics_of_many_batches_are_those_of_all_observations():
    rng = np.random.default_rng(0)
    observations = rng.normal([5.0, -1.0, 0.0], [3.0, 0.1, 1.0], (700, 3)).astype(np.float32)
    normaliser = ObservationNormaliser(3)
    for start, stop in ((0, 100), (100, 110), (110, 700)):
        normaliser.update(torch.from_numpy(observations[start:stop]))
    np.testing.assert_allclose(normaliser.mean, observations.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normaliser.variance, observations.var(axis=0), rtol=1e-4)
    normalised = normaliser(torch.from_numpy(observations)).numpy()
    np.testing.assert_allclose(normalised.std(axis=0), 1.0, rtol=1e-3)


def test_before_the_first_batch_nothing_changes():
    observation = torch.tensor([[0.5, -2.0]])
    torch.testing.assert_close(ObservationNormaliser(2)(observation), observation)


def test_a_constant_component_becomes_zero_and_an_outlier_is_clamped():
    normaliser = ObservationNormaliser(2)
    batch = torch.tensor([[4.0, 0.0], [4.0, 1.0]])
    normaliser.update(batch)
    assert normaliser(batch)[:, 0].tolist() == [0.0, 0.0]
    assert float(normaliser(torch.tensor([[4.0, 1e6]]))[0, 1]) == 10.0


def test_return_scale_is_the_standard_deviation_unless_the_largest_return_needs_more():
    scale = ReturnScale(max_value=5.0)
    assert scale.scale == 1.0
    returns = np.array([1.0, 3.0, 5.0, 7.0])
    scale.add(ReturnMoments(4, returns.sum(), (returns**2).sum(), returns.max()))
    assert scale.scale == pytest.approx(returns.std())
    scale.add(ReturnMoments(1, 100.0, 100.0**2, 100.0))
    everything = np.append(returns, 100.0)
    assert scale.scale == pytest.approx(max(everything.std(), 100.0 / 5.0))


def test_moments_of_steps_add_up():
    steps = np.array([[1.0, -4.0], [2.0, 0.5], [0.0, 3.0]])
    moments = ReturnMoments()
    for returns in steps:
        moments = moments.after(returns)
    assert moments == ReturnMoments(6, steps.sum(), (steps**2).sum(), 4.0)


def test_steps_without_any_reward_leave_the_scale_alone():
    scale = ReturnScale(5.0)
    scale.add(ReturnMoments(200, 0.0, 0.0, 0.0))
    assert scale.scale == 1.0


def test_return_scale_survives_a_checkpoint_bit_for_bit():
    scale = ReturnScale(5.0)
    scale.add(ReturnMoments(3, 0.1, 0.7, 0.3))
    again = ReturnScale(5.0)
    again.restore(json.loads(json.dumps(scale.state())))
    assert again.scale == scale.scale
