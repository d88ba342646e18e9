"""Critic networks: independence of the ensemble, normalisation per row or per batch, rows of length one."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from learner.config import AgentSpec
from learner.critic_config import CriticConfig
from learner.critics import Dropout, EnsembleCritic, make_critic, normalise_rows_
from learner.networks import TwinCritic

SPEC = AgentSpec(observation_size=5, action_low=(-2.0, 0.0), action_high=(2.0, 1.0))


def make(**values):
    torch.manual_seed(0)
    return make_critic(SPEC, CriticConfig(**{"architecture": "mlp", "hidden_size": 32, **values}))


def inputs(batch=7):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 5, generator=generator), torch.rand(batch, 2, generator=generator)


def test_the_default_is_the_papers_critic():
    assert isinstance(make_critic(SPEC, CriticConfig()), TwinCritic)


def test_outputs_have_a_row_per_critic_and_the_first_is_the_first():
    critic = make(num_critics=3, head="categorical", num_bins=11)
    outputs = critic(*inputs())
    assert outputs.shape == (3, 7, 11)
    torch.testing.assert_close(critic.first(*inputs()), outputs[:1])
    assert not torch.allclose(outputs[0], outputs[1])


def test_layer_norm_critic_is_linear_norm_relu_written_out():
    critic = make(normalisation="layer", num_layers=1, num_critics=1)
    observation, action = inputs()
    first, norm, _, head = critic.critics[0]
    # Actions enter as fractions of their half-range: (-2, 2) and (0, 1) both become (-1, 1).
    scaled = torch.stack([action[:, 0] / 2, (action[:, 1] - 0.5) / 0.5], dim=1)
    hidden = torch.cat([observation, scaled], dim=1) @ first.weight.T + first.bias
    centred = hidden - hidden.mean(dim=1, keepdim=True)
    hidden = centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
    expected = functional.relu(hidden) @ head.weight.T + head.bias
    torch.testing.assert_close(critic(observation, action)[0], expected, atol=1e-5, rtol=1e-4)


def test_group_norm_standardises_each_of_sixteen_groups():
    critic = make(normalisation="group", num_layers=1, num_critics=1)
    first, norm, _, _ = critic.critics[0]
    hidden = norm(first(torch.cat(critic._inputs(*inputs()), dim=1))).detach().reshape(7, 16, 2)
    np.testing.assert_allclose(hidden.mean(dim=2), 0, atol=1e-5)


def test_plain_residual_block_is_the_thesiss():
    critic = make(architecture="residual", num_layers=1, num_critics=1)
    first, block, head = critic.critics[0]
    stream = first(torch.cat(critic._inputs(*inputs()), dim=1))
    inner = functional.relu(stream @ block.expand.weight.T + block.expand.bias)
    expected = head(stream + inner @ block.contract.weight.T + block.contract.bias)
    torch.testing.assert_close(critic(*inputs())[0], expected)


def test_batch_norm_standardises_over_the_batch_and_keeps_running_statistics():
    critic = make(normalisation="batch", num_critics=1)
    observation, action = inputs(64)
    before = critic.input_norms[0].running_mean.clone()
    critic(observation, action)
    assert not torch.equal(before, critic.input_norms[0].running_mean)
    critic.eval()
    alone = critic(observation[:1], action[:1])
    torch.testing.assert_close(critic(observation, action)[:, :1], alone)


def standardised(values):
    return (values - values.mean(dim=0)) / (values.var(dim=0, correction=0) + 1e-5).sqrt()


def test_batch_norm_critic_written_out():
    critic = make(normalisation="batch", num_layers=1, num_critics=2)
    observation, action = inputs(64)
    scaled = torch.stack([action[:, 0] / 2, (action[:, 1] - 0.5) / 0.5], dim=1)
    stream = standardised(torch.cat([observation, scaled], dim=1))
    for output, (first, norm, _, head) in zip(critic(observation, action), critic.critics, strict=True):
        hidden = functional.relu(standardised(stream @ first.weight.T) * norm.weight + norm.bias)
        torch.testing.assert_close(output, hidden @ head.weight.T + head.bias, atol=1e-5, rtol=1e-4)


def test_sizes_that_groups_do_not_divide_concern_group_norm_alone():
    assert make(hidden_size=30, normalisation="layer")(*inputs()).shape == (2, 7, 1)


@pytest.mark.parametrize("normalisation", ["none", "layer", "batch"])
def test_rows_left_out_still_count_for_the_statistics(normalisation):
    critic, again = make(normalisation=normalisation), make(normalisation=normalisation)
    everything = critic(*inputs(8))
    torch.testing.assert_close(again(*inputs(8), slice(4, None)), everything[:, 4:])
    for name, tensor in critic.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)


@pytest.mark.parametrize("normalisation", ["none", "layer", "batch"])
def test_the_gradient_of_the_action_is_the_slope_of_the_output(normalisation):
    critic = make(normalisation=normalisation, num_critics=2).double().eval()
    observation, action = (values.double() for values in inputs(3))
    (gradient,) = torch.autograd.grad(critic(observation, action.requires_grad_()).sum(), action)
    for component in range(2):
        step = torch.zeros_like(action)
        step[:, component] = 1e-6
        with torch.no_grad():
            rise = critic(observation, action + step).sum(dim=(0, 2)) - critic(observation, action - step).sum(
                dim=(0, 2)
            )
        torch.testing.assert_close(gradient[:, component], rise / 2e-6, atol=1e-6, rtol=1e-6)


def test_dropout_takes_out_the_asked_share_makes_up_for_it_and_rests_while_the_policy_climbs():
    dropout = Dropout(0.2, torch.Generator().manual_seed(0))
    inputs = torch.full((1000, 100), 3.0, requires_grad=True)
    outputs = dropout(inputs)
    assert set(outputs.detach().unique().tolist()) == {0.0, 3.75}
    assert float((outputs == 0).float().mean()) == pytest.approx(0.2, abs=0.005)
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    torch.testing.assert_close(gradient, outputs.detach() / 3)
    assert not torch.equal(dropout(inputs), outputs)
    dropout.eval()
    assert dropout(inputs) is inputs


@pytest.mark.parametrize("architecture", ["mlp", "residual"])
def test_rows_of_hidden_layers_have_length_one_and_heads_are_left_alone(architecture):
    critic = make(architecture=architecture, normalisation="batch", unit_rows=True)
    assert isinstance(critic, EnsembleCritic)
    head = critic.critics[1][-1].weight.clone()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(3)
    normalise_rows_(critic)
    hidden = [m for m in critic.critics[1].modules() if isinstance(m, torch.nn.Linear)][:-1]
    assert len(hidden) >= 2
    for layer in hidden:
        torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(len(layer.weight)))
    torch.testing.assert_close(critic.critics[1][-1].weight, 3 * head)


def test_orthogonal_rows_have_the_asked_gain():
    critic = make(orthogonal=True, num_layers=2, num_critics=1)
    second = critic.critics[0][3].weight
    torch.testing.assert_close(second @ second.T, 2 * torch.eye(32), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "segmented", "normalisation": "layer"}, "segmented critic is the paper's"),
        ({"architecture": "mlp", "num_critics": 2, "num_target_critics": 3}, "num_target_critics must be in"),
        ({"architecture": "mlp", "head": "categorical", "asymmetry": 0.7}, "leave it at 0.5"),
        ({"architecture": "mlp", "normalisation": "group", "hidden_size": 100}, "multiple of num_groups"),
        ({"architecture": "mlp", "normalisation": "group", "hidden_size": 16}, "at least twice num_groups"),
        ({"architecture": "mlp", "unit_rows": True}, "unit_rows needs a normalisation"),
        ({"architecture": "mlp", "dropout": 1.0}, "dropout must be"),
        ({"target_rule": "iterated", "num_target_critics": 1}, "leave num_target_critics out"),
    ],
)
def test_combinations_without_meaning_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        CriticConfig(**values)
