"""The compiled kernels against plain torch: same numbers to round-off, same state, at sizes that fill no tile."""

import copy
import logging

import pytest
import torch

from learner import native_code
from learner.config import SurrogateConfig
from learner.errors import StateMismatchError
from learner.networks import QuantumSurrogate
from learner.surrogate_kernel import make_surrogate_kernel
from learner.surrogate_training import SurrogateTrainer

# inputs, outputs, hidden, rows of a tiny-batch; the last one is the paper's
SIZES = [(7, 3, 30, 5), (33, 17, 100, 40), (1, 1, 1, 1), (32, 16, 48, 32), (220, 10, 2048, 32)]


@pytest.fixture(autouse=True)
def single_thread_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plain_and_fast(inputs, outputs, hidden):
    torch.manual_seed(0)
    plain = QuantumSurrogate(inputs, outputs, hidden)
    fast = copy.deepcopy(plain)
    fast.kernel = make_surrogate_kernel(fast.network)
    if fast.kernel is None:
        pytest.skip("no C++ compiler: only the plain path exists here")
    return plain, fast


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("inputs", "outputs", "hidden", "rows"), SIZES)
def test_fit_is_that_of_torch(inputs, outputs, hidden, rows, threads):
    torch.set_num_threads(threads)
    plain, fast = plain_and_fast(inputs, outputs, hidden)
    config = SurrogateConfig(num_tiny_batches=3, tiny_batch_size=rows, learning_rate=1e-3)
    trainers = [SurrogateTrainer(s, config, torch.Generator().manual_seed(1)) for s in (plain, fast)]
    for _ in range(4):
        parameters = torch.randn(3 * rows, inputs)
        targets = torch.rand(3 * rows, outputs)
        losses = [trainer.fit(parameters, targets) for trainer in trainers]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        states = [trainer.optimizer.state[p] for trainer, p in zip(trainers, (theirs, ours), strict=True)]
        assert states[1]["step"] == states[0]["step"] == 12
        # Where a gradient is nearly zero Adam's direction is its sign: one ulp there may turn into a whole step.
        assert (ours - theirs).abs().max() < 2e-4
        assert (ours - theirs).abs().mean() < 1e-6
        for name in ("exp_avg", "exp_avg_sq"):
            scale = states[0][name].abs().max()
            assert (states[1][name] - states[0][name]).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("inputs", "outputs", "hidden", "rows"), SIZES)
def test_expected_bits_and_their_gradient_are_those_of_torch(inputs, outputs, hidden, rows, threads):
    torch.set_num_threads(threads)
    plain, fast = plain_and_fast(inputs, outputs, hidden)
    rows = 3 * rows + 1
    parameters = torch.randn(rows, inputs)
    # Not contiguous, as a gradient that comes back through the concatenation with the links.
    direction = torch.randn(rows, outputs + 3)[:, :outputs]
    results = []
    for surrogate in (plain, fast):
        leaf = parameters.clone().requires_grad_()
        bits = surrogate(leaf)
        results.append((bits.detach(), torch.autograd.grad(bits, leaf, direction)[0]))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)
    assert all(parameter.grad is None for parameter in fast.parameters())


def test_the_same_fit_again_is_the_same_bit_for_bit():
    torch.set_num_threads(2)
    ends = []
    for _ in range(2):
        _, fast = plain_and_fast(40, 4, 100)
        trainer = SurrogateTrainer(fast, SurrogateConfig(), torch.Generator().manual_seed(1))
        generator = torch.Generator().manual_seed(2)
        for _ in range(3):
            trainer.fit(torch.randn(256, 40, generator=generator), torch.rand(256, 4, generator=generator).round())
        ends.append([p.detach().clone() for p in fast.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_mixed_precision_takes_the_plain_path():
    plain, fast = plain_and_fast(7, 3, 30)
    parameters = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(parameters.bfloat16()), plain(parameters.bfloat16()))


def test_another_network_is_refused():
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    with pytest.raises(StateMismatchError, match=r"got Sequential[\s\S]*--no-compile"):
        make_surrogate_kernel(network)


def test_without_a_compiler_the_plain_path_is_taken_with_one_line(monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    native_code.load_kernels.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="learner.native_code"):
            surrogate = QuantumSurrogate(3, 2, 8)
            assert make_surrogate_kernel(surrogate.network) is None
            assert make_surrogate_kernel(surrogate.network) is None
    finally:
        native_code.load_kernels.cache_clear()
    assert [record.message.split(":")[0] for record in caplog.records] == ["no C++ compiler (looked for $CXX, g++)"]


def test_a_compiler_that_fails_says_what_it_said(monkeypatch, caplog, tmp_path):
    broken = tmp_path / "broken-compiler"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "cannot find libgomp" >&2\nexit 1\n')
    broken.chmod(0o700)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native_code.load_kernels.cache_clear()
    try:
        assert native_code.load_kernels() is None
    finally:
        native_code.load_kernels.cache_clear()
    assert "cannot find libgomp" in caplog.text
    assert not list((tmp_path / "hdqnn-rl").iterdir())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(4, 6), r"circuit parameters must be \(B, 7\) of float32 on the CPU, got \(4, 6\)"),
        (torch.zeros(4, 0), r"got \(4, 0\)"),
        (torch.zeros(7), r"got \(7,\)"),
        (torch.zeros(4, 7, dtype=torch.float64), "of torch.float64"),
    ],
)
def test_rows_that_the_kernel_would_misread_are_refused(rows, message):
    _, fast = plain_and_fast(7, 3, 30)
    with pytest.raises(StateMismatchError, match=message):
        fast.kernel.forward(rows, keeps_signs=False)


@pytest.mark.parametrize(
    ("parameters", "bits"), [((4, 0), (4, 3)), ((4, 7), (4, 0)), ((4, 7), (2, 3)), ((3, 7), (3, 3))]
)
def test_a_fit_to_rows_that_do_not_belong_together_is_refused(parameters, bits):
    _, fast = plain_and_fast(7, 3, 30)
    optimizer = torch.optim.Adam(fast.parameters())
    with pytest.raises(StateMismatchError):
        fast.kernel.fit(optimizer, torch.zeros(parameters), torch.zeros(bits), 2)
