"""The pure TD3 functions against independent formulas."""

import math

import numpy as np
import pytest
import torch

from learner.losses import polyak_update_, smoothed_action, surrogate_loss


def test_smoothing_noise_is_scaled_clipped_and_kept_inside_each_bound():
    scale, center = torch.tensor([2.0, 0.4]), torch.tensor([0.0, 1.0])
    result = smoothed_action(
        torch.tensor([[1.9, 1.0], [0.0, 1.0]]),
        torch.tensor([[10.0, 1.0], [-10.0, 0.0]]),
        action_scale=scale,
        action_center=center,
        noise_std=0.2,
        noise_clip=0.5,
    )
    expected = [[2.0, 1.0 + 0.2 * 0.4], [-0.5 * 2.0, 1.0]]
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-6)


def test_surrogate_loss_is_the_mean_binary_cross_entropy():
    logits = torch.tensor([[0.3, -1.2]])
    bits = torch.tensor([[1.0, 0.0]])
    p = [1 / (1 + math.exp(-0.3)), 1 / (1 + math.exp(1.2))]
    assert float(surrogate_loss(logits, bits)) == pytest.approx(-(math.log(p[0]) + math.log(1 - p[1])) / 2)


def test_polyak_moves_targets_by_tau():
    target, source = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0])
    polyak_update_([target], [source], 0.25)
    assert target.tolist() == pytest.approx([1.5, 3.0])
