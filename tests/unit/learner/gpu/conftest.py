"""Triton's kernels run on the CPU where there is no GPU, by Triton's own interpreter; it is asked for at import.

Triton comes with torch for GPUs, and for these tests with the extra ``dev`` on Linux; elsewhere they are left out.
"""

import os
from importlib.util import find_spec

import pytest
import torch

if not torch.cuda.is_available():
    # Triton reads it when a function is declared, of its own library too.
    os.environ["TRITON_INTERPRET"] = "1"
collect_ignore_glob = [] if find_spec("triton") else ["test_*.py"]


@pytest.fixture
def device():
    return "cuda" if torch.cuda.is_available() else "cpu"
