"""RedisReplay and MemoryReplay against one plain model, under retries, gaps, restarts and a server killed with -9."""

import os
import signal
import time
from collections import deque
from itertools import count
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from benchmarks.faults.proxy import FaultProxy
from replay.embedded_server import EmbeddedServer
from replay.errors import SequenceGapError
from replay.memory_replay import MemoryReplay
from replay.rate_limiter import SampleToInsertRatio
from replay.redis_replay import RedisReplay
from replay.redis_writer import RedisWriter
from replay.types import ReplayCounts, Segment
from tests.unit.replay.segments import SPEC, assert_same_batch, make_segment

pytestmark = pytest.mark.redis

CAPACITY = 30
LIMITER = SampleToInsertRatio(2.0, 8, 40.0)
ACTORS = st.integers(0, 2)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedServer.start(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(server):
    with FaultProxy("127.0.0.1", urlsplit(server.url).port) as started:
        yield started


class ReplayMachine(RuleBasedStateMachine):
    """The model is a deque of segments and a few integers; whatever is new to it must be new to the replays."""

    run_numbers = count()

    def __init__(self, server: EmbeddedServer, proxy: FaultProxy, run_prefix: str):
        super().__init__()
        self.server = server
        self.run_id = f"{run_prefix}-{next(self.run_numbers)}"
        self.held: deque[Segment] = deque()
        self.sent: dict[tuple[int, int], list[Segment]] = {}
        self.incarnations = {0: 0, 1: 0, 2: 0}
        self.inserted = self.sampled = self.policy_version = self.restarts = 0
        self.memory = MemoryReplay(SPEC, LIMITER, CAPACITY)
        self.proxy = proxy
        self.proxy.lose_replies = 0
        url = f"redis://:{urlsplit(server.url).password}@127.0.0.1:{proxy.port}/0"
        self.writer = RedisWriter.connect(url, self.run_id, SPEC, LIMITER, CAPACITY, deadline_s=10)
        self.learner = self.connect_learner()

    def connect_learner(self) -> RedisReplay:
        return RedisReplay.connect(self.server.url, self.run_id, SPEC, LIMITER, CAPACITY, deadline_s=10)

    def teardown(self):
        self.writer.close()
        self.learner.close()

    @initialize()
    def first_incarnations(self):
        for actor_id in self.incarnations:
            self.register(actor_id)

    @rule(actor_id=ACTORS)
    def register(self, actor_id):
        self.incarnations[actor_id] += 1
        assert self.writer.register_actor(actor_id) == self.incarnations[actor_id]
        assert self.memory.register_actor(actor_id) == self.incarnations[actor_id]
        self.sent[actor_id, self.incarnations[actor_id]] = []

    def next_segment(self, actor_id: int, steps: int, ahead: int = 0) -> Segment:
        incarnation = self.incarnations[actor_id]
        sequence = len(self.sent[actor_id, incarnation]) + ahead
        return make_segment(
            steps, actor_id=actor_id, incarnation=incarnation, sequence=sequence, first=self.inserted + 100 * ahead
        )

    def take(self, segment: Segment) -> None:
        self.sent[segment.actor_id, segment.incarnation].append(segment)
        self.inserted += len(segment)
        self.held.append(segment)
        while sum(map(len, self.held)) > CAPACITY:
            self.held.popleft()

    def check_reply(self, reply, is_new: bool) -> None:
        assert reply.is_new == is_new
        assert reply.counts == ReplayCounts(inserted=self.inserted, sampled=self.sampled)
        assert reply.policy_version == self.policy_version

    @rule(actor_id=ACTORS, steps=st.integers(1, 9))
    def insert(self, actor_id, steps):
        segment = self.next_segment(actor_id, steps)
        replies = [replay.insert(segment) for replay in (self.writer, self.memory)]
        self.take(segment)
        for reply in replies:
            self.check_reply(reply, is_new=True)
        assert replies[0].can_insert == replies[1].can_insert

    @rule(actor_id=ACTORS, lengths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def insert_many(self, actor_id, lengths):
        segments = []
        for steps in lengths:
            segments.append(self.next_segment(actor_id, steps))
            self.take(segments[-1])
        for replay in (self.writer, self.memory):
            self.check_reply(replay.insert_many(segments), is_new=True)

    @rule(actor_id=ACTORS, steps=st.integers(1, 9), num_lost=st.integers(1, 2))
    def insert_without_hearing_of_it(self, actor_id, steps, num_lost):
        """Answers are lost, to the insert or to the log-in of a new connection; the writer asks until it hears one."""
        segment = self.next_segment(actor_id, steps)
        self.proxy.lose_replies = num_lost
        reply = self.writer.insert(segment)
        assert self.memory.insert(segment).is_new
        self.take(segment)
        self.check_reply(reply, is_new=reply.is_new)

    @rule(actor_id=ACTORS, lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), share=st.floats(0, 1))
    def insert_half(self, actor_id, lengths, share):
        """A writer dies before the last byte of its insert is sent: nothing of it has happened."""
        segments = [self.next_segment(actor_id, steps, ahead) for ahead, steps in enumerate(lengths)]
        request = b"".join(bytes(piece) for piece in self.writer._transactions.requests(segments))
        with redis.Redis.from_url(self.server.url) as dying:
            connection = dying.connection_pool.get_connection()
            connection.send_packed_command([request[: int(share * (len(request) - 1))]])
            connection.disconnect()

    @rule()
    def reset_connections(self):
        self.proxy.cut()

    @rule(data=st.data())
    def late_retry(self, data):
        """Of any segment that any incarnation ever stored, also of one that has fallen out."""
        stored = [segment for segments in self.sent.values() for segment in segments]
        if stored:
            segment = data.draw(st.sampled_from(stored))
            for replay in (self.writer, self.memory):
                self.check_reply(replay.insert(segment), is_new=False)

    @rule(actor_id=ACTORS, ahead=st.integers(1, 3))
    def overtake(self, actor_id, ahead):
        segment = self.next_segment(actor_id, 2, ahead)
        for replay in (self.writer, self.memory):
            with pytest.raises(SequenceGapError, match=f"sent sequence {segment.sequence}"):
                replay.insert(segment)

    @rule(version=st.integers(0, 100))
    def publish(self, version):
        self.policy_version = version
        self.learner.announce_policy_version(version)
        self.memory.announce_policy_version(version)

    def refreshed(self) -> ReplayCounts:
        """The learner's counters once server and learner agree; one whose connection was just cut has old ones."""
        expected = ReplayCounts(inserted=self.inserted, sampled=self.sampled)
        deadline_s = time.monotonic() + 5.0
        while True:
            counts = self.learner.refresh()
            if (counts == expected == self.writer.poll().counts) or time.monotonic() > deadline_s:
                return counts
            time.sleep(0.01)

    @rule(batch_size=st.integers(1, 20), seed=st.integers(0, 9))
    def sample(self, batch_size, seed):
        self.refreshed()
        assert self.learner.can_sample(batch_size) == self.memory.can_sample(batch_size)
        if self.learner.can_sample(batch_size):
            batches = [r.sample(batch_size, np.random.default_rng(seed)) for r in (self.learner, self.memory)]
            assert_same_batch(*batches)
            self.sampled += batch_size
            self.refreshed()

    @rule()
    def restart_the_learner(self):
        self.learner.close()
        self.learner = self.connect_learner()

    @precondition(lambda self: self.restarts == 0)
    @rule(chance=st.integers(0, 5))
    def kill_the_server(self, chance):
        if chance == 5:
            self.restarts += 1
            os.kill(self.server.pid, signal.SIGKILL)
            self.server.restart()

    @invariant()
    def everything_held_is_the_same(self):
        counts = ReplayCounts(inserted=self.inserted, sampled=self.sampled)
        assert self.refreshed() == counts
        assert self.memory.refresh() == counts
        expected = [reward for segment in self.held for reward in segment.rewards]
        for replay in (self.learner, self.memory):
            assert replay._mirror.gather(np.arange(len(replay))).reward.tolist() == expected

    @invariant()
    def no_frame_is_left_over(self):
        prefix = f"hdqnn:{{{self.run_id}}}:"
        with redis.Redis.from_url(self.server.url) as client:
            assert not client.keys(f"{prefix}staged:*")
            assert client.exists(*(f"{prefix}segment:{index}" for index in range(200))) == len(self.held)


def test_replays_agree_with_the_model(server, proxy, tmp_path):
    """About 5 s; kills the server a few times."""
    run_state_machine_as_test(
        lambda: ReplayMachine(server, proxy, tmp_path.name),
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
