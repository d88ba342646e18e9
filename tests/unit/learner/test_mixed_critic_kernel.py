"""The compiled BatchNorm critics in mixed precision: products of rounded numbers, everything else as in float32."""

import copy

import pytest
import torch
from torch import nn

from learner.native_memory import Scratch
from learner.normed_critic_kernel import make_normed_critic_kernel
from tests.unit.learner.test_normed_critic_kernel import SIZES, config_of, plain_and_fast, threads_restored

__all__ = ["threads_restored"]


class RoundedProduct(torch.autograd.Function):
    """x · Wᵀ of numbers rounded to bfloat16, there and back; sums in float64."""

    @staticmethod
    def forward(ctx, inputs, weight):
        ctx.save_for_backward(inputs, weight)
        return (rounded(inputs) @ rounded(weight).t()).float()

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = map(rounded, ctx.saved_tensors)
        back = rounded(gradient)
        return (back @ weight).float(), (back.t() @ inputs).float()


def rounded(tensor):
    return tensor.bfloat16().double()


def reference_outputs(critic, inputs):
    """Outputs of all critics; the head is no product of rounded numbers."""
    results = []
    for network in critic.networks:
        *hidden, head = network.children()
        stream = inputs
        for layer in hidden:
            stream = RoundedProduct.apply(stream, layer.weight) if isinstance(layer, nn.Linear) else layer(stream)
        results.append(head(stream))
    return torch.stack(results)


def critic_and_copy(observed, acted, *sizes):
    return plain_and_fast(config_of(*sizes, unit_rows=False), observed, acted)


def exact_outputs(critic, inputs):
    return torch.stack([network(inputs) for network in critic.networks])


def assert_is_rounded(found, rounded, exact, name=""):
    """Far nearer to the products of rounded numbers than these are to the exact ones.

    Not equal, because a sum in another order may be rounded the other way and end on the other side of a ReLU.
    """
    error, rounding = ((one - rounded).abs().mean() for one in (found, exact))
    assert error <= 0.2 * rounding + 2e-6 * rounded.abs().max(), (name, error, rounding)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("observed", "acted", "hidden", "layers", "critics", "bins", "rows"), SIZES)
def test_a_step_is_that_of_rounded_products(observed, acted, hidden, layers, critics, bins, rows, threads):
    torch.set_num_threads(threads)
    plain, fast = critic_and_copy(observed, acted, hidden, layers, critics, bins)
    in_float32 = copy.deepcopy(plain)
    inputs, part = torch.randn(rows, observed + acted), slice(rows // 3, rows)
    rounded = reference_outputs(plain, inputs)[:, part]
    exact = exact_outputs(in_float32, inputs)[:, part]
    found = fast.kernel.outputs(inputs, part, is_mixed=True)
    assert_is_rounded(found, rounded, exact)
    output_gradient = torch.randn_like(rounded) / rows
    rounded.backward(output_gradient), exact.backward(output_gradient)
    optimizer = torch.optim.Adam(fast.parameters(), lr=1e-3)
    fast.kernel.step(optimizer, output_gradient)
    for name, theirs in plain.named_parameters():
        # After one step the first moment is a tenth of the gradient.
        gradient = 10 * optimizer.state[fast.get_parameter(name)]["exp_avg"]
        assert_is_rounded(gradient, theirs.grad, in_float32.get_parameter(name).grad, name)
    for name, theirs in plain.named_buffers():
        if name.startswith("critics") and "running" in name:
            assert_is_rounded(fast.get_buffer(name), theirs, in_float32.get_buffer(name), name)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("observed", "acted", "hidden", "layers", "critics", "bins", "rows"), SIZES)
def test_the_climb_is_that_of_rounded_products(observed, acted, hidden, layers, critics, bins, rows, threads):
    torch.set_num_threads(threads)
    plain, fast = critic_and_copy(observed, acted, hidden, layers, critics, bins)
    plain.eval(), fast.eval()
    inputs = torch.randn(rows, observed + acted)
    action = inputs[:, observed:].clone().requires_grad_()
    found = fast.kernel.climbed(inputs, action, is_mixed=True)
    weights = torch.randn_like(found)
    slopes = torch.autograd.grad((found * weights).sum(), action)[0]
    leaf = inputs.clone().requires_grad_()
    rounded, exact = reference_outputs(plain, leaf), exact_outputs(plain, leaf)
    rounded_slopes, exact_slopes = (torch.autograd.grad((x * weights).sum(), leaf)[0] for x in (rounded, exact))
    assert_is_rounded(found, rounded, exact)
    assert_is_rounded(slopes, rounded_slopes[:, observed:], exact_slopes[:, observed:])


def test_rounding_is_there_and_numbers_repeat_bit_for_bit_whatever_the_threads():
    ends = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        _, fast = critic_and_copy(7, 3, 100, 2, 2, 11)
        optimizer = torch.optim.Adam(fast.parameters(), lr=1e-3)
        inputs = torch.randn(50, 10)
        exact = fast.kernel.outputs(inputs, slice(10, 40)).detach()
        for _ in range(3):
            outputs = fast.kernel.outputs(inputs, slice(10, 40), is_mixed=True)
            fast.kernel.step(optimizer, (outputs - 1).detach())
        assert not torch.equal(exact, outputs)
        climbed, kept = fast.kernel.outputs_by_running_statistics(inputs, is_mixed=True)
        slopes = fast.kernel.action_gradient(kept, climbed, 3, is_mixed=True)
        ends.append([climbed, slopes, *(tensor.detach().clone() for tensor in fast.state_dict().values())])
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], other, strict=True))


@pytest.mark.parametrize("is_training", [True, False])
def test_critics_take_this_path_under_mixed_precision_where_the_processor_has_it(is_training):
    plain, fast = critic_and_copy(7, 3, 30, 2, 2, 11)
    plain.train(is_training), fast.train(is_training)
    observation, action = torch.randn(12, 7), torch.rand(12, 3)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        fast.kernel.has_bfloat16 = False
        assert torch.equal(fast(observation, action), plain(observation, action))
        fast.kernel.has_bfloat16 = True
        mixed, autocast = fast(observation, action), plain(observation, action)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, autocast)
    torch.testing.assert_close(mixed, autocast, rtol=0.1, atol=0.1)


def test_rows_of_hidden_layers_have_length_one_after_a_step_in_mixed_precision():
    _, fast = critic_and_copy(7, 3, 40, 2, 2, 11)
    kernel = make_normed_critic_kernel(fast.networks, has_unit_rows=True, scratch=Scratch())
    outputs = kernel.outputs(torch.randn(12, 10), slice(None), is_mixed=True)
    kernel.step(torch.optim.Adam(fast.parameters(), lr=1e-2), torch.randn_like(outputs))
    for network in fast.networks:
        *hidden, head = (layer for layer in network if isinstance(layer, nn.Linear))
        for layer in hidden:
            torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones(40))
        assert not torch.allclose(head.weight.norm(dim=1), torch.ones(11))


def test_the_kernels_and_torch_take_turns_in_bfloat16():
    """Both use registers that have to be set up first, each its own way."""
    _, fast = critic_and_copy(33, 17, 64, 2, 2, 11)
    inputs, left, right = torch.randn(40, 50), torch.randn(64, 96).bfloat16(), torch.randn(96, 64).bfloat16()
    turns = [(fast.kernel.outputs(inputs, slice(None), is_mixed=True), left @ right) for _ in range(3)]
    for outputs, product in turns[1:]:
        assert torch.equal(outputs, turns[0][0])
        assert torch.equal(product, turns[0][1])
