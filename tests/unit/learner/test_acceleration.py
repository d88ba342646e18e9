"""The fast path against the plain one on the same batches: the same losses, the same checkpoints."""

import subprocess
import sys

import numpy as np
import pytest

from learner.acceleration import accelerate
from learner.critic_config import CriticConfig
from learner.native_code import load_kernels
from learner.normed_critic_kernel import NormedCriticKernel
from learner.state import learner_state, load_learner_state
from tests.unit.learner.test_td3 import make_batch, make_learner

# What the strong presets have, small.
NORMED = {
    "architecture": "mlp",
    "num_layers": 3,
    "hidden_size": 16,
    "normalisation": "batch",
    "head": "categorical",
    "climbs": "mean",
    "unit_rows": True,
}
LOSSES = ("critic_loss", "policy_loss", "q_value", "surrogate_loss")


def fast_learner(block="pqc", **td3):
    learner = make_learner(block, **td3)
    accelerate(learner)
    if load_kernels() is None:
        pytest.skip("no C++ compiler: only the plain path exists here")
    return learner


def run(learner, updates, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(updates):
        learner.update(make_batch(rng))
        rows.append({name: value for name, value in learner.metrics().items() if name in LOSSES})
    return rows


@pytest.mark.parametrize("block", ["pqc", "linear"])
@pytest.mark.parametrize("td3", [{}, {"prioritised": True}], ids=["squared errors", "huber"])
def test_losses_are_those_of_the_plain_path(block, td3):
    plain, fast = run(make_learner(block, **td3), 20), run(fast_learner(block, **td3), 20)
    for step, (expected, found) in enumerate(zip(plain, fast, strict=True)):
        assert found.keys() == expected.keys()
        # Round-off grows: where a gradient is nearly zero, Adam steps by its sign.
        tolerance = 1e-5 if step < 10 else 1e-3
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=tolerance), (step, name)


@pytest.mark.parametrize(
    ("critic", "has_hardware", "chosen", "expected"),
    [
        (NORMED, True, "auto", "auto"),
        (NORMED, False, "auto", "float32"),
        (NORMED, False, "bfloat16", "bfloat16"),
        (NORMED | {"normalisation": "layer"}, False, "auto", "auto"),
    ],
)
def test_auto_is_not_torchs_mixed_precision_where_kernels_are_faster(
    monkeypatch, critic, has_hardware, chosen, expected
):
    monkeypatch.setattr(
        NormedCriticKernel, "has_bfloat16", property(lambda _: has_hardware, lambda *_: None), raising=False
    )
    assert fast_learner(critic=CriticConfig(**critic), precision=chosen).config.precision == expected


@pytest.mark.parametrize("has_target", [True, False])
def test_losses_of_normed_critics_are_those_of_the_plain_path(has_target):
    critic = CriticConfig(**NORMED, has_target=has_target)
    plain, fast = run(make_learner(critic=critic), 20), run(fast_learner(critic=critic), 20)
    for step, (expected, found) in enumerate(zip(plain, fast, strict=True)):
        # Statistics of small batches carry round-off farther than plain layers do.
        tolerance = 1e-4 if step < 4 else 1e-2
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=tolerance, abs=tolerance * 0.1), (step, name)


@pytest.mark.parametrize("critic", [None, CriticConfig(**NORMED)], ids=["segmented", "normed"])
def test_a_checkpoint_of_either_path_is_continued_by_the_other(critic):
    plain, fast = make_learner(critic=critic), fast_learner(critic=critic)
    run(plain, 6)
    load_learner_state(fast, *learner_state(plain))
    after_plain, after_fast = run(plain, 6, seed=1), run(fast, 6, seed=1)
    for expected, found in zip(after_plain, after_fast, strict=True):
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-4 if critic is None else 1e-2), name
    again = make_learner(critic=critic)
    load_learner_state(again, *learner_state(fast))
    assert learner_state(again)[0].keys() == learner_state(fast)[0].keys()


def test_every_kernel_is_used_where_it_can_be():
    pqc, linear = fast_learner("pqc"), fast_learner("linear")
    normed = fast_learner(critic=CriticConfig(**NORMED))
    assert pqc.surrogate.kernel is not None
    assert linear.surrogate is None
    for learner in (pqc, linear, normed):
        assert learner.critic.kernel is not None
        assert learner.target_critic.kernel is not None
        assert learner.target_critic.kernel is not learner.critic.kernel
        assert {learner.policy_step.func.__module__, learner.blend.__module__} == {"learner.step_kernel"}


def test_the_fast_path_never_loads_the_compiler_of_torch():
    """It takes 3 s of a core at the start of every run, and nothing is compiled by it."""
    work = (
        "import sys, numpy as np\n"
        "from learner.acceleration import accelerate\n"
        "from tests.unit.learner.test_td3 import make_batch, make_learner\n"
        "learner = make_learner()\n"
        "accelerate(learner)\n"
        "for step in range(4):\n"
        "    learner.update(make_batch(np.random.default_rng(step)))\n"
        "print('torch._dynamo' in sys.modules, learner.update_step)\n"
    )
    if load_kernels() is None:
        pytest.skip("no C++ compiler: plain torch loads it at the first step")
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "4"]
