"""How much of the environments' own speed is left with the whole policy around them.

The same number of environments with uniform random actions steps in one Ray actor process with one thread, once alone
and once inside a rollout actor: PreDNN, circuits through the QPU service, PostDNN, segments into a real server. Rounds
of both alternate, so that a machine whose speed drifts does not favour either. QPU worker and server are processes of
their own and not counted: the ratio says what the actor loses, not what the whole system costs. Other work on the
machine slows both down, the waiting actor more; the ratio of processor times is the one to look at then.
"""

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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

    def measure(self, budget_s: float) -> "Round":
        """``advance`` with the processor time of this process."""
        before_s = time.process_time()
        steps, seconds = self.advance(budget_s)
        return Round(steps, seconds, time.process_time() - before_s)


class ActorStepper:
    """A rollout actor, and the processor time of its process with all its threads."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        from cluster.rollout_worker import RolloutWorker

        self._worker = RolloutWorker(*arguments, **named)

    def measure(self, budget_s: float) -> "Round":
        """Step for about ``budget_s``."""
        before_s = time.process_time()
        report = self._worker.advance(budget_s)
        return Round(report.num_steps, report.busy_s + report.blocked_s, time.process_time() - before_s)


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement."""

    steps: int
    seconds: float
    cpu_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench actor``."""
    parser.add_argument("--envs-per-actor", type=int, help="environments in one actor (default: the humanoid preset's)")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each (default: %(default)s)")


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
        ``raw_env_steps_per_s``, ``actor_env_steps_per_s``, ``efficiency`` (their ratio, median over the rounds), the
        same in processor time of the two processes, and what was measured under which load.
    """
    import ray

    from actors.environment import agent_spec
    from cluster.qpu_crew import QPUCrew
    from cluster.ray_runtime import ray_runtime
    from cluster.ray_services import RayParameterSource, RayQPUClient, start_board
    from cluster.rollout_worker import ReplayAddress
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
        qpu = QPUCrew(worker_places(backend, None, 1), config.qpu, runtime.options_of)
        raw = ray.remote(RawStepper).options(**runtime.actor_options).remote(env_id, config.actors.envs_per_actor)
        actor = (
            ray.remote(ActorStepper)
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
        ray.get([raw.measure.remote(round_s / 4), actor.measure.remote(round_s / 4)])
        pairs: list[tuple[Round, Round]] = []
        for _ in range(rounds):
            alone: Round = ray.get(raw.measure.remote(round_s))
            pairs.append((alone, ray.get(actor.measure.remote(round_s))))
        qpu_p50_s = ray.get(qpu.handles[0].stats.remote()).latency_p50_s
    return {
        "env_id": env_id,
        "backend": backend,
        "envs_per_actor": config.actors.envs_per_actor,
        "cpu_count": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "rounds": rounds,
        **_summary(pairs),
        "qpu_request_p50_ms": 1e3 * qpu_p50_s,
    }


def _summary(pairs: list[tuple[Round, Round]]) -> dict[str, float]:
    """Medians over the rounds; ratios are taken within a round."""

    def median(value: Callable[[Round, Round], float]) -> float:
        return statistics.median(value(raw, actor) for raw, actor in pairs)

    return {
        "raw_env_steps_per_s": median(lambda raw, _: raw.steps / raw.seconds),
        "actor_env_steps_per_s": median(lambda _, actor: actor.steps / actor.seconds),
        "efficiency": median(lambda raw, actor: actor.steps / actor.seconds / (raw.steps / raw.seconds)),
        "raw_cpu_us_per_step": median(lambda raw, _: 1e6 * raw.cpu_s / raw.steps),
        "actor_cpu_us_per_step": median(lambda _, actor: 1e6 * actor.cpu_s / actor.steps),
        "cpu_efficiency": median(lambda raw, actor: raw.cpu_s / raw.steps / (actor.cpu_s / actor.steps)),
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
        replay=dataclasses.replace(preset.replay, capacity=10**9, slack_steps=10**6),
    )
