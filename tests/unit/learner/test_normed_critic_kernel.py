"""The compiled BatchNorm critics against plain torch: same numbers to round-off, at sizes that fill no panel."""

import copy

import pytest
import torch
from torch.nn import functional

from learner.config import AgentSpec
from learner.critic_config import CriticConfig
from learner.critics import EnsembleCritic, climbed_value, descend, paired_outputs
from learner.errors import StateMismatchError
from learner.native_code import load_kernels
from learner.native_memory import Scratch
from learner.normed_critic_kernel import make_normed_critic_kernel
from learner.value_heads import make_head

# observations, actions, units, layers, critics, bins, rows of a batch; the last one is that of the strong presets
SIZES = [
    (1, 1, 1, 1, 1, 2, 2),
    (7, 3, 30, 1, 2, 5, 9),
    (33, 17, 65, 2, 3, 101, 40),
    (5, 2, 17, 3, 2, 16, 13),
    (376, 17, 256, 3, 2, 101, 256),
]


@pytest.fixture(autouse=True)
def threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config_of(hidden=30, layers=2, critics=2, bins=11, **values):
    return CriticConfig(
        **{
            "architecture": "mlp",
            "normalisation": "batch",
            "head": "categorical",
            "climbs": "mean",
            "unit_rows": True,
            "hidden_size": hidden,
            "num_layers": layers,
            "num_critics": critics,
            "num_bins": bins,
            **values,
        }
    )


def plain_and_fast(config, observed=7, acted=3):
    torch.manual_seed(0)
    spec = AgentSpec(observation_size=observed, action_low=(-1.0,) * acted, action_high=(3.0,) * acted)
    plain = EnsembleCritic(spec, config)
    for norm in (m for m in plain.modules() if isinstance(m, torch.nn.BatchNorm1d) and m.affine):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    fast = copy.deepcopy(plain)
    fast.kernel = make_normed_critic_kernel(fast.networks, has_unit_rows=config.unit_rows, scratch=Scratch())
    if load_kernels() is None:
        pytest.skip("no C++ compiler: only the plain path exists here")
    assert fast.kernel is not None
    return plain, fast


def optimizer_of(critic):
    return torch.optim.Adam(critic.parameters(), lr=1e-3, fused=True)


def make_pairs(observed, acted, rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(rows, observed, generator=generator), torch.rand(rows, acted, generator=generator))
        for _ in range(2)
    ]


def steps(critic, optimizer, config, batches, target_critic=None):
    """Outputs and losses of one step for each batch; without a target the critics are their own."""
    outputs, losses = [], []
    for pairs in batches:
        now, later = paired_outputs(critic, target_critic, config, *pairs, torch.Generator())
        target = torch.softmax(later.roll(1, dims=2), dim=2).mean(dim=0)
        loss = -(functional.log_softmax(now, dim=2) * target).sum(dim=2).mean(dim=1).sum()
        descend(critic, optimizer, loss, now, has_unit_rows=config.unit_rows)
        outputs.append(now.detach())
        losses.append(loss.item())
    return outputs, losses


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("has_unit_rows", "has_target"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize(("observed", "acted", "hidden", "layers", "critics", "bins", "rows"), SIZES)
def test_steps_are_those_of_torch(
    observed, acted, hidden, layers, critics, bins, rows, has_unit_rows, has_target, threads, count
):
    torch.set_num_threads(threads)
    config = config_of(hidden, layers, critics, bins, unit_rows=has_unit_rows)
    plain, fast = plain_and_fast(config, observed, acted)
    optimizers = [optimizer_of(plain), optimizer_of(fast)]
    batches = [make_pairs(observed, acted, rows, seed) for seed in range(count)]
    targets = plain_and_fast(config, observed, acted) if has_target else (None, None)
    expected, found = (
        steps(critic, optimizer, config, batches, target)
        for critic, optimizer, target in zip((plain, fast), optimizers, targets, strict=True)
    )
    torch.testing.assert_close(found[0][0], expected[0][0], rtol=1e-4, atol=1e-5)
    assert found[1] == pytest.approx(expected[1], rel=1e-3)
    for name, theirs in plain.named_parameters():
        ours = fast.get_parameter(name)
        states = [o.state[p] for o, p in zip(optimizers, (theirs, ours), strict=True)]
        assert states[1]["step"] == states[0]["step"] == count
        # Where a gradient is nearly zero Adam's direction is its sign: one ulp there may turn into a whole step.
        assert (ours - theirs).abs().max() < 7e-3, name
        assert (ours - theirs).abs().mean() < 2e-5, name
        for moment in ("exp_avg", "exp_avg_sq"):
            scale = states[0][moment].abs().max()
            # Later steps start from parameters that differ by such a step.
            share = 1e-3 if count == 1 else 3e-2
            assert (states[1][moment] - states[0][moment]).abs().max() <= share * scale + 1e-9, (name, moment)
    for name, theirs in plain.named_buffers():
        torch.testing.assert_close(fast.get_buffer(name), theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("climbs", ["mean", "min"])
@pytest.mark.parametrize(("observed", "acted", "hidden", "layers", "critics", "bins", "rows"), SIZES)
def test_the_climb_is_that_of_torch(observed, acted, hidden, layers, critics, bins, rows, climbs, threads):
    torch.set_num_threads(threads)
    config = config_of(hidden, layers, critics, bins, climbs=climbs)
    plain, fast = plain_and_fast(config, observed, acted)
    pairs = make_pairs(observed, acted, rows)
    results = []
    for critic in (plain, fast):
        paired_outputs(critic, None, config, *pairs, torch.Generator())  # running statistics of their own
        # Not contiguous, as a slice of a policy's outputs.
        action = torch.cat([pairs[0][1], pairs[0][1]], dim=1)[:, :acted].requires_grad_()
        value = climbed_value(critic, config, make_head(config), pairs[0][0], action)
        again = climbed_value(critic, config, make_head(config), pairs[0][0], action)  # what passes meanwhile
        results.append((value, torch.autograd.grad(value, action)[0], torch.autograd.grad(again, action)[0]))
    for expected, found in zip(*results, strict=True):
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * scale)
    assert all(parameter.grad is None for parameter in fast.parameters())


def test_one_number_as_head_and_rows_of_any_length():
    config = config_of(head="scalar", unit_rows=False)
    plain, fast = plain_and_fast(config)
    (pair, _) = make_pairs(7, 3, 12)
    torch.testing.assert_close(fast(*pair, slice(3, 8)), plain(*pair, slice(3, 8)), rtol=1e-4, atol=1e-5)


def test_the_kernels_numbers_are_the_same_bit_for_bit_whatever_the_threads():
    ends = []
    for threads in (1, 2, 2, 3):
        torch.set_num_threads(threads)
        _, fast = plain_and_fast(config_of(100))
        optimizer = optimizer_of(fast)
        for seed in range(3):
            inputs = torch.cat(make_pairs(7, 3, 50, seed)[0], dim=1)
            outputs = fast.kernel.outputs(inputs, slice(10, 40))
            fast.kernel.step(optimizer, (outputs - 1).detach())
        climbed, kept = fast.kernel.outputs_by_running_statistics(inputs)
        slopes = fast.kernel.action_gradient(kept, climbed, 3)
        ends.append([climbed, slopes, *(tensor.detach().clone() for tensor in fast.state_dict().values())])
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], other, strict=True))


