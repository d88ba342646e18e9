"""What the whole source must keep: size of files, documentation, no unsafe loading, light start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("cluster", "actors", "learner", "replay", "qpu_service", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def trees():
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in SOURCES]


def test_sources_are_found():
    assert len(SOURCES) > 80


@pytest.mark.parametrize("path", [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: str(p.name))
def test_no_file_over_300_lines(path):
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", trees())
def test_nothing_unpickles(path):
    assert unsafe_loads(path.read_text()) == []


def unsafe_loads(source):
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            keywords = {word.arg: word.value for word in node.keywords}
            name = ast.unparse(node.func)
            if name == "torch.load" and not is_constant(keywords.get("weights_only"), True):
                found.append(ast.unparse(node))
            if is_constant(keywords.get("allow_pickle"), True):
                found.append(ast.unparse(node))
            if name == "yaml.load":
                found.append(ast.unparse(node))
    return found


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import dumps",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(source):
    assert len(unsafe_loads(source)) == 1


@pytest.mark.parametrize("path", trees())
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "module"
    assert undocumented(tree) == []


def undocumented(tree):
    missing = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                missing.append(node.name)
            if isinstance(node, ast.ClassDef):
                missing += [
                    f"{node.name}.{inner.name}"
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not inner.name.startswith("_")
                    and not ast.get_docstring(inner)
                ]
    return missing


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "config.py"], ids=str)
def test_every_field_of_a_configuration_says_what_it_is(path):
    for node in ast.parse(path.read_text()).body:
        if not (isinstance(node, ast.ClassDef) and node.name.endswith("Config")):
            continue
        for field, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert documented, f"{node.name}.{ast.unparse(field.target)}"


@pytest.mark.parametrize("arguments", [["--help"], ["nonsense"]])
def test_the_command_line_starts_light(arguments):
    code = (
        "import sys\n"
        "from cluster.__main__ import run\n"
        f"run({arguments!r})\n"
        "heavy = {'torch', 'ray', 'qiskit', 'numba', 'gymnasium', 'redis'} & set(sys.modules)\n"
        "sys.exit(f'imports {sorted(heavy)}' if heavy else 0)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
