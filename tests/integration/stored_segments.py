"""Reads what a run left in its replay directory, with a server of the test's own."""

from collections import defaultdict

import redis

from actors.environment import agent_spec
from cluster.build_replay import transition_spec
from cluster.run_directory import open_run_directory
from replay.codec import decode_segment
from replay.embedded_server import EmbeddedServer


def read_replay(path):
    """Every segment held, in order of arrival, and the lifetime counters."""
    run, config = open_run_directory(path)
    run_id = (path / "run_id").read_text().strip()
    spec = transition_spec(config, agent_spec(config.env_id))
    key = f"hdqnn:{{{run_id}}}"
    with EmbeddedServer.start(run.replay) as server, redis.Redis.from_url(server.url) as client:
        counters = {name.decode(): int(value) for name, value in client.hgetall(f"{key}:counters").items()}
        frames = [client.get(f"{key}:segment:{i}") for i in range(counters["oldest_index"], counters["next_index"])]
    return [decode_segment(frame, spec, run_id) for frame in frames], counters


def assert_every_transition_is_there_once(segments, counters):
    """Sequences of every (actor, incarnation) run from 0 without a gap, and all lengths add up to what was counted."""
    sequences = defaultdict(list)
    for segment in segments:
        sequences[segment.actor_id, segment.incarnation].append(segment.sequence)
    for identity, found in sequences.items():
        assert found == list(range(len(found))), identity
    assert sum(len(segment) for segment in segments) == counters["inserted"] == counters["held_transitions"]
    return sequences
