"""Triton's kernels run on the CPU where there is no GPU, by Triton's own interpreter; it is asked for at import."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
pytest.importorskip("triton", reason="triton comes with torch for GPUs")


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"
