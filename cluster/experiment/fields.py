"""The fields of an experiment file: their types, and overrides in the forms that a configuration and a shell take."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.errors import ConfigError

_DECIDED_BY_GRID = {"seed": "seeds", "block": "blocks", "run_dir": "directory"}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEFAULT_EPISODES = 100
_DEFAULT_FINAL_SEED = 12_345
_DEFAULT_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """An experiment file, checked field by field."""

    name: str | None
    directory: str | None
    results: str | None
    presets: tuple[str, ...]
    blocks: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: Mapping[str, Any]
    """Dotted name → value, for every run."""
    variants: Mapping[str, Mapping[str, Any]]
    """Name → overrides on top of ``overrides``; an axis of the grid."""
    baselines: tuple[str, ...]
    goals: Mapping[str, float]
    final_episodes: int
    final_seed: int
    bootstrap_resamples: int


def read_fields(plain: Any, where: str) -> Fields:
    """Check a parsed file.

    Raises:
        ConfigError: naming the field that is missing, unknown or has the wrong type.
    """
    if not isinstance(plain, dict):
        raise ConfigError(f"{where} must be a mapping with at least `presets`, got {plain!r}")
    known = (
        *("name", "directory", "results", "presets", "blocks", "seeds", "overrides", "variants", "baseline", "goals"),
        *("final_episodes", "final_seed", "bootstrap_resamples"),
    )
    unknown = sorted(str(key) for key in plain if key not in known)
    if unknown:
        raise ConfigError(f"{where} has unknown fields {unknown}; the known ones are {', '.join(known)}")
    if "presets" not in plain:
        raise ConfigError(f"{where} names no presets; expected, say, presets: [pendulum]")
    return Fields(
        name=_read_name(plain.get("name"), f"{where}: name"),
        directory=None if plain.get("directory") is None else str(plain["directory"]),
        results=None if plain.get("results") is None else str(plain["results"]),
        presets=_strings(plain["presets"], f"{where}: presets"),
        blocks=_strings(plain.get("blocks", ["pqc"]), f"{where}: blocks"),
        seeds=_seeds(plain.get("seeds", 1), f"{where}: seeds"),
        overrides=_overrides(plain.get("overrides"), f"{where}: overrides"),
        variants=_variants(plain.get("variants"), f"{where}: variants"),
        baselines=_strings(plain["baseline"], f"{where}: baseline") if plain.get("baseline") is not None else (),
        goals=_goals(plain.get("goals"), f"{where}: goals"),
        final_episodes=_whole(plain.get("final_episodes", _DEFAULT_EPISODES), 0, f"{where}: final_episodes"),
        final_seed=_whole(plain.get("final_seed", _DEFAULT_FINAL_SEED), 0, f"{where}: final_seed"),
        bootstrap_resamples=_whole(
            plain.get("bootstrap_resamples", _DEFAULT_RESAMPLES), 100, f"{where}: bootstrap_resamples"
        ),
    )


def flags_of(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Overrides as arguments of ``hdqnn train``, which reads ``None``, numbers and names as a configuration does."""

    def flags() -> Iterator[str]:
        for dotted, value in values.items():
            flag = dotted.replace("_", "-")
            if isinstance(value, bool):
                *parents, last = flag.split(".")
                yield "--" + ".".join([*parents, last if value else f"no-{last}"])
                continue
            yield f"--{flag}"
            yield from map(str, value) if isinstance(value, list | tuple) else [str(value)]

    return tuple(flags())


def _read_name(value: Any, where: str) -> str | None:
    if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
        raise ConfigError(f"{where} must be letters, digits, dots, dashes and underscores, got {value!r}")
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(item, str) for item in values):
        raise ConfigError(f"{where} must be a name or a list of names, got {value!r}")
    return tuple(values)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    """A number n means the seeds 1 to n."""
    if isinstance(value, list) and value:
        return tuple(_whole(item, 0, where) for item in value)
    return tuple(range(1, _whole(value, 1, where) + 1))


def _whole(value: Any, lowest: int, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
        raise ConfigError(f"{where} must be a whole number of at least {lowest}, got {value!r}")
    return value


def _goals(value: Any, where: str) -> dict[str, float]:
    return {name: float(number) for name, number in _mapping(value, where, _is_number).items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _variants(value: Any, where: str) -> dict[str, dict[str, Any]]:
    variants = _mapping(value, where, lambda item: item is None or isinstance(item, dict))
    for name in variants:
        _read_name(name, f"{where}: the name of a variant")
    return {name: _overrides(item, f"{where}.{name}") for name, item in variants.items()}


def _overrides(value: Any, where: str) -> dict[str, Any]:
    flat = dict(_flatten(_mapping(value, where, lambda _: True)))
    decided = [f"{name} (use {_DECIDED_BY_GRID[name]})" for name in flat if name in _DECIDED_BY_GRID]
    if decided:
        raise ConfigError(f"{where} must leave {', '.join(decided)} to the grid")
    return flat


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as a string; nobody who writes it means one."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
            return int(number) if number.is_integer() else number
    return value


def _mapping(value: Any, where: str, is_valid: Callable[[Any], bool]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) and is_valid(item) for name, item in value.items()):
        raise ConfigError(f"{where} must be a mapping from names to values, got {value!r}")
    return value
