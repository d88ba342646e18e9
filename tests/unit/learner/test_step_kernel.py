"""Adam and soft updates of many arrays against plain torch, at sizes that fill no vector and several threads."""

import copy

import pytest
import torch

from learner.losses import polyak_update_
from learner.step_kernel import make_step_kernel

SHAPES = [(1,), (7, 3), (256, 376), (256,), (33, 65), (2, 1)]


@pytest.fixture(autouse=True)
def threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def make_kernel(parameters):
    kernel = make_step_kernel(parameters)
    if kernel is None:
        pytest.skip("no C++ compiler: only the plain path exists here")
    return kernel


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_adam_is_that_of_torch_also_after_a_step_without_a_gradient(threads):
    torch.set_num_threads(threads)
    plain, fast = make_parameters(0), make_parameters(0)
    kernel = make_kernel(fast)
    optimizers = [torch.optim.Adam(parameters, lr=1e-3, fused=True) for parameters in (plain, fast)]
    for step in range(5):
        for number, gradient in enumerate(make_parameters(step + 1)):
            is_absent = number == 1 and step == 2
            plain[number].grad = fast[number].grad = None if is_absent else gradient.detach()
        optimizers[0].step()
        kernel.adam(optimizers[1])
    for ours, theirs in zip(fast, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        states = optimizers[1].state[ours], optimizers[0].state[theirs]
        assert states[0].keys() == states[1].keys()
        for name, value in states[1].items():
            torch.testing.assert_close(states[0][name], value, rtol=1e-5, atol=1e-7)


def test_soft_updates_are_those_of_torch_and_the_same_for_any_number_of_threads():
    sources, results = make_parameters(1), []
    expected = make_parameters(0)
    kernel = make_kernel(expected)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        targets = copy.deepcopy(make_parameters(0))
        kernel.blend(targets, sources, 0.005)
        results.append(targets)
    with torch.no_grad():
        polyak_update_(expected, sources, 0.005)
    for number, target in enumerate(expected):
        torch.testing.assert_close(results[0][number], target, rtol=1e-6, atol=1e-7)
        assert all(torch.equal(result[number], results[0][number]) for result in results)


def test_what_the_kernels_cannot_read_is_left_to_torch():
    assert make_step_kernel([torch.zeros(2, dtype=torch.float64)]) is None
    assert make_step_kernel([torch.zeros(2, 3).t()]) is None
