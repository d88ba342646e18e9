"""bfloat16 only where the device has it, and never for the values themselves."""

import pytest
import torch

from learner import precision
from learner.config import AgentSpec
from learner.critic_config import CriticConfig
from learner.critics import make_critic


@pytest.mark.parametrize(
    ("chosen", "device", "flags", "expected"),
    [
        ("float32", "cuda", {"amx_bf16"}, torch.float32),
        ("bfloat16", "cpu", set(), torch.bfloat16),
        ("auto", "cuda", set(), torch.bfloat16),
        ("auto", "cpu", {"avx2", "amx_bf16"}, torch.bfloat16),
        ("auto", "cpu", {"avx512f", "avx512_bf16"}, torch.float32),
        ("auto", "cpu", {"avx2", "fma"}, torch.float32),
        ("auto", "mps", {"amx_bf16"}, torch.float32),
    ],
)
def test_auto_takes_bfloat16_where_hardware_multiplies_it(monkeypatch, chosen, device, flags, expected):
    monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags))
    assert precision.precision_dtype(chosen, torch.device(device)) is expected


def test_flags_are_those_of_the_first_processor(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert precision._cpu_flags(path) == {"fpu", "avx2", "amx_bf16"}
    assert precision._cpu_flags(tmp_path / "missing") == frozenset()


@pytest.mark.parametrize("architecture", ["segmented", "mlp"])
def test_values_of_hundreds_keep_their_decimals_under_mixed_precision(architecture):
    torch.manual_seed(0)
    spec = AgentSpec(observation_size=5, action_low=(-1.0,), action_high=(1.0,))
    critic = make_critic(spec, CriticConfig(architecture=architecture, hidden_size=32))
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if parameter.numel() == 2 or (parameter.numel() == 1 and name.endswith("bias")):
                parameter.fill_(-700.0)
    observation, action = torch.randn(64, 5), torch.rand(64, 1)
    expected = critic(observation, action).detach()
    assert -705 < float(expected.min()) < float(expected.max()) < -695
    with torch.autocast("cpu", torch.bfloat16):
        values, first = critic(observation, action), critic.first(observation, action)
    for computed, exact in ((values, expected), (first, expected[0])):
        # Features are of bfloat16, 0.4 % off; a value in bfloat16 would be a multiple of 4.
        torch.testing.assert_close(computed.reshape(exact.shape), exact, atol=0.01, rtol=0)
