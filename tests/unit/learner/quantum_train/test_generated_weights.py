"""Weights of a foreign module from a generator, behind the interface of an optimiser."""

import copy

import pytest
import torch
from torch import nn

from learner.quantum_train.config import GeneratorConfig
from learner.quantum_train.generated_weights import GeneratedWeights


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 1))


def generated(own, **fields):
    config = GeneratorConfig(depth=3, mapping_hidden=(6,), **fields)
    return GeneratedWeights(own, config, learning_rates=(2e-2, 1e-2), seed=1)


@pytest.mark.parametrize("max_qubits", [None, 4])
@pytest.mark.parametrize("activation", ["none", "tanh"])
def test_training_through_it_lowers_a_loss(max_qubits, activation):
    own = module()
    optimizer = generated(own, max_qubits=max_qubits, activation=activation)
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(2))
    target = inputs[:, :1] - inputs[:, 1:2]
    losses = []
    for _ in range(150):
        loss = (own(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_every_tensor_keeps_the_spread_of_its_start():
    own = module()
    before = [float(parameter.detach().square().mean()) for parameter in own.parameters()]
    generated(own)
    after = [float(parameter.detach().square().mean()) for parameter in own.parameters()]
    assert after == pytest.approx(before, rel=1e-4)


def test_gradient_is_that_of_the_weights_carried_on():
    own = module()
    optimizer = generated(own)
    own(torch.ones(1, 3)).sum().backward()
    weights = torch.cat([parameter.grad.reshape(-1) for parameter in own.parameters()])
    optimizer.step()
    carried = optimizer.generator.angles.grad.clone()
    again = GeneratedWeights(module(), GeneratorConfig(depth=3, mapping_hidden=(6,)), learning_rates=(1, 1), seed=1)
    (expected,) = torch.autograd.grad(again._generate(), [again.generator.angles], weights)
    torch.testing.assert_close(carried, expected)


def test_state_goes_on_bit_for_bit():
    first, second = module(), module()
    one, two = generated(first), generated(second)

    def train(own, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            own(torch.ones(1, 3)).sum().backward()
            optimizer.step()

    train(first, one)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    train(first, one)
    train(second, two)
    for left, right in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(left, right)


def test_frozen_parameters_are_left_alone():
    own = module()
    own[0].requires_grad_(False)
    before = own[0].weight.clone()
    optimizer = generated(own)
    assert optimizer.generator.num_weights == 21
    assert torch.equal(own[0].weight, before)
