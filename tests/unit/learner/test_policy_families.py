"""Policy families: densities against torch's distributions, Jacobians by autograd, and the entropy coefficient."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from learner.config import PolicyConfig
from learner.policy_families import (
    DeterministicHead,
    EntropyCoefficient,
    FlowHead,
    GaussianHead,
    VariationalHead,
    make_action_head,
)

ROWS = 5


def draw(head, scale=0.7):
    torch.manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return scale * torch.randn(ROWS, head.num_outputs), torch.randn(ROWS, head.num_noise)


def test_deterministic_is_tanh_and_has_no_density():
    outputs, noise = draw(DeterministicHead(3))
    action, log_prob = DeterministicHead(3)(outputs, noise)
    assert log_prob is None
    torch.testing.assert_close(action, torch.tanh(outputs))


def test_gaussian_density_is_torchs_squashed_normal():
    head = GaussianHead(3)
    outputs, noise = (tensor.double() for tensor in draw(head, 0.3))
    action, log_prob = head(outputs, noise)
    mean, raw = outputs.chunk(2, dim=1)
    std = (-5 + 3.5 * (torch.tanh(raw) + 1)).exp()
    expected = TransformedDistribution(Normal(mean, std), TanhTransform(cache_size=1))
    torch.testing.assert_close(action, torch.tanh(mean + std * noise))
    torch.testing.assert_close(log_prob, expected.log_prob(action).sum(dim=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("action_size", [2, 3, 17])
@pytest.mark.parametrize("num_layers", [1, 2, 5])
def test_flow_density_is_the_base_over_the_jacobian_of_the_whole_map(action_size, num_layers):
    head = FlowHead(action_size, num_layers).double()
    outputs, noise = draw(head, 0.3)
    outputs, noise = outputs.double(), noise.double()
    _, log_prob = head(outputs, noise)
    for row in range(ROWS):
        jacobian = torch.autograd.functional.jacobian(
            lambda e, row=row: head(outputs[row : row + 1], e.unsqueeze(0))[0].squeeze(0), noise[row]
        )
        base = Normal(0.0, 1.0).log_prob(noise[row]).sum()
        torch.testing.assert_close(log_prob[row], base - torch.linalg.slogdet(jacobian)[1], rtol=1e-6, atol=1e-6)


def test_a_new_flow_is_a_squashed_gaussian():
    head, gaussian = FlowHead(4, 3), GaussianHead(4)
    outputs, noise = torch.randn(ROWS, head.num_outputs), torch.randn(ROWS, 4)
    for ours, theirs in zip(head(outputs, noise), gaussian(outputs[:, :8], noise), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_flow_needs_two_action_components():
    with pytest.raises(ValueError, match="at least 2 components, got 1; choose gaussian"):
        make_action_head(PolicyConfig(family="flow"), 1)


def test_variational_bound_lies_below_the_entropy_found_by_integration():
    """One action, one latent: log π(a | s) by quadrature over z; E[−bound] ≤ E[−log π], with q far from exact."""
    head = VariationalHead(1, 1).double()
    outputs, _ = draw(head)
    outputs = outputs[:1].double()
    count = 4_000
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        action, bound = head(outputs.expand(count, -1), noise)
        mean, raw = outputs[:, :2].chunk(2, dim=1)
        std = (-5 + 3.5 * (torch.tanh(raw) + 1)).exp()
        grid = torch.linspace(-6, 6, 241, dtype=torch.float64)
        z = mean + std * grid.unsqueeze(1)
        weight = Normal(0.0, 1.0).log_prob(grid) + math.log(float(grid[1] - grid[0]))
        parameters = head.action_network(torch.cat([z, outputs[:, 2:].expand(len(z), -1)], dim=1))
        a_mean, a_raw = parameters.chunk(2, dim=1)
        a_std = (-5 + 3.5 * (torch.tanh(a_raw) + 1)).exp()
        latent = torch.atanh(action.clamp(-1 + 1e-12, 1 - 1e-12)).T
        log_conditional = Normal(a_mean, a_std).log_prob(latent) - torch.log1p(-action.T.square())
        log_prob = torch.logsumexp(log_conditional + weight.unsqueeze(1), dim=0)
    gap = (log_prob + (-bound)).numpy()  # −bound − (−log π), per sample; its mean is −KL ≤ 0
    error = gap.std() / np.sqrt(count)
    assert gap.mean() < 3 * error
    assert gap.mean() < -5 * error  # q is a random network here, so the bound is not tight


@pytest.mark.parametrize("family", ["deterministic", "gaussian", "flow", "variational"])
def test_without_noise_the_action_is_reproducible_and_inside_its_bounds(family):
    head = make_action_head(PolicyConfig(family=family), 3)
    outputs, noise = draw(head)
    first, _ = head(outputs, torch.zeros_like(noise))
    again, _ = head(outputs, torch.zeros_like(noise))
    torch.testing.assert_close(first, again)
    assert first.shape == (ROWS, 3)
    assert (first.abs() < 1).all()


def test_entropy_coefficient_rises_below_its_target_and_falls_above():
    for log_prob, grows in ((torch.full((8,), 5.0), True), (torch.full((8,), -5.0), False)):
        coefficient = EntropyCoefficient(0.1, target_entropy=-1.0)
        optimizer = torch.optim.SGD(coefficient.parameters(), lr=0.1)
        coefficient.loss(log_prob).backward()
        optimizer.step()
        assert (float(coefficient.value) > 0.1) == grows
