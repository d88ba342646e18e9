"""How kernels are compiled, and a cache on disk that cannot go stale.

Numba's cache looks only at the file of the function that is cached. A kernel that calls another file's would go on
running the old code of it, so entry points are cached under a digest of all kernel files, and nothing else is cached.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

_KERNEL_FILES = (
    "adjoint",
    "exact",
    "jit",
    "lanes",
    "maps",
    "multiplexed",
    "overlap",
    "program",
    "register",
    "rotations",
    "sampling",
    "team",
    "wide",
)
_OPTIONS = {"nogil": True, "error_model": "numpy"}


def kernel(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of a function that only other kernels call; compiled into them."""
    decorator: Callable[[Callable[..., Any]], Any] = numba.njit(**_OPTIONS, **options)
    return decorator


def entry_kernel(function: Callable[..., Any]) -> Any:
    """Decorator of a function that Python calls: its machine code is kept on disk until any kernel file changes."""
    given = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(Path(given or Path(__file__).parent / "__pycache__") / f"kernels-{_digest()}")
    try:
        # where this folder can't be written, Numba goes on to its own places
        return numba.njit(**_OPTIONS, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = given


def is_on_disk(entry: Any) -> bool:
    """Whether there is machine code of an entry kernel where Numba keeps it."""
    return any(Path(entry.stats.cache_path).glob(f"*.{entry.py_func.__name__}-*.nbi"))


def _digest() -> str:
    """Of all kernels' sources, and so of everything that can end up in the machine code."""
    sources = hashlib.sha256()
    for name in _KERNEL_FILES:
        sources.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return sources.hexdigest()[:16]
