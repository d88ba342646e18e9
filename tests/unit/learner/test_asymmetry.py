"""The degree of asymmetry: annealed on schedule, adapted against a known bias, kept by a checkpoint."""

import math

import numpy as np
import pytest
import torch

from learner.asymmetry import Asymmetry
from learner.critic_config import CriticConfig

CPU = torch.device("cpu")


def test_annealing_is_linear_and_stays_at_its_end():
    asymmetry = Asymmetry(CriticConfig(asymmetry=0.1, final_asymmetry=0.5), 100, CPU)
    seen = []
    for step in (0, 50, 100, 150):
        asymmetry.anneal(step)
        seen.append(asymmetry.state())
    assert seen == pytest.approx([0.1, 0.3, 0.5, 0.5])


def test_without_an_end_nothing_moves():
    asymmetry = Asymmetry(CriticConfig(asymmetry=0.7), 100, CPU)
    asymmetry.anneal(50)
    assert asymmetry.state() == pytest.approx(0.7)


def test_one_step_of_adaptation_is_the_formula():
    asymmetry = Asymmetry(CriticConfig(adapts_asymmetry=True, adaptation_rate=0.1), None, CPU)
    values, far = torch.tensor([2.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 0.5])
    gap = asymmetry.adapt(values, far)
    expected_gap = (6 - 4.5) / 3 / float(np.std(far.numpy()))
    assert float(gap) == pytest.approx(expected_gap, rel=1e-4)
    assert asymmetry.state() == pytest.approx(1 / (1 + math.exp(-0.1 * expected_gap)), rel=1e-4)


def test_a_batch_of_one_moves_alpha_by_the_sign_of_its_gap():
    asymmetry = Asymmetry(CriticConfig(adapts_asymmetry=True, adaptation_rate=0.1), None, CPU)
    assert float(asymmetry.adapt(torch.tensor([2.0]), torch.tensor([1.0]))) == 1.0
    assert asymmetry.state() == pytest.approx(1 / (1 + math.exp(-0.1)))


@pytest.mark.parametrize(("bias", "bound"), [(5.0, 0.95), (-5.0, 0.05)])
def test_alpha_rises_under_overestimation_falls_under_the_opposite_and_stays_in_bounds(bias, bound):
    asymmetry = Asymmetry(CriticConfig(adapts_asymmetry=True), None, CPU)
    far = torch.randn(64, generator=torch.Generator().manual_seed(0))
    for _ in range(500):
        asymmetry.adapt(far + bias, far)
    assert asymmetry.state() == pytest.approx(bound)


def test_it_finds_the_alpha_that_undoes_a_bias():
    """A critic whose bias falls linearly with α: values are right at 0.7, and that is where α comes to rest."""
    asymmetry = Asymmetry(CriticConfig(adapts_asymmetry=True), None, CPU)
    far = torch.randn(64, generator=torch.Generator().manual_seed(0))
    for _ in range(2_000):
        asymmetry.adapt(far + 2 * (0.7 - asymmetry.state()), far)
    assert asymmetry.state() == pytest.approx(0.7, abs=0.01)


def test_a_checkpoint_keeps_it_and_a_damaged_one_is_refused():
    asymmetry = Asymmetry(CriticConfig(adapts_asymmetry=True), None, CPU)
    asymmetry.adapt(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.5]))
    again = Asymmetry(CriticConfig(adapts_asymmetry=True), None, CPU)
    again.restore(asymmetry.state())
    assert torch.equal(again.value, asymmetry.value)
    with pytest.raises(ValueError, match="must be in"):
        again.restore(math.nan)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"adapts_asymmetry": True, "final_asymmetry": 0.5}, "choose one"),
        ({"final_asymmetry": 1.5}, "final_asymmetry must be in"),
        ({"architecture": "mlp", "head": "categorical", "adapts_asymmetry": True}, "leave it at 0.5"),
        ({"architecture": "mlp", "head": "categorical", "target_rule": "iterated"}, "scalar head"),
    ],
)
def test_combinations_without_meaning_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CriticConfig(**values)
