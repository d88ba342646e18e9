"""What the replay costs at Humanoid's sizes, beside TorchRL's, Stable-Baselines3's and RLlib's on the same machine.

Inserts go through a real server with its append-only file on, from segments of 64 steps, 16 per request. Every figure
is that of the best of ten rounds, ours and theirs alike: other programs of the machine only ever make a round slower.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from replay.codec import encode_segment
from replay.embedded_server import EmbeddedServer
from replay.mirror import Mirror
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_sampler import RedisSampler
from replay.redis_session import RedisSession
from replay.redis_writer import RedisWriter
from replay.sampling import SampleRule
from replay.types import Segment, TransitionSpec

HUMANOID = TransitionSpec(observation_size=376, action_size=17, circuit_parameters_size=220, num_bits=10)
CLASSICAL = TransitionSpec(observation_size=376, action_size=17)
_STEPS = 64
_SEGMENTS_PER_INSERT = 16
_BATCH = 256
_SERVER_CAPACITY = 32_000
_ROUNDS = 10
_PEER_TIMEOUT_S = 580.0
_LIMITER = SampleToInsertRatio(float(_BATCH), 1, 1e12)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``hdqnn bench replay``."""
    parser.add_argument("--num-transitions", type=int, default=16_000, help="inserted per round")
    parser.add_argument("--mirror-transitions", type=int, default=1_000_000, help="held by the mirror (and SB3)")
    parser.add_argument("--peer-python", help="a Python with torchrl, stable-baselines3 and ray[rllib]; none: no peers")


