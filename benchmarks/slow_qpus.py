"""Claim: with QPUs that take 50 ms for every question, eight agents make at least seven times one agent's episodes.

Every agent has its own process and its own (imitated) QPU, so waiting overlaps; what can't overlap on a few cores is
the agents' own computing, which is why the gain is below the number of agents.
"""

import dataclasses
import os
import time
from itertools import product
from typing import Any

from actors.on_policy_agent import RolloutReport
from cluster.quantum_train.build import LEADER, make_learner, task_spec
from cluster.quantum_train.config import QuantumTrainRunConfig, Sharing
from cluster.quantum_train.presets import PRESETS
from cluster.quantum_train.ray_team import RayTeam
from cluster.quantum_train.training import TeamTraining
from cluster.ray_runtime import ray_runtime


def run(
    *,
    agents: tuple[int, ...] = (1, 2, 4, 8),
    latency_s: float = 0.05,
    rounds: int = 20,
    warm_up_rounds: int = 3,
    repetitions: int = 3,
) -> dict[str, Any]:
    """Measure teams of several sizes, one after the other.

    Args:
        agents: numbers of agents.
        latency_s: of every question to a circuit; a round asks twice, for weights and for their gradient.
        rounds: that are measured.
        warm_up_rounds: before them, for starts of processes and compiled code.
        repetitions: times that every team is measured, in turn; the fastest counts.

    Returns:
        Per way of sharing and number of agents: episodes and rounds per second, and the gain over one agent.
    """
    rates: dict[tuple[str, int], float] = {}
    sharings: tuple[Sharing, ...] = ("gradients", "parameters")
    with ray_runtime() as runtime:
        # One set of processes for all: a smaller team asks only some of them.
        team = RayTeam(_config(max(agents), "gradients", latency_s), runtime.actor_options)
        try:
            for _, sharing, count in product(range(repetitions), sharings, agents):
                rate = _episodes_per_s(_config(count, sharing, latency_s), team, rounds, warm_up_rounds)
                # Other work on the machine only ever slows a team down.
                rates[sharing, count] = max(rate, rates.get((sharing, count), 0.0))
        finally:
            team.close()
    fewest = min(agents)
    results = [
        {
            "sharing": sharing,
            "agents": count,
            "episodes_per_s": rate,
            "gain": rate / rates[sharing, fewest] * fewest,
        }
        for (sharing, count), rate in rates.items()
    ]
    return {
        "latency_s": latency_s,
        "questions_per_round": 2,
        "rounds": rounds,
        "results": results,
        "cores": len(os.sched_getaffinity(0)),
    }


def _config(count: int, sharing: Sharing, latency_s: float) -> QuantumTrainRunConfig:
    preset = PRESETS["qtrl-cartpole-source"]
    return dataclasses.replace(
        preset,
        num_agents=count,
        sharing=sharing,
        backend="statevector",
        generator=dataclasses.replace(preset.generator, depth=3),
        gradient=dataclasses.replace(preset.gradient, latency_s=latency_s),
    )


def _episodes_per_s(config: QuantumTrainRunConfig, team: RayTeam, rounds: int, warm_up_rounds: int) -> float:
    leader = dataclasses.replace(config, gradient=dataclasses.replace(config.gradient, latency_s=0.0))
    training = TeamTraining(config, make_learner(leader, task_spec(config), LEADER))
    for _ in range(warm_up_rounds):
        training.run_round(team)
    episodes = 0
    started_s = time.monotonic()
    for _ in range(rounds):
        reports: dict[int, RolloutReport] = training.run_round(team).agents
        episodes += sum(len(report.returns) for report in reports.values())
    return episodes / (time.monotonic() - started_s)
