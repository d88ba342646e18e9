"""Every seed of a run from its one seed: independent streams by purpose and index."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a seed is for; the numbers are part of a run's identity and never change."""

    LEARNER = 0
    REPLAY_SAMPLING = 1
    EXPLORATION = 2
    ENVIRONMENT = 3
    ACTING_CIRCUITS = 4
    EVALUATION_EPISODES = 5
    EVALUATION_CIRCUITS = 6
    AGENT_EPISODES = 20
    AGENT_CIRCUITS = 21


def derive_seed(run_seed: int, stream: Stream, *indices: int) -> int:
    """A 63-bit seed that depends on the run, the purpose and the indices, such as (actor, incarnation)."""
    words = np.random.SeedSequence([run_seed, int(stream), *indices]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def derive_rng(run_seed: int, stream: Stream, *indices: int) -> np.random.Generator:
    """A generator seeded with ``derive_seed``."""
    return np.random.default_rng(derive_seed(run_seed, stream, *indices))
