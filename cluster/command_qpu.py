"""``hdqnn qpu``: what a run would cost on IBM hardware, before anything is sent, and what was spent so far."""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium

from cluster.command_train import parse_config
from cluster.config import RunConfig
from cluster.errors import EXIT_DONE, EXIT_REFUSED
from learner.config import uses_circuit
from qpu_service.budget import Budget, BudgetLimits
from qpu_service.ibm.config import config_from_environment, default_journal_dir
from qpu_service.ibm.usage import UsageModel

_DEFAULT_PRESET = "pendulum"
_UNKNOWN_EPISODE_LENGTH = 1_000
_LANES_PER_ACTOR = 2
"""An actor steps one half of its environments while the other half waits for its bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Circuits that one part of a run asks for."""

    circuits: int
    executions: int
    """Circuits times shots."""
    jobs: int


def run(arguments: list[str]) -> int:
    """Run a subcommand."""
    if not arguments or arguments[0] not in _COMMANDS:
        listing = "\n".join(f"  {name:10s} {text}" for name, (_, text) in _COMMANDS.items())
        out = sys.stdout if arguments[:1] in (["-h"], ["--help"]) else sys.stderr
        out.write(f"usage: hdqnn qpu COMMAND [arguments]\n\n{listing}\n")
        return EXIT_DONE if out is sys.stdout else EXIT_REFUSED
    return _COMMANDS[arguments[0]][0](arguments[1:])


def acting_workload(config: RunConfig) -> Workload:
    """One circuit per environment step; whatever waits while a job runs shares the next one.

    Lanes of environments that ask while a job runs wait for the next one, so jobs alternate between two groups of lanes
    and hold half of the environments on average; with ``qpu.max_delay_s`` a job waits for all of them.
    """
    num_envs = config.actors.envs_per_actor
    if config.synchronous:
        per_job = num_envs
    else:
        lanes = config.actors.num_actors * min(_LANES_PER_ACTOR, num_envs) / config.qpu.num_workers
        share = lanes if config.qpu.max_delay_s > 0 else lanes / 2
        per_job = math.ceil(max(1.0, share) * num_envs / min(_LANES_PER_ACTOR, num_envs))
    per_job = min(per_job, config.qpu.max_batch_circuits)
    return Workload(
        circuits=config.total_steps,
        executions=config.total_steps * config.qpu.shots,
        jobs=math.ceil(config.total_steps / per_job),
    )


def test_workload(config: RunConfig, episode_length: int) -> Workload:
    """Every test round: its episodes step together, so a round takes as many jobs as its longest episode has steps."""
    rounds = math.ceil(config.total_steps / config.evaluation.period_steps)
    circuits = rounds * config.evaluation.num_episodes * episode_length
    return Workload(circuits=circuits, executions=circuits * config.qpu.shots, jobs=rounds * episode_length)


def _estimate(arguments: list[str]) -> int:
    defaults = UsageModel()
    parser = argparse.ArgumentParser(
        prog="hdqnn qpu estimate",
        usage="hdqnn qpu estimate [preset] [--field value …] [options]",
        allow_abbrev=False,
        description="Circuits, jobs and QPU seconds of a run on IBM hardware. Takes the preset and the fields that "
        "`hdqnn train` takes; sends nothing and needs no account.",
    )
    parser.add_argument("--episode-length", type=int, help="steps of a test episode (default: the environment's limit)")
    for name, text in (
        ("job_overhead_s", "QPU seconds charged per job"),
        ("repetition_delay_s", "pause between executions, seconds"),
        ("circuit_s", "length of a circuit with reset and measurement, seconds"),
    ):
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=float, default=getattr(defaults, name), help=f"{text} (default: %(default)g)")
    parser.add_argument("--price-per-minute", type=float, help="what your plan charges for a minute, any currency")
    parser.add_argument("--json", type=Path, help="also write the estimate to this file")
    parsed, rest = parser.parse_known_args(arguments)
    preset, *overrides = rest if rest and not rest[0].startswith("-") else [_DEFAULT_PRESET, *rest]
    config = parse_config(preset, overrides)
    if not uses_circuit(config.block):
        sys.stdout.write(f"block {config.block} runs no circuit: nothing to pay\n")
        return EXIT_DONE
    model = UsageModel(
        job_overhead_s=parsed.job_overhead_s,
        repetition_delay_s=parsed.repetition_delay_s,
        circuit_s=parsed.circuit_s,
    )
    length = parsed.episode_length or _episode_limit(config.env_id)
    parts = {"acting": acting_workload(config), "test rounds": test_workload(config, length)}
    parts["total"] = _sum(parts)
    seconds = {name: model.seconds(executions=part.executions, jobs=part.jobs) for name, part in parts.items()}
    sys.stdout.write(_report(config, parts, seconds, model, length, parsed.price_per_minute))
    if parsed.json is not None:
        content = {
            "model": asdict(model),
            "episode_length": length,
            "parts": {name: asdict(part) | {"qpu_seconds": seconds[name]} for name, part in parts.items()},
        }
        parsed.json.write_text(json.dumps(content, indent=1) + "\n")
    return EXIT_DONE


