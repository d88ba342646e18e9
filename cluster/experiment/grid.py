"""An experiment file → the list of its runs: presets × variants × blocks × seeds.

Every mistake in the file must show here, before the first run starts: each run's configuration is built and checked.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from cluster.config import RunConfig, from_dict, to_dict
from cluster.errors import ConfigError
from cluster.experiment.document import read_document
from cluster.experiment.fields import Fields, flags_of, read_fields
from cluster.presets import get_preset

_DEFAULT_VARIANT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run of the grid."""

    name: str
    """Directory of the run inside the experiment's."""
    preset: str
    block: str
    variant: str
    seed: int
    group: str
    """Runs of an environment that differ in their seed alone share it."""
    config: RunConfig
    """What the run is; ``run_dir`` and ``backend`` are left to the run itself."""
    flags: tuple[str, ...]
    """Arguments of ``hdqnn train PRESET`` that give this configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A grid of runs and how they are judged."""

    name: str
    directory: Path
    """Holds a directory per run, their logs and the report."""
    results: Path | None
    """Holds a small file per finished run, for good; None for none."""
    runs: tuple[PlannedRun, ...]
    """Seed by seed, so that what is done at any time is balanced over the groups."""
    baselines: tuple[str, ...]
    """At most one group of each environment; every other group is compared with it."""
    goals: Mapping[str, float]
    """Environment id → return that counts as solved."""
    final_episodes: int
    """Test episodes of each finished run's last policy; 0 takes its last test round."""
    final_seed: int
    """Of those episodes: every run has the same start states."""
    bootstrap_resamples: int
    """Resamples of every interval."""

    def environments(self) -> dict[str, list[str]]:
        """Groups of each environment, in the order of the file."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            groups = found.setdefault(run.config.env_id, [])
            if run.group not in groups:
                groups.append(run.group)
        return found


def read_experiment(path: Path, directory: Path | None = None) -> Experiment:
    """Read an experiment file and build the configuration of every run.

    Args:
        path: YAML; docs/experiments.md lists its fields.
        directory: where the experiment is kept, instead of the file's ``directory``.

    Raises:
        ConfigError: naming the field that is missing, unknown or wrong.
    """
    fields = read_fields(read_document(path), str(path))
    name = fields.name or path.stem
    experiment = Experiment(
        name=name,
        directory=directory or Path(fields.directory or Path("runs") / name),
        # Beside the file and not the working directory: results travel with the file.
        results=None if fields.results is None else path.parent / fields.results,
        runs=tuple(_runs(fields, str(path))),
        baselines=fields.baselines,
        goals=fields.goals,
        final_episodes=fields.final_episodes,
        final_seed=fields.final_seed,
        bootstrap_resamples=fields.bootstrap_resamples,
    )
    _check_names(experiment, str(path))
    return experiment


def _runs(fields: Fields, where: str) -> Iterator[PlannedRun]:
    variants = fields.variants or {_DEFAULT_VARIANT: {}}
    env_ids = {
        (preset, variant): _config(preset, {**fields.overrides, **overrides}, f"{where}, preset {preset}").env_id
        for preset in fields.presets
        for variant, overrides in variants.items()
    }
    for seed, preset, variant, block in product(fields.seeds, fields.presets, variants, fields.blocks):
        values = {**fields.overrides, **variants[variant], "block": block, "seed": seed}
        config = _config(preset, values, f"{where}, preset {preset}, block {block}, variant {variant}")
        beside = {other for (other, _), env_id in env_ids.items() if env_id == config.env_id}
        suffix = [variant] if len(variants) > 1 else []
        yield PlannedRun(
            name="-".join([preset, *suffix, block, f"s{seed}"]),
            preset=preset,
            block=block,
            variant=variant,
            seed=seed,
            group=" ".join([*([preset] if len(beside) > 1 else []), block, *suffix]),
            config=config,
            flags=flags_of(values),
        )


def _config(preset: str, values: Mapping[str, Any], where: str) -> RunConfig:
    """The preset with dotted field names replaced.

    Raises:
        ConfigError: naming the field.
    """
    plain = to_dict(get_preset(preset))
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        inside = plain
        for parent in parents:
            inside = inside.setdefault(parent, {})
            if not isinstance(inside, dict):
                raise ConfigError(f"{where}: {dotted} cannot be set, {parent} is no group of fields")
        inside[last] = value
    try:
        return dataclasses.replace(from_dict(plain), run_dir=None)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_names(experiment: Experiment, where: str) -> None:
    names = [run.name for run in experiment.runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{where}: runs {twice} are in the grid twice; expected every seed, preset and block once")
    environments = experiment.environments()
    unknown = [name for name in experiment.goals if name not in environments]
    if unknown:
        raise ConfigError(f"{where}: goals has {unknown}; expected environments of the grid: {sorted(environments)}")
    if experiment.baselines:
        for env_id, groups in environments.items():
            _check_baseline(experiment.baselines, env_id, groups, where)


def _check_baseline(baselines: Sequence[str], env_id: str, groups: Sequence[str], where: str) -> None:
    matching = [group for group in groups if group in baselines]
    if len(matching) != 1:
        raise ConfigError(
            f"{where}: baseline {list(baselines)} names {len(matching)} groups of {env_id}, expected exactly one of "
            f"{list(groups)}"
        )
