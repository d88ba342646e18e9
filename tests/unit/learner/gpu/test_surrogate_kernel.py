"""Step B1 by Triton's kernels against plain torch: same numbers to round-off, same state; sizes that fill no tile."""

import copy

import pytest
import torch

from learner.config import SurrogateConfig
from learner.gpu.surrogate_kernel import GpuSurrogateKernel
from learner.networks import QuantumSurrogate
from learner.surrogate_training import SurrogateTrainer

# inputs, outputs, hidden, rows of a tiny-batch; the last one has the paper's inputs and outputs
SIZES = [(7, 3, 30, 5), (33, 17, 40, 24), (220, 10, 64, 32)]


def trainers(inputs, outputs, hidden, rows, device, num_tiny_batches=3):
    torch.manual_seed(0)
    plain = QuantumSurrogate(inputs, outputs, hidden).to(device)
    fast = copy.deepcopy(plain)
    config = SurrogateConfig(num_tiny_batches=num_tiny_batches, tiny_batch_size=rows, learning_rate=1e-3)
    both = [SurrogateTrainer(s, config, torch.Generator(device).manual_seed(1)) for s in (plain, fast)]
    both[1].optimizer.param_groups[0]["lr"] = torch.tensor(1e-3, device=device)
    both[1].device_fit = GpuSurrogateKernel(fast.network).fit
    return both


@pytest.mark.parametrize(("inputs", "outputs", "hidden", "rows"), SIZES)
def test_fit_is_that_of_torch(inputs, outputs, hidden, rows, device):
    plain, fast = trainers(inputs, outputs, hidden, rows, device)
    for _ in range(2):
        parameters = torch.randn(2 * rows, inputs, device=device)
        targets = torch.rand(2 * rows, outputs, device=device)
        losses = [trainer.fit(parameters, targets) for trainer in (plain, fast)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(fast.surrogate.parameters(), plain.surrogate.parameters(), strict=True):
        states = plain.optimizer.state[theirs], fast.optimizer.state[ours]
        assert states[1]["step"] == states[0]["step"] == 6
        # Where a gradient is nearly zero Adam's direction is its sign: one ulp there may turn into a whole step.
        assert (ours - theirs).abs().max() < 2e-4
        assert (ours - theirs).abs().mean() < 1e-6
        for name in ("exp_avg", "exp_avg_sq"):
            scale = states[0][name].abs().max()
            assert (states[1][name] - states[0][name]).abs().max() <= 1e-4 * scale, name


def test_one_tiny_batch_is_enough(device):
    plain, fast = trainers(7, 3, 30, 5, device, num_tiny_batches=1)
    parameters, targets = torch.randn(9, 7, device=device), torch.rand(9, 3, device=device)
    losses = [trainer.fit(parameters, targets) for trainer in (plain, fast)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)


def test_the_same_fit_gives_the_same_bits(device):
    parameters, targets = torch.randn(10, 33, device=device), torch.rand(10, 17, device=device)
    found = []
    for _ in range(2):
        _, fast = trainers(33, 17, 40, 5, device)
        fast.fit(parameters, targets)
        found.append([p.detach().clone() for p in fast.surrogate.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
