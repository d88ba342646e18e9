"""Claim: on a GPU an update is one graph launch, and the whole learner runs at the speed of its kernels.

Plain torch against the accelerated path of the same device (CUDA graphs on a GPU, compiled kernels on a CPU), for the
paper's learner, for its classical twin and for the strong one. Rounds of both alternate in one run; every round ends
when the device has done all its work. The two paths must also agree, to the round-off of the preset's precision:
``loss_difference`` compares the mean losses of the first updates on the same batches.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch

from benchmarks.learner import filled_mirror
from cluster.config import RunConfig
from cluster.errors import ConfigError
from cluster.presets import get_preset
from learner.acceleration import accelerate
from learner.config import AgentSpec, BlockName
from learner.step_kind import StepKind
from learner.td3 import TD3Learner
from replay.mirror import Mirror

_HUMANOID = AgentSpec(observation_size=376, action_low=(-0.4,) * 17, action_high=(0.4,) * 17)
_CASES: tuple[tuple[str, BlockName], ...] = (("humanoid", "pqc"), ("humanoid", "linear"), ("humanoid-strong", "pqc"))
_COMPARED_UPDATES = 40
_PRODUCT_SIZE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench learner_device``."""
    parser.add_argument("--device", default="cuda", help="torch device (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds; medians are reported")
    parser.add_argument("--round-s", type=float, default=2.0, help="length of a round, seconds")


def run(*, device: str = "cuda", rounds: int = 5, round_s: float = 2.0) -> dict[str, Any]:
    """Measure the presets' learners at Humanoid-v4's sizes.

    Args:
        device: where the learners live.
        rounds: alternating rounds of the two paths.
        round_s: length of a round, seconds.

    Returns:
        The device; its rate of a large matrix product; per preset and block updates per second of both paths, and of
        the accelerated one in float32 where the preset takes the precision that the device has; the paths' ratio, the
        largest relative difference of their losses, and where the accelerated path's time goes: the host's
        draw and load of a batch, and an update on the device of a batch that lies there, without and with the
        policy's step.

    Raises:
        ConfigError: if the machine has no such device.
    """
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"--device {device} needs a GPU that torch {torch.__version__} sees; `hdqnn doctor` shows it")
    return {
        "device": torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device,
        "torch": torch.__version__,
        "peak_flops_per_s": _peak(device),
        "cases": [_case(preset, block, device, rounds, round_s) for preset, block in _CASES],
    }


def _case(preset: str, block: BlockName, device: str, rounds: int, round_s: float) -> dict[str, Any]:
    config = get_preset(preset)
    mirror = filled_mirror(config, _HUMANOID, block)
    configs = {"plain": config, "accelerated": config}
    if config.td3.precision == "auto":
        configs["float32"] = replace(config, td3=replace(config.td3, precision="float32"))
    learners = {name: _learner(each, block, device) for name, each in configs.items()}
    for name in configs.keys() - {"plain"}:
        accelerate(learners[name])
    losses = {name: _losses(learner, mirror, config) for name, learner in learners.items()}
    differences = [
        abs(losses["accelerated"][name] - value) / max(abs(value), 1e-6) for name, value in losses["plain"].items()
    ]
    rates: dict[str, list[float]] = {name: [] for name in learners}
    for _, name in product(range(rounds), learners):
        rates[name].append(_rate(learners[name], mirror, config.td3.batch_size, round_s))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    learner, rng = learners["accelerated"], np.random.default_rng(2)
    batch = mirror.sample(config.td3.batch_size, rng)
    tensors = learner.loader.load(batch, None)
    microseconds = {
        "draw": _mean_us(lambda: mirror.sample(config.td3.batch_size, rng), learner.device),
        "load": _mean_us(lambda: learner.loader.load(batch, None), learner.device),
        "step": _mean_us(lambda: learner.execute(tensors, StepKind(False, False)), learner.device),
        "step_with_policy": _mean_us(lambda: learner.execute(tensors, StepKind(True, False)), learner.device),
        "publish": _mean_us(learner.policy_parameters, learner.device),
    }
    return {
        "preset": preset,
        "block": block,
        "updates_per_s": medians["accelerated"],
        "plain_updates_per_s": medians["plain"],
        "float32_updates_per_s": medians.get("float32"),
        "ratio": medians["accelerated"] / medians["plain"],
        "loss_difference": max(differences),
        "microseconds": microseconds,
    }


def _learner(config: RunConfig, block: BlockName, device: str) -> TD3Learner:
    return TD3Learner(
        _HUMANOID,
        block=block,
        policy_config=config.policy,
        surrogate_config=config.surrogate,
        config=config.td3,
        critic_config=config.critic,
        seed=0,
        device=device,
    )


def _losses(learner: TD3Learner, mirror: Mirror, config: RunConfig) -> dict[str, float]:
    """Mean losses of the first updates; the same batches whichever path."""
    rng = np.random.default_rng(0)
    for _ in range(_COMPARED_UPDATES):
        learner.update(mirror.sample(config.td3.batch_size, rng))
    return {name: value for name, value in learner.metrics().items() if name.endswith("loss")}


def _rate(learner: TD3Learner, mirror: Mirror, batch_size: int, round_s: float) -> float:
    rng = np.random.default_rng(1)
    count, started_s = 0, time.monotonic()
    while time.monotonic() - started_s < round_s:
        learner.update(mirror.sample(batch_size, rng))
        count += 1
    _wait(learner.device)
    return count / (time.monotonic() - started_s)


def _mean_us(work: Callable[[], object], device: torch.device) -> float:
    """Of as many calls in a row as take about a second, until the device has done them all."""
    work()
    _wait(device)
    started_s = time.monotonic()
    work()
    _wait(device)
    count = max(1, min(300, int(1 / max(time.monotonic() - started_s, 1e-6))))
    started_s = time.monotonic()
    for _ in range(count):
        work()
    _wait(device)
    return 1e6 * (time.monotonic() - started_s) / count


def _peak(device: str) -> float:
    """Operations per second of a large float32 matrix product, the best of five."""
    left = torch.full((_PRODUCT_SIZE, _PRODUCT_SIZE), 0.5, device=device)
    seconds = []
    for _ in range(5):
        started_s = time.monotonic()
        torch.mm(left, left)
        _wait(left.device)
        seconds.append(time.monotonic() - started_s)
    return float(2 * _PRODUCT_SIZE**3 / min(seconds))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
