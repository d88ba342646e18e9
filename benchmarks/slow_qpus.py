"""Claim: with QPUs that take 50 ms for every question, eight agents make at least seven times one agent's episodes.

Every agent has its own process and its own (imitated) QPU, so waiting overlaps; what can't overlap on a few cores is
the agents' own computing, which is why the gain is below the number of agents.
"""

import dataclasses
import os
import time
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
    rounds: int = 40,
    warm_up_rounds: int = 5,
) -> dict[str, Any]:
    """Measure teams of several sizes, one after the other.

    Args:
        agents: numbers of agents.
        latency_s: of every question to a circuit; a round asks twice, for weights and for their gradient.
        rounds: that are measured.
        warm_up_rounds: before them, for starts of processes and compiled code.

    Returns:
        Per way of sharing and number of agents: episodes and rounds per second, and the gain over one agent.
    """
    results: list[dict[str, Any]] = []
    sharings: tuple[Sharing, ...] = ("gradients", "parameters")
    with ray_runtime() as runtime:
        # One set of processes for all: a smaller team asks only some of them.
        team = RayTeam(_config(max(agents), "gradients", latency_s), runtime.actor_options)
        try:
            for sharing in sharings:
                for count in agents:
                    rate = _episodes_per_s(_config(count, sharing, latency_s), team, rounds, warm_up_rounds)
                    results.append({"sharing": sharing, "agents": count, "episodes_per_s": rate})
        finally:
            team.close()
    alone = {row["sharing"]: row["episodes_per_s"] for row in results if row["agents"] == min(agents)}
    for row in results:
        row["gain"] = row["episodes_per_s"] / alone[row["sharing"]] * min(agents)
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
