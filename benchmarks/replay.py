"""What the replay costs at Humanoid's sizes: inserts through a real server, reading them back, and sampling."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from replay.codec import encode_segment
from replay.embedded_server import EmbeddedServer
from replay.mirror import Mirror
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_session import RedisSession
from replay.redis_writer import RedisWriter
from replay.types import Segment, TransitionSpec

HUMANOID = TransitionSpec(observation_size=376, action_size=17, circuit_parameters_size=220, num_bits=10)


def run(
    *,
    num_transitions: int = 64_000,
    capacity: int = 32_000,
    mirror_transitions: int = 200_000,
    segment_length: int = 64,
    segments_per_insert: int = 4,
    batch_size: int = 256,
    num_batches: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """Measure one writer and one learner on this machine, over loopback, with the append-only file on.

    Args:
        num_transitions: inserted through the server.
        capacity: of the server; with less than ``num_transitions`` the measurement includes dropping old segments.
        mirror_transitions: held by the mirror that is sampled; a large one no longer fits the caches.
        segment_length: steps per segment.
        segments_per_insert: segments per round trip, as from a vectorised environment.
        batch_size: transitions per batch.
        num_batches: batches whose median is reported.
        seed: of the transitions' content.

    Returns:
        ``insert_transitions_per_s`` through the server; ``read_transitions_per_s`` of a learner that starts;
        ``insert_round_trip_ms`` of one segment, ``idle_refresh_ms``, ``sample_ms`` (medians);
        ``redis_bytes_per_transition`` (memory of the server), ``frame_bytes_per_transition``,
        ``mirror_bytes_per_transition``.
    """
    rng = np.random.default_rng(seed)
    segment = _random_segment(segment_length, rng)
    limiter = SampleToInsertRatio(float(batch_size), 1, 1e12)
    results: dict[str, float] = {
        "frame_bytes_per_transition": len(encode_segment(segment, HUMANOID, "benchmark")) / segment_length
    }
    with tempfile.TemporaryDirectory() as directory, EmbeddedServer.start(Path(directory)) as server:
        writer = RedisWriter.connect(server.url, "benchmark", HUMANOID, limiter, capacity)
        empty_bytes = _used_bytes(server.url)
        num_inserts = num_transitions // (segment_length * segments_per_insert)
        sequence = 0
        started = time.monotonic()
        for _ in range(num_inserts):
            writer.insert_many([replace(segment, sequence=sequence + i) for i in range(segments_per_insert)])
            sequence += segments_per_insert
        results["insert_transitions_per_s"] = sequence * segment_length / (time.monotonic() - started)
        started = time.monotonic()
        learner = RedisReplay.connect(server.url, "benchmark", HUMANOID, limiter, capacity)
        results["read_transitions_per_s"] = len(learner) / (time.monotonic() - started)
        results["redis_bytes_per_transition"] = (_used_bytes(server.url) - empty_bytes) / len(learner)
        results["idle_refresh_ms"] = _median_ms(learner.refresh, 200)
        sequences = iter(range(sequence, sequence + 200))
        results["insert_round_trip_ms"] = _median_ms(
            lambda: writer.insert(replace(segment, sequence=next(sequences))), 100
        )
        writer.close()
        learner.close()
    mirror = Mirror(HUMANOID, mirror_transitions)
    for _ in range(mirror_transitions // segment_length):
        mirror.append(segment)
    results["mirror_bytes_per_transition"] = mirror.nbytes / len(mirror)
    results["sample_ms"] = _median_ms(lambda: mirror.sample(batch_size, rng), num_batches)
    return results


def _random_segment(steps: int, rng: np.random.Generator) -> Segment:
    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return Segment(
        actor_id=0,
        incarnation=1,
        sequence=0,
        observations=normal(steps + 1, HUMANOID.observation_size),
        actions=normal(steps, HUMANOID.action_size),
        rewards=normal(steps),
        discounts=np.ones(steps, np.float32),
        circuit_parameters=normal(steps, HUMANOID.circuit_parameters_size),
        bits=rng.integers(0, 2, (steps, HUMANOID.num_bits), np.uint8),
        policy_versions=np.zeros(steps, np.uint32),
        backend_name="statevector",
    )


def _median_ms(action: Callable[[], object], repeats: int) -> float:
    durations_s = np.empty(repeats)
    for index in range(repeats):
        started = time.monotonic()
        action()
        durations_s[index] = time.monotonic() - started
    return float(np.median(durations_s) * 1e3)


def _used_bytes(url: str) -> float:
    session = RedisSession(url)
    used: float = session.call(lambda client: client.info("memory"))["used_memory"]
    session.close()
    return used
