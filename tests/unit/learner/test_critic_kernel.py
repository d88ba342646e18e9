"""The compiled critics against plain torch: same numbers to round-off, same state, at sizes that fill no panel."""

import copy

import pytest
import torch

from learner.config import AgentSpec
from learner.critic_kernel import make_critic_kernel
from learner.critics import descend
from learner.errors import StateMismatchError
from learner.native_memory import Scratch
from learner.networks import TwinCritic

# observations, actions, units, rows; the last one is the paper's
SIZES = [(1, 1, 1, 1), (7, 3, 30, 5), (33, 17, 65, 40), (32, 40, 32, 48), (5, 2, 17, 13), (376, 17, 256, 256)]


@pytest.fixture(autouse=True)
def threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def plain_and_fast(observed, acted, hidden):
    torch.manual_seed(0)
    plain = TwinCritic(
        AgentSpec(observation_size=observed, action_low=(-1.0,) * acted, action_high=(1.0,) * acted), hidden
    )
    fast = copy.deepcopy(plain)
    fast.kernel = make_critic_kernel(list(fast.parameters()), Scratch())
    if fast.kernel is None:
        pytest.skip("no C++ compiler: only the plain path exists here")
    return plain, fast


def optimizer_of(critic):
    return torch.optim.Adam(critic.parameters(), lr=1e-3, fused=True)


def steps(critic, optimizer, batches):
    """Losses of one step per batch of observations, actions and targets."""
    losses = []
    for observation, action, target in batches:
        with torch.no_grad():
            critic(observation + 1, action)  # what a target critic is asked meanwhile disturbs nothing
        outputs = critic(observation, action)
        loss = (outputs - target).square().mean(dim=1).sum()
        descend(critic, optimizer, loss, outputs)
        losses.append(loss.item())
    return losses


def make_batches(observed, acted, rows, count=3):
    generator = torch.Generator().manual_seed(1)
    return [
        tuple(torch.randn(rows, *size, generator=generator) for size in ((observed,), (acted,), ()))
        for _ in range(count)
    ]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("observed", "acted", "hidden", "rows"), SIZES)
def test_steps_are_those_of_torch(observed, acted, hidden, rows, threads):
    torch.set_num_threads(threads)
    plain, fast = plain_and_fast(observed, acted, hidden)
    optimizers = [optimizer_of(plain), optimizer_of(fast)]
    batches = make_batches(observed, acted, rows)
    expected, found = (steps(c, o, batches) for c, o in zip((plain, fast), optimizers, strict=True))
    assert found == pytest.approx(expected, rel=1e-4)
    for theirs, ours in zip(plain.parameters(), fast.parameters(), strict=True):
        states = [o.state[p] for o, p in zip(optimizers, (theirs, ours), strict=True)]
        assert states[1]["step"] == states[0]["step"] == 3
        # Where a gradient is nearly zero Adam's direction is its sign: one ulp there may turn into a whole step.
        assert (ours - theirs).abs().max() < 2e-3
        assert (ours - theirs).abs().mean() < 2e-6
        for name in ("exp_avg", "exp_avg_sq"):
            scale = states[0][name].abs().max()
            assert (states[1][name] - states[0][name]).abs().max() <= 1e-3 * scale, name


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("observed", "acted", "hidden", "rows"), SIZES)
def test_values_and_the_gradient_to_the_action_are_those_of_torch(observed, acted, hidden, rows, threads):
    torch.set_num_threads(threads)
    plain, fast = plain_and_fast(observed, acted, hidden)
    observation, weights = torch.randn(rows, observed), torch.randn(rows)
    # Not contiguous, as a slice of a policy's outputs.
    action = torch.randn(rows, acted + 3)[:, :acted]
    results = []
    for critic in (plain, fast):
        with torch.no_grad():
            both = critic(observation, action)
        leaf = action.clone().requires_grad_()
        first = critic.first(observation, leaf)
        results.append((both, first.detach(), torch.autograd.grad((weights * first).sum(), leaf)[0]))
        with torch.no_grad():
            assert torch.equal(critic.first(observation, action), first)
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in fast.parameters())


def test_numbers_are_the_same_bit_for_bit_whatever_the_threads():
    ends = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        _, fast = plain_and_fast(21, 4, 100)
        steps(fast, optimizer_of(fast), make_batches(21, 4, 50))
        ends.append([parameter.detach().clone() for parameter in fast.parameters()])
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], other, strict=True))


def test_climbing_both_critics_takes_the_plain_path():
    plain, fast = plain_and_fast(7, 3, 30)
    observation, action = torch.randn(5, 7), torch.randn(5, 3, requires_grad=True)
    assert torch.equal(fast(observation, action), plain(observation, action))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(observation, action.detach()), plain(observation, action.detach()))


def test_a_step_without_values_is_refused():
    _, fast = plain_and_fast(7, 3, 30)
    optimizer = optimizer_of(fast)
    with pytest.raises(StateMismatchError, match=r"gradient of 5 rows after no values; call values first"):
        fast.kernel.step(optimizer, torch.zeros(2, 5))
    fast(torch.randn(4, 7), torch.randn(4, 3))
    with pytest.raises(StateMismatchError, match=r"gradient of 5 rows after values of 4"):
        fast.kernel.step(optimizer, torch.zeros(2, 5))


def test_what_the_kernels_cannot_read_is_refused():
    plain, _ = plain_and_fast(7, 3, 30)
    with pytest.raises(StateMismatchError, match=r"got torch.float64 on cpu; use the plain path \(--no-compile\)"):
        make_critic_kernel(list(plain.double().parameters()), Scratch())


@pytest.mark.parametrize(
    ("observation", "action"),
    [((4, 6), (4, 3)), ((4, 7), (4, 0)), ((4, 7), (3, 3)), ((7,), (3,))],
)
def test_rows_that_the_kernel_would_misread_are_refused(observation, action):
    _, fast = plain_and_fast(7, 3, 30)
    with pytest.raises(StateMismatchError, match=r"observations|actions"):
        fast.kernel.values(torch.zeros(observation), torch.zeros(action))
