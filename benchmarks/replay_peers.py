"""Replay buffers of other projects at Humanoid's sizes, each at its best setting.

    python benchmarks/replay_peers.py torchrl|sb3|rllib --transitions N

prints one JSON object. Nothing of this project is imported, so any Python with the peer's package can run it. The
server for ``torchrl`` is named by REDIS_URL. What differs from ours is in ``docs/replay.md``.

- ``torchrl``: ``ReplayBuffer`` over ``StoreStorage`` (``tensordict.store``); insert sizes 64, 256 and 1,024, the
  fastest counts; observation, action, reward, next observation, end flag, circuit parameters, bits and policy version.
- ``sb3``: ``ReplayBuffer`` in memory, with and without ``optimize_memory_usage``, the fastest counts; no circuit.
- ``rllib``: ``EpisodeReplayBuffer`` in memory, as rows of two steps and as transitions, the fastest counts; no circuit.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np

OBSERVATION, ACTION, PARAMETERS, BITS, BATCH = 376, 17, 220, 10, 256
_ROUNDS = 10
_SERVER_CAPACITY = 32_000


def torchrl(num_transitions: int) -> dict[str, float]:
    """TorchRL's storage on a Redis server."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import ReplayBuffer
    from torchrl.data.replay_buffers import StoreStorage

    torch.set_num_threads(1)
    url = urlsplit(os.environ["REDIS_URL"])

    def batch(rows: int) -> Any:
        following = {
            "observation": torch.randn(rows, OBSERVATION),
            "reward": torch.randn(rows, 1),
            "terminated": torch.zeros(rows, 1, dtype=torch.bool),
        }
        columns = {
            "observation": torch.randn(rows, OBSERVATION),
            "action": torch.randn(rows, ACTION),
            "next": TensorDict(following, [rows]),
            "circuit_parameters": torch.randn(rows, PARAMETERS),
            "bits": torch.zeros(rows, BITS, dtype=torch.bool),
            "policy_version": torch.zeros(rows, dtype=torch.int32),
        }
        return TensorDict(columns, [rows])

    inserted_per_s, sample_ms = 0.0, float("inf")
    for rows in (64, 256, 1024):
        storage = StoreStorage(_SERVER_CAPACITY, host=url.hostname, port=url.port, password=url.password)
        buffer = ReplayBuffer(storage=storage, batch_size=BATCH)
        data = batch(rows)
        buffer.extend(data)
        for _ in range(_ROUNDS):
            count = max(1, num_transitions // rows)
            started = time.monotonic()
            for _ in range(count):
                buffer.extend(data)
            inserted_per_s = max(inserted_per_s, count * rows / (time.monotonic() - started))
        sample_ms = min(sample_ms, _best_ms(buffer.sample, 10))
    return {"insert_transitions_per_s": inserted_per_s, "sample_256_ms": sample_ms}


def sb3(num_transitions: int) -> dict[str, float]:
    """Stable-Baselines3's buffer, full."""
    import torch
    from gymnasium.spaces import Box
    from stable_baselines3.common.buffers import ReplayBuffer

    torch.set_num_threads(1)
    spaces = [Box(-np.inf, np.inf, (size,), np.float32) for size in (OBSERVATION, ACTION)]
    sample_ms = float("inf")
    for is_small in (False, True):
        buffer = ReplayBuffer(
            num_transitions, *spaces, optimize_memory_usage=is_small, handle_timeout_termination=not is_small
        )
        row = np.random.default_rng(0).standard_normal(OBSERVATION).astype(np.float32)
        # Filled by hand: adding a million steps one by one takes minutes and changes nothing of the sampling.
        buffer.observations[:] = row
        if not is_small:
            buffer.next_observations[:] = row
        for column in (buffer.actions, buffer.rewards, buffer.dones):
            column[:] = 0.0
        buffer.full = True
        sample_ms = min(sample_ms, _best_ms(partial(buffer.sample, BATCH), 200))
        # Two of a million transitions may not fit the machine.
        del buffer
    return {"sample_256_ms": sample_ms}


def rllib(num_transitions: int) -> dict[str, float]:
    """RLlib's buffer of episodes of 64 steps, which hold numpy arrays."""
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode
    from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

    rng = np.random.default_rng(0)
    buffer = EpisodeReplayBuffer(capacity=num_transitions)
    steps = 64

    def episode() -> Any:
        return SingleAgentEpisode(
            observations=list(rng.standard_normal((steps + 1, OBSERVATION), np.float32)),
            actions=list(rng.standard_normal((steps, ACTION), np.float32)),
            rewards=[0.0] * steps,
            truncated=True,
            len_lookback_buffer=0,
        ).to_numpy()

    count = num_transitions // steps
    inserted_s = 0.0
    for _ in range(count):
        added = episode()
        started = time.monotonic()
        buffer.add(added)
        inserted_s += time.monotonic() - started
    samples: list[Callable[[], Any]] = [
        lambda: buffer.sample(batch_size_B=BATCH, batch_length_T=2),
        lambda: buffer.sample(num_items=BATCH, n_step=1, sample_episodes=True, to_numpy=True),
    ]
    return {
        "insert_in_memory_transitions_per_s": count * steps / inserted_s,
        "sample_256_ms": min(_best_ms(sample, 10) for sample in samples),
    }


def _best_ms(action: Callable[[], object], repeats: int) -> float:
    """Median of the best round: other programs of the machine only ever make a round slower."""
    medians = []
    for _ in range(_ROUNDS):
        durations_s = []
        for _ in range(repeats):
            started = time.monotonic()
            action()
            durations_s.append(time.monotonic() - started)
        medians.append(float(np.median(durations_s) * 1e3))
    return min(medians)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=("torchrl", "sb3", "rllib"))
    parser.add_argument("--transitions", type=int, required=True)
    parsed = parser.parse_args()
    result = {"torchrl": torchrl, "sb3": sb3, "rllib": rllib}[parsed.peer](parsed.transitions)
    sys.stdout.write(json.dumps(result) + "\n")
