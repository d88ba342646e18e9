"""Configuration of a run: the packages' own settings put together, read from and written to YAML.

Secrets are never fields: tokens and passwords come from the environment alone.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from actors.config import ActorConfig, EvaluationConfig
from cluster.errors import ConfigError
from learner.config import BlockName, PolicyConfig, SurrogateConfig, TD3Config
from learner.critic_config import CriticConfig
from qpu_service.config import QPUConfig
from replay.config import ReplayConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """What is saved while training."""

    period_s: float = 120.0
    """Seconds between checkpoints (one more is written at the end and on Ctrl-C)."""
    period_steps: int | None = None
    """Environment steps between checkpoints, instead of ``period_s``; for exact reproduction."""
    keep: int = 3
    """Newest checkpoints that are kept."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.period_s <= 0 or self.keep < 1 or (self.period_steps is not None and self.period_steps < 1):
            raise ValueError(f"period_s and period_steps must be positive and keep at least 1, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that decides a training run."""

    env_id: str = "Pendulum-v1"
    """Gymnasium id of the environment; module:Id-v0 imports a module of yours first."""
    block: BlockName = "pqc"
    """Block T between PreDNN and PostDNN; `hdqnn train --help` lists them."""
    backend: str | None = None
    """QPU backend; default: QPU_BACKEND from the environment, else statevector."""
    total_steps: int = 20_000
    """Environment steps of the whole run, over all actors."""
    stop_return: float | None = None
    """Stop once two test rounds in a row reach this mean return; a preset's holds for its own env_id alone."""
    seed: int = 1
    """Every other seed derives from it."""
    run_dir: Path | None = None
    """Where the run is kept; default: runs/<preset>-<time>-s<seed>. It must not exist yet."""
    synchronous: bool = False
    """One process in lockstep, bit-reproducible, without Ray and Redis."""
    device: str = "auto"
    """Torch device of the learner: auto, cpu, cuda, cuda:1, …"""
    compile: bool = True
    """Take the fastest path for that device: compiled kernels on a CPU. Off is plain torch, the same to round-off."""
    num_threads: int | None = None
    """Torch threads of the learner; default: every core but one, which actors and services need; one with a GPU."""
    publish_period_updates: int = 8
    """Updates between two published versions of the policy parameters."""
    log_period_steps: int = 500
    """Environment steps between two rows of metrics.jsonl."""
    prometheus_port: int | None = None
    """Serve the newest row of metrics to Prometheus on this port of 127.0.0.1; 0 takes a free one."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """Policy network."""
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)
    """Quantum surrogate (paper: qtDNN)."""
    td3: TD3Config = field(default_factory=TD3Config)
    """Learning rule."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    """Critics."""
    actors: ActorConfig = field(default_factory=ActorConfig)
    """Rollouts."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Test rounds."""
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    """Replay."""
    qpu: QPUConfig = field(default_factory=QPUConfig)
    """QPU service."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""

    @property
    def has_schedules(self) -> bool:
        """Whether something changes with the share of the run that is over: a longer run is then another one."""
        return self.td3.final_learning_rate_share < 1 or self.critic.final_asymmetry is not None

    def __post_init__(self) -> None:
        """Check ranges across fields."""
        for name, value in _numbers(self):
            if not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, got {value}")
        for name in ("total_steps", "publish_period_updates", "log_period_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must be 0 or more, got {self.seed}")
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {self.num_threads}")
        if self.replay.capacity < self.td3.learning_starts:
            raise ValueError(
                f"replay.capacity ({self.replay.capacity}) is below td3.learning_starts "
                f"({self.td3.learning_starts}): learning could never start; raise the one or lower the other"
            )
        if self.replay.capacity < self.actors.segment_length:
            raise ValueError(
                f"replay.capacity ({self.replay.capacity}) is below actors.segment_length "
                f"({self.actors.segment_length}): a whole segment would not fit; raise the one or lower the other"
            )


def _numbers(config: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a configuration and of what is nested in it, with its dotted name."""
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{prefix}{one.name}.")
        elif isinstance(value, float):
            yield f"{prefix}{one.name}", value


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Plain, JSON-able form of a configuration; tuples are lists, as they come back from a file."""
    plain: dict[str, Any] = _without_tuples(dataclasses.asdict(config))
    plain["run_dir"] = None if config.run_dir is None else str(config.run_dir)
    return plain


def _without_tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_tuples(item) for name, item in value.items()}
    return [_without_tuples(item) for item in value] if isinstance(value, list | tuple) else value


def write_config(config: RunConfig, path: Path) -> None:
    """Write the resolved configuration as YAML."""
    write_yaml(to_dict(config), path)


def write_yaml(plain: Mapping[str, Any], path: Path) -> None:
    """Write a configuration's plain form; a reader sees the whole file or what was there before."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(yaml.safe_dump(dict(plain), sort_keys=False))
    temporary.replace(path)


def read_config(path: Path) -> RunConfig:
    """Read a configuration that ``write_config`` wrote.

    Raises:
        ConfigError: if the file is missing, is not YAML, or has unknown fields or values of the wrong type.
    """
    try:
        plain = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"cannot read the run's configuration {path}: {reason}; bring back what it was") from error
    return from_dict(plain)


def from_dict(plain: Any) -> RunConfig:
    """Build a configuration from its plain form.

    Raises:
        ConfigError: naming the field that is unknown or has the wrong type.
    """
    config: RunConfig = build(RunConfig, plain, "config")
    return config


def build(kind: Any, value: Any, where: str) -> Any:
    """An object of a configuration's type from its plain form.

    Raises:
        ConfigError: naming what is unknown or has the wrong type.
    """
    if not dataclasses.is_dataclass(kind):
        return _convert(kind, value, where)
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a mapping, got {value!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(value.keys() - hints.keys())
    if unknown:
        raise ConfigError(f"{where} has unknown fields {unknown}; the known ones are {sorted(hints)}")
    make: Any = kind
    try:
        return make(**{name: build(hints[name], item, f"{where}.{name}") for name, item in value.items()})
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        choices = typing.get_args(kind)
        if value is None and type(None) in choices:
            return None
        kind = next(choice for choice in choices if choice is not type(None))
        origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, got {value!r}")
        item = typing.get_args(kind)[0]
        return tuple(_convert(item, one, f"{where}[{index}]") for index, one in enumerate(value))
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise ConfigError(f"{where} must be one of {list(typing.get_args(kind))}, got {value!r}")
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{where} must be {kind.__name__}, got {value!r}")
    return value
