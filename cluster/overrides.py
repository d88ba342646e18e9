"""A preset with the fields that the command line changes; both kinds of run take theirs from here."""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import tyro

from cluster.config import RunConfig
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
