"""``hdqnn train``: a new run from a preset and overrides."""

import dataclasses
import sys

from cluster.config import RunConfig
from cluster.errors import EXIT_DONE
from cluster.overrides import override
from cluster.preflight import check
from cluster.presets import DESCRIPTIONS, PRESETS, get_preset
from cluster.quantum_train.presets import DESCRIPTIONS as QUANTUM_TRAIN_DESCRIPTIONS
from cluster.quantum_train.presets import PRESETS as QUANTUM_TRAIN_PRESETS
from cluster.run_directory import create_run_directory, lock_run
from learner.config import BLOCKS, uses_circuit
from qpu_service.backends.registry import backend_name_from_environment

_DEFAULT_PRESET = "pendulum"


def run(arguments: list[str]) -> int:
    """Parse, check everything that can be checked before anything is written, train."""
    preset, overrides = _split(arguments)
    if overrides in (["-h"], ["--help"]) and preset is None:
        sys.stdout.write(_teach())
        return EXIT_DONE
    preset = preset or _DEFAULT_PRESET
    if preset in QUANTUM_TRAIN_PRESETS:
        from cluster.quantum_train.command import train

        return train(preset, overrides)
    config = parse_config(preset, overrides)
    check(config)
    # Only now, because torch takes seconds to load: help and mistakes need none of it.
    from cluster.run_loop import run_training

    run_directory = create_run_directory(config, preset)
    with lock_run(run_directory):
        return run_training(config, run_directory, None)


def parse_config(preset: str, overrides: list[str]) -> RunConfig:
    """The preset with command-line overrides, and the backend resolved.

    Raises:
        ConfigError: for an unknown preset.
        ValueError: for a value out of range.
        SystemExit: with code 2 for an unknown field or a value of the wrong type.
    """
    default = get_preset(preset, others=tuple(QUANTUM_TRAIN_PRESETS))
    description = f"{DESCRIPTIONS[preset]}. Every field of the preset can be overridden:"
    return resolve_backend(override(default, overrides, prog=f"hdqnn train {preset}", description=description))


def resolve_backend(config: RunConfig) -> RunConfig:
    """Fill in the backend: the flag, else QPU_BACKEND, else statevector; none where no circuit runs."""
    if not uses_circuit(config.block):
        return dataclasses.replace(config, backend=None)
    return dataclasses.replace(config, backend=config.backend or backend_name_from_environment())


def _split(arguments: list[str]) -> tuple[str | None, list[str]]:
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    return None, arguments


def _teach() -> str:
    presets = "\n".join(f"  {name:18s} {DESCRIPTIONS[name]}" for name in PRESETS)
    generated = "\n".join(f"  {name:20s} {text}" for name, text in QUANTUM_TRAIN_DESCRIPTIONS.items())
    blocks = "\n".join(f"  {name:15s} {text}" for name, text in BLOCKS.items())
    return f"""\
usage: hdqnn train [preset] [--field value …]

Trains a policy: PreDNN → block T → PostDNN with TD3, the circuit's gradient taken through a surrogate.
Starts what it needs (Ray, a Redis-compatible server, QPU workers, actors) and stops it at the end.

presets (default: {_DEFAULT_PRESET}); `hdqnn train PRESET --help` lists every field with its value and source:
{presets}

presets of policies whose weights a circuit generates (--agents K, --depth L; docs/dist-qtrl.md):
{generated}

blocks (--block):
{blocks}

often used:
  --env-id ID            any Gymnasium task with a flat Box of observations and bounded continuous actions, with
                         --total-steps; module:Id-v0 imports a module of yours first, from here or installed
  --seed N               every random stream of the run derives from it
  --total-steps N        environment steps of the whole run
  --backend NAME         statevector, aer, … (or QPU_BACKEND in the environment)
  --run-dir DIR          where the run is kept (default: runs/<preset>-<time>-s<seed>)
  --synchronous          one process in lockstep, without Ray and Redis, bit-reproducible
  --actors.num-actors N  actor processes; scales across the nodes of a Ray cluster

environment: QPU_BACKEND, QPU_DEVICE choose the QPU; REDIS_URL servers of your own (URL,URL); RAY_ADDRESS a cluster.
Ctrl-C saves a checkpoint and says how to go on.
"""
