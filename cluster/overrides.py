"""What the command line changes of a preset or of a run that exists; the same for both kinds of run."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import tyro

from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.quantum_train.config import QuantumTrainRunConfig

Config = TypeVar("Config", RunConfig, QuantumTrainRunConfig)


def override(preset: Config, arguments: Sequence[str], *, prog: str, description: str) -> Config:
    """The preset with its fields overridden.

    Args:
        preset: where the run starts from.
        arguments: of the command line, ``--field value …``.
        prog: the command, as help names it.
        description: of the preset, for help.

    Returns:
        The configuration. A goal is a return of one task: with another ``env_id`` the preset's ``stop_return`` is gone,
        and only one that ``arguments`` give holds.

    Raises:
        ValueError: for a value out of range.
        SystemExit: with code 2 for an unknown field or a value of the wrong type.
    """

    def parse(default: Config) -> Config:
        return tyro.cli(type(default), default=default, args=arguments, prog=prog, description=description)

    config = parse(preset)
    if config.env_id == preset.env_id:
        return config
    return parse(dataclasses.replace(preset, stop_return=None))


def with_total_steps(config: Config, total_steps: int | None) -> Config:
    """The configuration of a run that is to have another length; None leaves it.

    Raises:
        ConfigError: if the length is not positive.
    """
    if total_steps is None:
        return config
    try:
        return dataclasses.replace(config, total_steps=total_steps)
    except ValueError as error:
        raise ConfigError(str(error)) from error