def test_gradients_of_actions_by_batch_statistics_take_the_plain_path():
    plain, fast = plain_and_fast(config_of())
    (observation, action), _ = make_pairs(7, 3, 12)
    leaf = action.clone().requires_grad_()
    assert torch.equal(fast(observation, leaf), plain(observation, leaf))


def test_other_critics_have_no_kernel():
    spec = AgentSpec(observation_size=7, action_low=(-1.0,), action_high=(1.0,))
    for values in ({"normalisation": "layer"}, {"dropout": 0.1}, {"architecture": "residual"}):
        critic = EnsembleCritic(spec, config_of(**values))
        assert make_normed_critic_kernel(critic.networks, has_unit_rows=False, scratch=Scratch()) is None
    critic = EnsembleCritic(spec, config_of()).double()
    assert make_normed_critic_kernel(critic.networks, has_unit_rows=False, scratch=Scratch()) is None


def test_a_step_without_outputs_is_refused():
    _, fast = plain_and_fast(config_of())
    optimizer = optimizer_of(fast)
    with pytest.raises(StateMismatchError, match=r"gradient of \(2, 5, 11\) after no outputs; call outputs first"):
        fast.kernel.step(optimizer, torch.zeros(2, 5, 11))
    fast(*make_pairs(7, 3, 6)[0], slice(0, 4))
    with pytest.raises(StateMismatchError, match=r"gradient of \(2, 6, 11\) after outputs of \(2, 4, 11\)"):
        fast.kernel.step(optimizer, torch.zeros(2, 6, 11))
    fast(*make_pairs(7, 3, 6)[0])
    with pytest.raises(StateMismatchError, match=r"gradient of \(1, 6, 11\) after outputs of \(2, 6, 11\)"):
        fast.kernel.step(optimizer, torch.zeros(1, 6, 11))


def test_rows_that_the_kernel_would_misread_are_refused():
    _, fast = plain_and_fast(config_of())
    with pytest.raises(StateMismatchError, match=r"must be \(B, 10\) of float32"):
        fast.kernel.outputs(torch.zeros(4, 9), slice(None))
    with pytest.raises(StateMismatchError, match="float64"):
        fast.kernel.outputs(torch.zeros(4, 10, dtype=torch.float64), slice(None))
    with pytest.raises(StateMismatchError, match="two rows or more, got 1"):
        fast.kernel.outputs(torch.zeros(1, 10), slice(None))
