"""Compiles learner/kernels for the processor at hand and loads the result; says why where that is not possible.

The kernels are an addition: without a C++ compiler everything runs, slower, in plain torch. Compiling takes a few
seconds once per machine; the library is kept in ``$XDG_CACHE_HOME/hdqnn-rl`` (default ``~/.cache/hdqnn-rl``) under a
digest of sources, flags, compiler and processor, so that a home directory shared by several machines is no trap.
"""

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_SOURCES = Path(__file__).with_name("kernels")
_FLAGS = ("-O3", "-march=native", "-mprefer-vector-width=512", "-fno-math-errno", "-std=c++17", "-fopenmp")
_COMPILE_TIMEOUT_S = 120.0


@cache
def load_kernels() -> ctypes.CDLL | None:
    """The library of kernels, compiled if this machine has not done so yet; None, with one log line, if it can't be."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        logger.warning(
            "no C++ compiler (looked for $CXX, g++): updates run in plain torch, about half as fast. "
            "Install g++ for the fast path, or use --no-compile to silence this"
        )
        return None
    try:
        path = _cache_directory() / f"kernels-{_digest(compiler)}.so"
        if not path.exists():
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        logger.warning("updates run in plain torch, about half as fast: %s failed: %s", compiler, detail)
        return None


def _compile(compiler: str, path: Path) -> None:
    """Into a temporary file first: several processes may start at once, and a half-written library must not be seen."""
    with tempfile.TemporaryDirectory(dir=path.parent) as directory:
        library = Path(directory) / path.name
        command = [compiler, *_FLAGS, "-shared", "-fPIC", *map(str, sorted(_SOURCES.glob("*.cpp"))), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S)
        library.replace(path)
    logger.info("compiled the learner's kernels into %s", path)


def _cache_directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    directory = Path(root) / "hdqnn-rl"
    # Only the owner may write what is loaded into the process.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _digest(compiler: str) -> str:
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=_COMPILE_TIMEOUT_S)
    digest = hashlib.sha256(" ".join([compiler, *_FLAGS]).encode() + version.stdout + _processor())
    for source in sorted(_SOURCES.iterdir()):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:20]


def _processor() -> bytes:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return b""
    return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}))
