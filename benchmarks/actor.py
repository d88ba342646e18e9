"""How much of the environments' own speed is left with the whole policy around them.

The same environments, seeds and uniform random actions step in the same kind of Ray actor process, once alone and
once inside a rollout actor: PreDNN, circuits through the QPU service, PostDNN, segments into a real server. Rounds of
both alternate, so that a machine whose speed drifts does not favour either.
"""

import dataclasses
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.config import RunConfig
from cluster.presets import get_preset


class RawStepper:
    """Environments alone: what a rollout actor could reach if everything else were free."""

    def __init__(self, env_id: str, num_envs: int) -> None:
        from actors.environment import EnvironmentGroup

        self._groups = [EnvironmentGroup(env_id, list(part)) for part in np.array_split(np.arange(num_envs), 2)]
        space = self._groups[0]._envs.single_action_space
        self._low, self._high = space.low, space.high
        self._rng = np.random.default_rng(0)

    def advance(self, budget_s: float) -> tuple[int, float]:
        """Step for about ``budget_s``; returns steps and seconds."""
        started_s, steps = time.monotonic(), 0
        while time.monotonic() - started_s < budget_s:
            for group in self._groups:
                action = self._rng.uniform(self._low, self._high, (len(group), len(self._low))).astype(np.float32)
                result = group.step(action)
                group.reset_finished(result.terminated | result.truncated)
                steps += len(group)
        return steps, time.monotonic() - started_s


def run(
    *,
    env_id: str = "Humanoid-v4",
    backend: str = "statevector",
    envs_per_actor: int | None = None,
    rounds: int = 5,
    round_s: float = 4.0,
) -> dict[str, Any]:
    """Measure one actor process.

    Args:
        env_id: Gymnasium id.
        backend: QPU backend.
        envs_per_actor: environments; default: the humanoid preset's.
        rounds: alternating rounds of each; the medians are reported.
        round_s: length of a round.

    Returns:
        ``raw_env_steps_per_s``, ``actor_env_steps_per_s``, ``efficiency`` (their ratio, median over the rounds) and
        what was measured.
    """
    import ray

    from actors.environment import agent_spec
    from cluster.qpu_crew import QPUCrew
    from cluster.ray_runtime import ray_runtime
    from cluster.ray_services import RayParameterSource, RayQPUClient, start_board
    from cluster.rollout_worker import ReplayAddress, RolloutWorker
    from qpu_service.places import worker_places
    from replay.embedded_server import EmbeddedServer

    config = _config(env_id, backend, envs_per_actor)
    spec = agent_spec(config.env_id)
    with (
        tempfile.TemporaryDirectory() as directory,
        ray_runtime() as runtime,
        EmbeddedServer.start(Path(directory), host=runtime.host) as server,
    ):
        address = ReplayAddress(url=server.url, run_id="bench-actor")
        board = start_board(runtime.service_options)
        qpu = QPUCrew(worker_places(backend, None, 1), config.qpu, runtime.qpu_options)
        raw = ray.remote(RawStepper).options(**runtime.actor_options).remote(env_id, config.actors.envs_per_actor)
        actor = (
            ray.remote(RolloutWorker)
            .options(**runtime.actor_options)
            .remote(
                config,
                spec,
                actor_id=0,
                address=address,
                sampler=RayQPUClient(qpu.handles),
                source=RayParameterSource(board),
            )
        )
        ray.get([raw.advance.remote(round_s / 4), actor.advance.remote(round_s / 4)])
        raw_rates, actor_rates = [], []
        for _ in range(rounds):
            steps, seconds = ray.get(raw.advance.remote(round_s))
            raw_rates.append(steps / seconds)
            report = ray.get(actor.advance.remote(round_s))
            actor_rates.append(report.num_steps / (report.busy_s + report.blocked_s))
        qpu_p50_s = ray.get(qpu.handles[0].stats.remote()).latency_p50_s
    return {
        "env_id": env_id,
        "backend": backend,
        "envs_per_actor": config.actors.envs_per_actor,
        "cpu_count": os.cpu_count(),
        "rounds": rounds,
        "raw_env_steps_per_s": statistics.median(raw_rates),
        "actor_env_steps_per_s": statistics.median(actor_rates),
        "efficiency": statistics.median(a / r for a, r in zip(actor_rates, raw_rates, strict=True)),
        "qpu_request_p50_ms": 1e3 * qpu_p50_s,
    }


def _config(env_id: str, backend: str, envs_per_actor: int | None) -> RunConfig:
    preset = get_preset("humanoid")
    num_envs = envs_per_actor or preset.actors.envs_per_actor
    # Nothing is learned here: the limiter must never hold the actor back.
    return dataclasses.replace(
        preset,
        env_id=env_id,
        backend=backend,
        actors=dataclasses.replace(preset.actors, envs_per_actor=num_envs),
        td3=dataclasses.replace(preset.td3, learning_starts=10**9),
        replay=dataclasses.replace(preset.replay, capacity=10**9),
    )
