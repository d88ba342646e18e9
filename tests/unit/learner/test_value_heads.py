"""Scalar and categorical heads against formulae written out by hand."""

import numpy as np
import pytest
import torch

from learner.value_heads import CategoricalHead, ScalarHead


def test_scalar_target_takes_the_smaller_critic_and_stops_at_termination():
    target = ScalarHead().target(
        torch.tensor([[10.0, 5.0], [8.0, 7.0]]), torch.tensor([1.0, 2.0]), 0.9 * torch.tensor([1.0, 0.0])
    )
    torch.testing.assert_close(target, torch.tensor([1 + 0.9 * 8.0, 2.0]))


def test_scalar_loss_is_the_sum_of_the_critics_mean_squares():
    q, target = torch.tensor([[1.0, 2.0], [4.0, 0.0]]), torch.tensor([2.0, 3.0])
    assert float(ScalarHead().loss(q, target)) == pytest.approx((1 + 1) / 2 + (4 + 9) / 2)


def test_scalar_loss_is_the_same_with_and_without_the_axis_of_outputs():
    q, target = torch.randn(2, 7), torch.randn(7)
    assert ScalarHead().loss(q.unsqueeze(2), target) == ScalarHead().loss(q, target)


def test_asymmetric_loss_weighs_overestimation_by_alpha():
    # Thesis, 3.4: α max(0, Q - y)² + (1 - α) min(0, Q - y)²; twice that, so that α = 0.5 is the plain square.
    q, target = torch.tensor([[3.0, -2.0]]), torch.zeros(2)
    expected = 2 * (0.7 * 9 + 0.3 * 4) / 2
    assert float(ScalarHead().loss(q, target, torch.tensor(0.7))) == pytest.approx(expected)


def test_huber_is_square_below_one_and_linear_above():
    q, target = torch.tensor([[0.5, -3.0]]), torch.zeros(2)
    # LAP, eq. 14, has half of it: δ²/2 up to 1, |δ| - 1/2 beyond.
    assert float(ScalarHead(is_huber=True).loss(q, target)) == pytest.approx(2 * (0.125 + 2.5) / 2)


def test_errors_are_the_largest_over_the_critics():
    q, target = torch.tensor([[1.0, 2.0], [4.0, 1.5]]), torch.tensor([2.0, 2.0])
    assert ScalarHead().errors(q, target).tolist() == [2.0, 0.5]
    head = CategoricalHead(num_bins=3, max_value=1.0)
    outputs = torch.log(torch.tensor([[[0.2, 0.3, 0.5]], [[0.8, 0.1, 0.1]]]))
    assert head.errors(outputs, torch.tensor([[0.0, 0.0, 1.0]])).tolist() == pytest.approx([1.0 + 0.7])


def project_one_by_one(probabilities, reward, discount, low, high, count):
    """C51's Algorithm 1, bin by bin."""
    step = (high - low) / (count - 1)
    mass = np.zeros(count)
    for j in range(count):
        image = min(max(reward + discount * (low + j * step), low), high)
        position = (image - low) / step
        lower, upper = int(np.floor(position)), int(np.ceil(position))
        if lower == upper:
            mass[lower] += probabilities[j]
        else:
            mass[lower] += probabilities[j] * (upper - position)
            mass[upper] += probabilities[j] * (position - lower)
    return mass


def test_categorical_target_is_c51s_projection_of_the_critic_with_the_smaller_mean():
    generator = torch.Generator().manual_seed(3)
    head = CategoricalHead(num_bins=11, max_value=5.0)
    outputs = torch.randn(2, 6, 11, generator=generator)
    reward = torch.tensor([0.3, -7.0, 9.0, 0.0, 1.0, -0.25])
    discount = torch.tensor([0.99, 0.99, 0.99, 0.0, 0.5, 1.0])
    target = head.target(outputs, reward, discount)
    probabilities = torch.softmax(outputs, dim=2)
    means = (probabilities * torch.linspace(-5, 5, 11)).sum(dim=2)
    for row in range(6):
        chosen = probabilities[int(means[:, row].argmin()), row].double().numpy()
        expected = project_one_by_one(chosen, float(reward[row]), float(discount[row]), -5.0, 5.0, 11)
        np.testing.assert_allclose(target[row].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(target.sum(dim=1), torch.ones(6))


def test_categorical_values_are_means_of_the_bins():
    head = CategoricalHead(num_bins=3, max_value=2.0)
    outputs = torch.log(torch.tensor([[[0.2, 0.3, 0.5]]]))
    assert float(head.values(outputs)) == pytest.approx(-2 * 0.2 + 2 * 0.5)


def test_values_are_exact_where_products_run_in_bfloat16():
    head = CategoricalHead(num_bins=101, max_value=5.0)
    outputs = torch.randn(2, 8, 101, generator=torch.Generator().manual_seed(0))
    expected = head.values(outputs)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head.values(outputs), expected)


def test_categorical_loss_is_cross_entropy_and_lowest_at_its_target():
    head = CategoricalHead(num_bins=3, max_value=1.0)
    target = torch.tensor([[0.2, 0.3, 0.5]])
    entropy = -sum(p * np.log(p) for p in (0.2, 0.3, 0.5))
    assert float(head.loss(torch.log(target).expand(2, 1, 3), target)) == pytest.approx(2 * entropy)
    assert float(head.loss(torch.zeros(1, 1, 3), target)) == pytest.approx(np.log(3))


def test_iterated_critics_each_follow_the_one_before():
    head = ScalarHead(is_iterated=True)
    target = head.target(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0.5]), torch.tensor([0.9]))
    torch.testing.assert_close(target, 0.5 + 0.9 * torch.tensor([[1.0], [1.0], [2.0]]))
    q = torch.tensor([[1.0], [2.0], [3.0]])
    assert float(head.loss(q, target)) == pytest.approx((1 - 1.4) ** 2 + (2 - 1.4) ** 2 + (3 - 2.3) ** 2)
