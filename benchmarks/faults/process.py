"""The processes of the fault bench: a small actor and a small learner on the replay, to be killed.

``python -m benchmarks.faults.process write ACTOR_ID`` and ``… learn LEDGER``; where the replay is comes from the
environment, because a command line can be read by everybody and the URL holds a password.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from replay.errors import ReplayError
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.types import Segment, TransitionSpec

URL, RUN = "HDQNN_FAULTS_URL", "HDQNN_FAULTS_RUN"
SPEC = TransitionSpec(observation_size=4, action_size=1)
"""An observation is (actor, incarnation, sequence, step), so that whatever is sampled says what it is."""
STEPS = 8
CAPACITY = 10**7
BATCH_SIZE = 32
LIMITER = SampleToInsertRatio.from_update_ratio(
    updates_per_step=0.05, batch_size=BATCH_SIZE, learning_starts=64, slack_steps=2_000
)
_PACE_S = 0.02
_WAIT_S = 0.005
_SOCKET_TIMEOUT_S = 1.0
_DEADLINE_S = 30.0


def make_segment(actor_id: int, incarnation: int, sequence: int) -> Segment:
    """The segment that this identity always has."""
    observations = np.full((STEPS + 1, 4), (actor_id, incarnation, sequence, 0), np.float32)
    observations[:, 3] = np.arange(STEPS + 1)
    return Segment(
        actor_id=actor_id,
        incarnation=incarnation,
        sequence=sequence,
        observations=observations,
        actions=np.zeros((STEPS, 1), np.float32),
        rewards=np.full(STEPS, sequence, np.float32),
        discounts=np.ones(STEPS, np.float32),
        circuit_parameters=np.zeros((STEPS, 0), np.float32),
        bits=np.zeros((STEPS, 0), np.uint8),
        policy_versions=np.ones(STEPS, np.uint32),
    )


def write(actor_id: int) -> None:
    """Insert for ever, as fast as the limiter allows and not faster than the pace."""
    writer = RedisWriter.connect(
        os.environ[URL],
        os.environ[RUN],
        SPEC,
        LIMITER,
        CAPACITY,
        deadline_s=_DEADLINE_S,
        socket_timeout_s=_SOCKET_TIMEOUT_S,
    )
    incarnation = writer.register_actor(actor_id)
    sequence = 0
    while True:
        reply = writer.insert(make_segment(actor_id, incarnation, sequence))
        sequence += 1
        time.sleep(_PACE_S)
        while not reply.can_insert:
            time.sleep(_WAIT_S)
            reply = writer.poll()


def learn(ledger: Path) -> None:
    """Sample as much as the limiter allows; SIGTERM ends it.

    ``ledger`` takes one line per segment that a sample touched for the first time, and a last one, ``held``, with every
    transition in the mirror.
    """
    is_told_to_stop = False

    def stop(*_: object) -> None:
        nonlocal is_told_to_stop
        is_told_to_stop = True

    signal.signal(signal.SIGTERM, stop)
    replay = RedisReplay.connect(
        os.environ[URL],
        os.environ[RUN],
        SPEC,
        LIMITER,
        CAPACITY,
        deadline_s=_DEADLINE_S,
        socket_timeout_s=_SOCKET_TIMEOUT_S,
    )
    rng = np.random.default_rng(os.getpid())
    known: set[tuple[int, int, int]] = set()
    with ledger.open("a", buffering=1) as file:
        while not is_told_to_stop:
            replay.refresh()
            made = 0
            while replay.can_sample(BATCH_SIZE) and made < BATCH_SIZE:
                for identity in _identities(replay.sample(BATCH_SIZE, rng).observation) - known:
                    known.add(identity)
                    file.write(f"{' '.join(map(str, identity))}\n")
                made += 1
            if made == 0:
                time.sleep(_WAIT_S)
        replay.refresh()
        file.write(f"held {len(replay)}\n")
    replay.close()


def _identities(observation: Float32[np.ndarray, "B 4"]) -> set[tuple[int, int, int]]:
    return {(int(row[0]), int(row[1]), int(row[2])) for row in observation}


def main(role: str, argument: str) -> int:
    """Run one role; an error of the replay is one line and exit code 1."""
    try:
        write(int(argument)) if role == "write" else learn(Path(argument))
    except ReplayError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