def _spending(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="hdqnn qpu spending",
        description="QPU seconds and jobs spent on IBM hardware so far, from the budget file.",
    )
    parser.parse_args(arguments)
    config = config_from_environment(None)
    directory = config.journal_dir or default_journal_dir()
    spending = Budget(directory, config.budget).spending() if directory.exists() else None
    if spending is None:
        sys.stdout.write(f"nothing was sent: there is no {directory}\n")
        return EXIT_DONE
    sys.stdout.write(
        f"{spending.spent_s:,.1f} QPU seconds charged, {spending.reserved_s:,.1f} set aside for "
        f"{len(spending.reserved)} jobs whose charge is not known yet, {spending.jobs:,} jobs sent\n"
        f"limits: {_limit(config.budget)}; file: {directory / 'budget.json'}\n"
    )
    return EXIT_DONE


def _limit(limits: BudgetLimits) -> str:
    seconds = "no QPU_BUDGET_SECONDS" if limits.seconds is None else f"{limits.seconds:,g} QPU seconds"
    jobs = "no QPU_BUDGET_JOBS" if limits.jobs is None else f"{limits.jobs:,} jobs"
    return f"{seconds}, {jobs}"


def _report(
    config: RunConfig,
    parts: Mapping[str, Workload],
    seconds: Mapping[str, float],
    model: UsageModel,
    episode_length: int,
    price: float | None,
) -> str:
    rows = [f"{'':12s} {'circuits':>12s} {'executions':>12s} {'jobs':>10s} {'QPU seconds':>14s}"]
    rows += [
        f"{name:12s} {part.circuits:12,d} {part.executions:12,d} {part.jobs:10,d} {seconds[name]:14,.0f}"
        for name, part in parts.items()
    ]
    total = parts["total"]
    overhead = total.jobs * model.job_overhead_s / seconds["total"] if seconds["total"] else 0.0
    per_execution = model.repetition_delay_s + model.circuit_s
    lines = [
        f"{config.env_id}, {config.total_steps:,} steps, {config.actors.num_actors} actors with "
        f"{config.actors.envs_per_actor} environments, {config.qpu.shots} shots per circuit",
        *rows,
        f"model: {model.job_overhead_s:g} s per job + ({model.repetition_delay_s * 1e6:g} µs repetition delay + "
        f"{model.circuit_s * 1e6:g} µs circuit) per execution; test episodes of {episode_length:,} steps",
        f"that is {seconds['total'] / 3600:,.2f} QPU hours, {overhead:.1%} of it overhead of jobs; "
        f"without that overhead {total.executions * per_execution:,.0f} s",
    ]
    if price is not None:
        lines.append(f"at {price:g} per minute: {seconds['total'] / 60 * price:,.2f}")
    lines.append(
        f"to allow it: QPU_BUDGET_SECONDS={math.ceil(seconds['total'])} QPU_BUDGET_JOBS={total.jobs}\n"
        "fewer, larger jobs cost less: raise --actors.envs-per-actor and --evaluation.period-steps"
    )
    return "\n".join(lines) + "\n"


def _sum(parts: Mapping[str, Workload]) -> Workload:
    return Workload(
        circuits=sum(part.circuits for part in parts.values()),
        executions=sum(part.executions for part in parts.values()),
        jobs=sum(part.jobs for part in parts.values()),
    )


def _episode_limit(env_id: str) -> int:
    spec: Any = gymnasium.spec(env_id)
    return spec.max_episode_steps or _UNKNOWN_EPISODE_LENGTH


_COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "estimate": (_estimate, "circuits, jobs and QPU seconds of a run, before anything is sent"),
    "spending": (_spending, "what was spent so far"),
}
