"""Adam by one Triton kernel for eight tensors, against ``torch.optim.Adam``."""

import copy

import pytest
import torch
from torch import nn

from learner.gpu.adam_kernel import adam_step


def networks(num_layers, device):
    torch.manual_seed(0)
    plain = nn.Sequential(*[nn.Linear(40 + k, 37) for k in range(num_layers)]).to(device)
    return plain, copy.deepcopy(plain)


@pytest.mark.parametrize("num_layers", [1, 4, 6])  # 2, 8 and 12 tensors: one kernel not full, one full, two
def test_steps_are_those_of_torch(num_layers, device):
    plain, fast = networks(num_layers, device)
    theirs = torch.optim.Adam(plain.parameters(), lr=1e-3)
    ours = torch.optim.Adam(fast.parameters(), lr=1e-3)
    ours.param_groups[0]["lr"] = torch.tensor(1e-3, device=device)
    for _ in range(3):
        for a, b in zip(plain.parameters(), fast.parameters(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        theirs.step()
        adam_step(ours)
    for a, b in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-7)
        assert ours.state[b]["step"] == 3
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(ours.state[b][name], theirs.state[a][name], rtol=1e-5, atol=1e-7)


def test_a_parameter_without_gradient_stays_and_counts_steps_of_its_own(device):
    plain, fast = networks(2, device)
    ours = torch.optim.Adam(fast.parameters(), lr=1e-3)
    ours.param_groups[0]["lr"] = torch.tensor(1e-3, device=device)
    parameters, before = list(fast.parameters()), list(plain.parameters())
    for step in range(2):
        for parameter in parameters[step:]:
            parameter.grad = torch.ones_like(parameter)
        parameters[0].grad = None if step else parameters[0].grad
        adam_step(ours)
    assert [int(ours.state[p]["step"]) for p in parameters] == [1, 2, 2, 2]
    torch.testing.assert_close(parameters[0], before[0] - 1e-3, rtol=0, atol=1e-6)
    torch.testing.assert_close(parameters[1], before[1] - 2e-3, rtol=0, atol=1e-6)
