"""What the documents name must be there: files that they link, functions and fields that they cite, commands."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from cluster.command_train import parse_config
from cluster.config import RunConfig
from cluster.presets import PRESETS
from cluster.quantum_train import command as quantum_train
from cluster.quantum_train.presets import PRESETS as QUANTUM_TRAIN_PRESETS

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "*/README.md")
    for path in ROOT.glob(pattern)
    if ".venv" not in path.parts
)
SOURCES = [
    path
    for package in ("actors", "cluster", "learner", "qpu_service", "replay")
    for path in (ROOT / package).rglob("*.py")
]


def test_documents_are_found():
    assert {"README.md", "CHANGELOG.md", "paper-to-code.md", "strong.md"} <= {path.name for path in DOCUMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    inner = [link for link in links if "://" not in link]
    assert [link for link in inner if not (path.parent / link).exists()] == []


def cells(text):
    """Backticked words of the second and third column of every table row."""
    rows = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("|")]
    return [word for row in rows for cell in row for word in re.findall(r"`([^`]+)`", cell)]


def definitions():
    names = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
    return names


def has_field(dotted):
    config = RunConfig()
    for name in dotted.split("."):
        if not hasattr(config, name):
            return False
        config = getattr(config, name)
    return True


def missing(words):
    """Those that name no file, no test and nothing that the source defines."""
    known, tests = definitions(), {path.name for path in (ROOT / "tests").rglob("*.py")}

    def exists(word):
        if "/" in word:
            return (ROOT / word).exists()
        return word in tests if word.endswith(".py") else all(part in known for part in word.split("."))

    return [word for word in words if not exists(word.removeprefix("losses."))]


def test_the_papers_lines_lead_to_code_and_tests():
    table_1, table_2 = (ROOT / "docs" / "paper-to-code.md").read_text().split("## Table 2")
    assert missing(cells(table_1)) == []
    fields = [word for word in cells(table_2) if re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z][a-z0-9_]*)+", word)]
    assert {"critic.hidden_size", "td3.polyak_coefficient"} <= set(fields)
    assert [field for field in fields if not has_field(field)] == []


def test_the_search_finds_what_is_gone():
    row = "| (A) 1 | `learner/gone.py`, `TD3Learner._gone`, `TD3Learner.update` | `test_gone.py` |"
    assert missing(cells(row)) == ["learner/gone.py", "TD3Learner._gone", "test_gone.py"]


def train_commands():
    """Arguments of every ``hdqnn train`` in a code block, and of every ``make train``."""
    for path in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                for place, word in enumerate(words):
                    if word.endswith("hdqnn") and words[place + 1 : place + 2] == ["train"]:
                        yield path, words[place + 2 :]
                    elif word == "make" and words[place + 1 : place + 2] == ["train"]:
                        values = dict(part.split("=", 1) for part in words[place + 2 :] if "=" in part)
                        yield path, [values.get("PRESET", "pendulum"), *shlex.split(values.get("ARGS", ""))]


COMMANDS = [pytest.param(arguments, id=f"{path.stem}: {' '.join(arguments)}") for path, arguments in train_commands()]


def test_commands_are_found():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("arguments", COMMANDS)
def test_commands_are_understood(arguments):
    words = [word for word in arguments if word not in ("&&", "…")]
    if "--help" in words:
        return
    preset = words.pop(0) if words and not words[0].startswith("-") else "pendulum"
    assert preset in {*PRESETS, *QUANTUM_TRAIN_PRESETS}
    if preset in PRESETS:
        parse_config(preset, words)
    else:
        quantum_train.parse(preset, words)
