"""Claim: with QPUs that take 50 ms for every question, eight agents make at least seven times one agent's episodes.

Every agent has its own process and its own (imitated) QPU, so waiting overlaps; what can't overlap on a few cores is
the agents' own computing. Where every round ends with an average, all compute at the same time and then all wait; with
an average every five rounds one computes while others wait.
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
    warm_up_rounds: int = 5,
    repetitions: int = 3,
) -> dict[str, Any]:
    """Measure teams of several sizes, one after the other.

    Args:
        agents: numbers of agents.
        latency_s: of every question to a circuit; a round asks twice, for weights and for their gradient.
        rounds: that are measured; a multiple of five, so that none is under way when the next team starts.
        warm_up_rounds: before them, for starts of processes and compiled code; likewise.
        repetitions: times that every team is measured, in turn; the fastest counts.

    Returns:
        Per way of sharing, its period and number of agents: episodes per second and the gain over one agent.
    """
    rates: dict[tuple[str, int, int], float] = {}
    sharings: tuple[tuple[Sharing, int], ...] = (("gradients", 1), ("parameters", 1), ("parameters", 5))
    with ray_runtime() as runtime:
        # One set of processes for all: a smaller team asks only some of them.
        team = RayTeam(_config(max(agents), "gradients", 1, latency_s), runtime.actor_options)
        try:
            for _, (sharing, period), count in product(range(repetitions), sharings, agents):
                rate = _episodes_per_s(_config(count, sharing, period, latency_s), team, rounds, warm_up_rounds)
                # Other work on the machine only ever slows a team down.
                rates[sharing, period, count] = max(rate, rates.get((sharing, period, count), 0.0))
        finally:
            team.close()
    fewest = min(agents)
    results = [
        {
            "sharing": sharing,
            "sync_period_rounds": period,
            "agents": count,
            "episodes_per_s": rate,
            "gain": rate / rates[sharing, period, fewest] * fewest,
        }
        for (sharing, period, count), rate in rates.items()
    ]
    return {
        "latency_s": latency_s,
        "questions_per_round": 2,
        "rounds": rounds,
        "results": results,
        "cores": len(os.sched_getaffinity(0)),
    }


def _config(count: int, sharing: Sharing, period: int, latency_s: float) -> QuantumTrainRunConfig:
    preset = PRESETS["qtrl-cartpole-source"]
    return dataclasses.replace(
        preset,
        num_agents=count,
        sharing=sharing,
        sync_period_rounds=period,
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
