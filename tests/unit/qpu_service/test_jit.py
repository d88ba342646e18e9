"""The kernels' cache on disk."""

import re
from pathlib import Path

import numba
import pytest

from qpu_service.backends import jit


def test_every_kernel_file_is_in_the_digest() -> None:
    # A file left out would leave its old machine code running after a change.
    folder = Path(jit.__file__).parent
    marks = re.compile(r"^@(kernel|entry_kernel|intrinsic)", re.MULTILINE)
    users = {path.stem for path in folder.glob("*.py") if marks.search(path.read_text())}
    assert users | {"jit"} == set(jit._KERNEL_FILES)


def test_a_changed_kernel_file_changes_the_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path(jit.__file__).parent
    for name in jit._KERNEL_FILES:
        (tmp_path / f"{name}.py").write_bytes((folder / f"{name}.py").read_bytes())
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    before = jit._digest()
    with (tmp_path / "register.py").open("a") as source:
        source.write("# changed")
    assert jit._digest() != before


def _tripled(number):  # type: ignore[no-untyped-def]
    return 3 * number


def _doubled(number):  # type: ignore[no-untyped-def]
    return 2 * number


def test_machine_code_is_missed_until_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert jit.entry_kernel(_tripled)(3) == 9
    doubled = jit.entry_kernel(_doubled)
    assert not jit.is_on_disk(doubled)
    assert doubled(3) == 6
    assert jit.is_on_disk(doubled)
    assert jit.is_on_disk(jit.entry_kernel(_doubled)), "another process finds it"
    monkeypatch.setattr(jit, "_digest", lambda: "0123456789abcdef")
    assert not jit.is_on_disk(jit.entry_kernel(_doubled)), "machine code of other sources counts for nothing"
