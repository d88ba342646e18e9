"""Results of finished runs as one small file each: a grid can be made in pieces, on several machines, over days.

Such a file says all that the report needs, and how it came about; it can be committed, copied and merged. It must
never stand for a run of another configuration.
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster.errors import ConfigError

_DECIMALS = 3
"""Of a return: below what any of its uses can tell apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptResult:
    """What a finished run reached."""

    config: Mapping[str, Any]
    """Dotted field → value, of the run as it was made."""
    final_seed: int
    """Of the final test episodes."""
    final_returns: tuple[float, ...]
    """Of the final test episodes; empty where none were run."""
    rounds: Sequence[Mapping[str, Any]]
    """Every test round: env_step, update_step, mean_return, returns."""


def write_kept(result: KeptResult, path: Path) -> None:
    """Write a result; a reader sees the whole file or none."""
    content = {
        "config": dict(result.config),
        "made": _circumstances(),
        "final_seed": result.final_seed,
        "final_returns": _rounded(result.final_returns),
        "rounds": [
            {
                "env_step": row["env_step"],
                "update_step": row["update_step"],
                "mean_return": round(row["mean_return"], _DECIMALS),
                "returns": _rounded(row["returns"]),
            }
            for row in result.rounds
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(_lines(content)))
    temporary.replace(path)


def read_kept(path: Path) -> KeptResult | None:
    """Read a result; None where there is none.

    Raises:
        ConfigError: if the file is not one.
    """
    try:
        content = json.loads(path.read_text())
        return KeptResult(
            config=dict(content["config"]),
            final_seed=int(content["final_seed"]),
            final_returns=tuple(map(float, content["final_returns"])),
            rounds=tuple(dict(row) for row in content["rounds"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot read the result {path}: {error!r}; remove it to have its run made again, or bring back the file "
            "that `hdqnn experiment` wrote"
        ) from error


def _lines(content: Mapping[str, Any]) -> Iterator[str]:
    """JSON with a line per entry and per test round: differences stay readable, files small."""
    yield "{\n"
    for name, value in content.items():
        end = "\n" if name == "rounds" else ",\n"
        if name == "rounds":
            rows = ",\n  ".join(json.dumps(row) for row in value)
            yield f' "{name}": [\n  {rows}\n ]{end}'
        else:
            yield f' "{name}": {json.dumps(value)}{end}'
    yield "}\n"


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), _DECIMALS) for value in values]


def _circumstances() -> dict[str, Any]:
    """Code and machine, for whoever wonders about a number later."""
    try:
        package = version("hdqnn-rl")
    except PackageNotFoundError:
        package = None
    return {
        "version": package,
        "commit": _commit(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": _gpu(),
        "torch": version("torch"),
        "python": platform.python_version(),
    }


def _commit() -> str | None:
    """Of the code that runs, where it is a git checkout."""
    return _said_by("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7")


def _gpu() -> str | None:
    """The first one of the machine; a run takes it unless it was told another device."""
    names = _said_by("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return names.splitlines()[0] if names else None


def _said_by(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
