"""bfloat16 only where the device has it."""

import pytest
import torch

from learner import precision


@pytest.mark.parametrize(
    ("chosen", "device", "flags", "expected"),
    [
        ("float32", "cuda", {"amx_bf16"}, torch.float32),
        ("bfloat16", "cpu", set(), torch.bfloat16),
        ("auto", "cuda", set(), torch.bfloat16),
        ("auto", "cpu", {"avx2", "amx_bf16"}, torch.bfloat16),
        ("auto", "cpu", {"avx512f", "avx512_bf16"}, torch.bfloat16),
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
