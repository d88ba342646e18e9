"""A trained policy as one file that can be sent, published and evaluated without its run.

safetensors: the acting weights and observation statistics, and in the header the run's configuration as JSON. Reading
one executes nothing and trusts nothing: what the header says is checked as any configuration is.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from cluster.checkpoint import Checkpoint
from cluster.config import RunConfig, from_dict, to_dict
from cluster.errors import ConfigError
from learner.parameters import VersionedParameters

_FORMAT = "hdqnn-policy-1"
_PREFIX = "policy."


def write_policy(path: Path, config: RunConfig, parameters: VersionedParameters) -> None:
    """Write a policy; a reader sees the whole file or none.

    Args:
        path: of the file; its directory is made.
        config: of the run; ``run_dir`` stays behind.
        parameters: acting parameters, by name, and when they were reached.

    Raises:
        OSError: if it cannot be written.
    """
    header = {
        "format": _FORMAT,
        "config": json.dumps(to_dict(dataclasses.replace(config, run_dir=None))),
        "env_step": str(parameters.env_step),
        "update_step": str(parameters.update_step),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    try:
        save_file({name: np.asarray(array, order="C") for name, array in parameters.arrays.items()}, temporary, header)
        temporary.replace(path)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_policy(path: Path) -> tuple[RunConfig, VersionedParameters]:
    """The configuration and the parameters that ``write_policy`` wrote.

    Raises:
        ConfigError: if the file cannot be read, is no policy, or its configuration is not valid.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"cannot read the policy {path}: {error}; `hdqnn export RUN {path}` writes one") from error
    if header.get("format") != _FORMAT:
        raise ConfigError(
            f"{path} is no policy of hdqnn-rl: its header has format {header.get('format')!r}, expected {_FORMAT!r}; "
            "`hdqnn export RUN FILE` writes one"
        )
    try:
        config = from_dict(json.loads(header["config"]))
        steps = {name: int(header[name]) for name in ("env_step", "update_step")}
    except (KeyError, ValueError) as error:
        raise ConfigError(f"the header of {path} is damaged ({error}); export the policy again") from error
    return config, VersionedParameters(version=1, arrays=arrays, **steps)


def acting_parameters(checkpoint: Checkpoint) -> VersionedParameters:
    """What acts of a checkpoint's learner: its newest policy."""
    tensors = checkpoint.tensors["learner"]
    return VersionedParameters(
        version=1,
        arrays={n.removeprefix(_PREFIX): tensor.numpy() for n, tensor in tensors.items() if n.startswith(_PREFIX)},
        env_step=int(checkpoint.scalars["env_step"]),
        update_step=int(checkpoint.scalars["learner"]["update_step"]),
    )