def run(
    *, num_transitions: int = 16_000, mirror_transitions: int = 1_000_000, peer_python: str | None = None
) -> dict[str, Any]:
    """Measure one writer, one learner and the peers, one after the other, over loopback.

    Args:
        num_transitions: inserted through the server in each round; what exceeds its capacity drops old segments.
        mirror_transitions: held by the mirror that is sampled; a large one fits no cache.
        peer_python: interpreter of the peers; None measures ours alone.

    Returns:
        ``load_average_at_start``: figures with more programs than cores are too slow. ``insert_transitions_per_s``
        through the server, and processor time of both sides; ``insert_round_trip_ms`` of one segment;
        ``read_transitions_per_s`` of a learner that starts; ``idle_refresh_ms``; ``server_sample_256_ms``;
        ``sample_256_ms`` and the same with five-step returns, by priority (drawing and updating), and of transitions
        without circuit as the peers hold them; bytes per transition in the server, a frame and the mirror; ``peers``,
        and ``ratios`` of theirs to ours, above 1 where ours is faster.
    """
    results: dict[str, Any] = {"load_average_at_start": os.getloadavg()[0], "num_cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer.start(Path(directory)) as server:
        results |= _server_figures(server.url, num_transitions)
        if peer_python is not None:
            results["peers"] = {"torchrl": _peer(peer_python, "torchrl", 2_048, REDIS_URL=server.url)}
    results |= _mirror_figures(mirror_transitions)
    if peer_python is not None:
        results["peers"]["sb3"] = _peer(peer_python, "sb3", mirror_transitions)
        results["peers"]["rllib"] = _peer(peer_python, "rllib", min(mirror_transitions, 100_000))
        results["ratios"] = _ratios(results)
    return results


def _server_figures(url: str, num_transitions: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    segment = _random_segment(HUMANOID, rng)
    writer = RedisWriter.connect(url, "benchmark", HUMANOID, _LIMITER, _SERVER_CAPACITY)
    empty_bytes = _used_bytes(url)
    sequence, rates = 0, []
    own_s, server_s = time.process_time(), _server_seconds(url)
    for _ in range(_ROUNDS):
        started, first = time.monotonic(), sequence
        while (sequence - first) * _STEPS < num_transitions:
            writer.insert_many([replace(segment, sequence=sequence + i) for i in range(_SEGMENTS_PER_INSERT)])
            sequence += _SEGMENTS_PER_INSERT
        rates.append((sequence - first) * _STEPS / (time.monotonic() - started))
    own_s, server_s = time.process_time() - own_s, _server_seconds(url) - server_s
    started = time.monotonic()
    learner = RedisReplay.connect(url, "benchmark", HUMANOID, _LIMITER, _SERVER_CAPACITY)
    read_s = time.monotonic() - started
    sampler = RedisSampler.connect(url, "benchmark", HUMANOID, _LIMITER, _SERVER_CAPACITY, learner_id="benchmark")
    sequences = iter(range(sequence, sequence + 1_000_000))
    results = {
        "insert_transitions_per_s": max(rates),
        "insert_transitions_per_s_slowest_round": min(rates),
        "insert_writer_cpu_us_per_transition": own_s * 1e6 / (sequence * _STEPS),
        "insert_server_cpu_us_per_transition": server_s * 1e6 / (sequence * _STEPS),
        "insert_round_trip_ms": _best_ms(lambda: writer.insert(replace(segment, sequence=next(sequences))), 40),
        "read_transitions_per_s": len(learner) / read_s,
        "idle_refresh_ms": _best_ms(learner.refresh, 100),
        "server_sample_256_ms": _best_ms(lambda: sampler.sample(_BATCH, rng), 40),
        "redis_bytes_per_transition": (_used_bytes(url) - empty_bytes) / len(learner),
        "frame_bytes_per_transition": len(encode_segment(segment, HUMANOID, "benchmark")) / _STEPS,
    }
    for connection in (writer, learner, sampler):
        connection.close()
    return results


def _mirror_figures(num_transitions: int) -> dict[str, float]:
    rng = np.random.default_rng(1)
    five_steps = SampleRule(n_step=5, discount_factor=0.99)
    mirror = _full_mirror(CLASSICAL, num_transitions)
    results = {"sample_256_without_circuit_ms": _best_ms(lambda: mirror.sample(_BATCH, rng), 200)}
    mirror = _full_mirror(HUMANOID, num_transitions, is_prioritised=True)

    def sample_and_update() -> None:
        batch = mirror.sample(_BATCH, rng)
        mirror.update_priorities(batch.indices, batch.reward)

    results["prioritised_sample_and_update_256_ms"] = _best_ms(sample_and_update, 200)
    mirror = _full_mirror(HUMANOID, num_transitions)
    results["sample_256_ms"] = _best_ms(lambda: mirror.sample(_BATCH, rng), 200)
    results["sample_256_five_steps_ms"] = _best_ms(lambda: mirror.sample(_BATCH, rng, five_steps), 200)
    results["mirror_bytes_per_transition"] = mirror.nbytes / len(mirror)
    return results


def _full_mirror(spec: TransitionSpec, num_transitions: int, *, is_prioritised: bool = False) -> Mirror:
    mirror = Mirror(spec, num_transitions, is_prioritised=is_prioritised)
    segment = _random_segment(spec, np.random.default_rng(2))
    for sequence in range(num_transitions // _STEPS):
        mirror.append(replace(segment, sequence=sequence, previous_sequence=sequence - 1 if sequence else None))
    return mirror


def _random_segment(spec: TransitionSpec, rng: np.random.Generator) -> Segment:
    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return Segment(
        actor_id=0,
        incarnation=1,
        sequence=0,
        observations=normal(_STEPS + 1, spec.observation_size),
        actions=normal(_STEPS, spec.action_size),
        rewards=normal(_STEPS),
        discounts=np.ones(_STEPS, np.float32),
        circuit_parameters=normal(_STEPS, spec.circuit_parameters_size),
        bits=rng.integers(0, 2, (_STEPS, spec.num_bits), np.uint8),
        policy_versions=np.zeros(_STEPS, np.uint32),
        backend_name="statevector",
    )


def _peer(python: str, name: str, num_transitions: int, **environment: str) -> dict[str, Any]:
    """Figures of one peer, or why there are none."""
    script = Path(__file__).with_name("replay_peers.py")
    command = [python, str(script), name, "--transitions", str(num_transitions)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_PEER_TIMEOUT_S,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    figures: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def _ratios(results: dict[str, Any]) -> dict[str, float]:
    """How many times faster ours is; a peer without circuits is compared with ours with them, which are larger."""
    peers, ratios = results["peers"], {}
    torchrl = peers["torchrl"]
    if "error" not in torchrl:
        ratios["insert_over_torchrl"] = results["insert_transitions_per_s"] / torchrl["insert_transitions_per_s"]
        ratios["server_sample_over_torchrl"] = torchrl["sample_256_ms"] / results["server_sample_256_ms"]
    for name in ("sb3", "rllib"):
        if "error" not in peers[name]:
            ratios[f"sample_over_{name}"] = peers[name]["sample_256_ms"] / results["sample_256_ms"]
    return ratios


def _best_ms(action: Callable[[], object], repeats: int) -> float:
    medians = []
    for _ in range(_ROUNDS):
        durations_s = np.empty(repeats)
        for index in range(repeats):
            started = time.monotonic()
            action()
            durations_s[index] = time.monotonic() - started
        medians.append(float(np.median(durations_s) * 1e3))
    return min(medians)


def _server_seconds(url: str) -> float:
    """Processor time of the server so far."""
    session = RedisSession(url)
    used = session.call(lambda client: client.info("cpu"))
    session.close()
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def _used_bytes(url: str) -> float:
    session = RedisSession(url)
    used: float = session.call(lambda client: client.info("memory"))["used_memory"]
    session.close()
    return used
