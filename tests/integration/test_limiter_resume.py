"""The update-to-data ratio is exact whatever was interrupted: learners that go on from an older or newer checkpoint."""

import numpy as np
import pytest

from replay.memory_replay import MemoryReplay
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from tests.integration.redis_fixtures import run_id, server  # noqa: F401 - fixtures are used by name
from tests.unit.replay.segments import SPEC, make_segment

BATCH, STARTS, STEPS, CAPACITY = 6, 10, 3, 60
RATIOS = [0.25, 1.0, 1.5, 4.0]


def make_limiter(ratio: float) -> SampleToInsertRatio:
    limiter = SampleToInsertRatio.from_update_ratio(
        updates_per_step=ratio, batch_size=BATCH, learning_starts=STARTS, slack_steps=20
    )
    limiter.check_chunks(largest_insert=STEPS, largest_sample=BATCH)
    return limiter


def lawful_updates(inserted: int, ratio: float) -> int:
    return max(0, int((inserted - STARTS) * ratio))


def learn(replay, rng) -> None:
    """All updates that the law allows now."""
    while replay.can_sample(BATCH):
        replay.sample(BATCH, rng)


def insert(writer, sequence: int) -> None:
    assert writer.poll().can_insert, "the writer waits although the learner has done all it may"
    writer.insert(make_segment(STEPS, sequence=sequence))


@pytest.mark.parametrize("ratio", RATIOS)
def test_lockstep_runs_make_the_same_updates_however_often_they_resume(tmp_path, ratio):
    """Every fifth segment the process dies, having gone on for two segments and their updates after its checkpoint."""
    rng = np.random.default_rng(0)
    limiter, journal = make_limiter(ratio), tmp_path / "journal"
    replay = MemoryReplay(SPEC, limiter, CAPACITY, journal)
    for sequence in range(60):
        insert(replay, sequence)
        learn(replay, rng)
        assert replay.refresh().sampled == BATCH * lawful_updates(STEPS * (sequence + 1), ratio)
        if sequence % 5 == 4:
            state = replay.state()
            for lost in (1, 2):
                insert(replay, sequence + lost)
                learn(replay, rng)
            replay.close()
            replay = MemoryReplay.restore(SPEC, limiter, CAPACITY, journal, state)
    replay.close()


@pytest.mark.redis
@pytest.mark.parametrize("ratio", RATIOS)
def test_a_learner_that_dies_makes_up_for_every_update_it_lost_and_no_more(server, run_id, ratio):  # noqa: F811
    """Actors go on while it is away, up to the slack; about 1 s."""
    rng = np.random.default_rng(0)
    limiter = make_limiter(ratio)
    writer = RedisWriter.connect(server.url, run_id, SPEC, limiter, CAPACITY)
    learner = RedisReplay.connect(server.url, run_id, SPEC, limiter, CAPACITY)
    sampled_at_checkpoint = 0
    for sequence in range(40):
        insert(writer, sequence)
        if sequence % 7 == 6:
            # It dies without a word, and the next one knows what the last checkpoint says.
            learner.close()
            learner = RedisReplay.connect(server.url, run_id, SPEC, limiter, CAPACITY)
            learner.set_sampled(sampled_at_checkpoint)
        learner.refresh()
        learn(learner, rng)
        learner.refresh()
        expected = BATCH * lawful_updates(STEPS * (sequence + 1), ratio)
        assert learner.counts().sampled == writer.poll().counts.sampled == expected
        if sequence % 7 == 2:
            sampled_at_checkpoint = learner.counts().sampled
    learner.close()
    writer.close()
