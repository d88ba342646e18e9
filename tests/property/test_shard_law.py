"""The law over two to four servers that may be away, stand still, lose answers or lose their last second."""

import dataclasses
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import ReplayConfigError
from replay.rate_limiter import SampleToInsertRatio
from replay.shard_law import Allowances, WithinAllowance
from replay.types import ReplayCounts


@dataclasses.dataclass
class Server:
    inserted: int = 0
    allowance: int = 0
    is_away: bool = False
    """From the learner; its actors go on."""


class Run:
    """Servers with one writer each, and a learner; every step of the law is asked of the real thing."""

    def __init__(self, limiter, num_servers, insert, sample):
        self.limiter, self.insert_size, self.sample_size = limiter, insert, sample
        self.servers = [Server() for _ in range(num_servers)]
        self.known = [0] * num_servers
        self.allowances = Allowances(limiter, [ReplayCounts()] * num_servers)
        self.sampled = 0

    @property
    def inserted(self):
        return sum(server.inserted for server in self.servers)

    def lawful_samples(self, inserted):
        return (inserted - self.limiter.min_size_to_sample) * Fraction(self.limiter.samples_per_insert)

    def may_insert(self, server):
        counts = ReplayCounts(inserted=server.inserted, sampled=server.allowance)
        return WithinAllowance().can_insert(counts, self.insert_size)

    def insert(self, number):
        if self.may_insert(self.servers[number]):
            self.servers[number].inserted += self.insert_size

    def refresh(self, loses_answer=lambda: False):
        for number, server in enumerate(self.servers):
            offer = self.allowances.offer(number, self.sampled)
            if server.is_away:
                continue
            server.allowance = offer
            if loses_answer():
                continue
            self.allowances.heard(number, ReplayCounts(inserted=server.inserted, sampled=server.allowance))
            self.known[number] = server.inserted

    def may_sample(self):
        counts = ReplayCounts(inserted=sum(self.known), sampled=self.sampled)
        return self.limiter.can_sample(counts, self.sample_size)

    def learn(self):
        while self.may_sample():
            self.sampled += self.sample_size

    def check(self):
        assert self.inserted <= self.allowances.total(self.sampled), "the actors ran ahead of the law"
        assert self.sampled <= max(0, self.lawful_samples(self.inserted)), "the learner led"


@st.composite
def runs(draw):
    num_servers, insert, sample = draw(st.integers(2, 4)), draw(st.integers(1, 40)), draw(st.integers(1, 300))
    updates_per_step = draw(st.sampled_from([0.25, 0.5, 1.0, 1.7, 4.0]))
    # The least slack that is allowed, or more.
    least = num_servers * (insert + 1 / updates_per_step)
    limiter = SampleToInsertRatio.from_update_ratio(
        updates_per_step=updates_per_step,
        batch_size=sample,
        learning_starts=draw(st.integers(1, 500)),
        slack_steps=max(2, least + draw(st.sampled_from([0, 0, 1, 100]))) + 1e-6,
    )
    limiter.check_chunks(largest_insert=num_servers * insert, largest_sample=num_servers * sample)
    return Run(limiter, num_servers, insert, sample)


@given(run=runs(), seed=st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_the_law_holds_and_nobody_waits_for_ever(run, seed):
    """Random steps in any order; then, with any of the servers away, those that are there still get their turn."""
    rng = random.Random(seed)
    for _ in range(150):
        step, server = rng.randrange(5), rng.choice(run.servers)
        if step <= 1:
            for _ in range(rng.randint(1, 30)):
                run.insert(run.servers.index(server))
        elif step == 2:
            server.is_away = not server.is_away
        elif step == 3:
            run.refresh(lambda: rng.random() < 0.2)
        else:
            for _ in range(rng.randint(1, 5)):
                if run.may_sample():
                    run.sampled += run.sample_size
        run.check()
    run.servers[rng.randrange(len(run.servers))].is_away = False
    for _ in range(2):
        run.refresh()
        run.learn()
        run.check()
    run.refresh()
    if not run.may_sample():
        assert all(run.may_insert(server) for server in run.servers if not server.is_away)


@given(run=runs(), dead=st.integers(0, 3), is_away=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_dead_server_takes_no_part_of_the_ratio_with_it(run, dead, is_away, seed):
    """Its actors never insert again; the others go on for 50 times the slack, and the ratio comes out to the update."""
    rng = random.Random(seed)
    run.refresh()
    dead %= len(run.servers)
    run.insert(dead)
    run.servers[dead].is_away = is_away
    alive = [number for number in range(len(run.servers)) if number != dead]
    window = 2 * run.limiter.error_buffer / run.limiter.samples_per_insert
    goal = run.limiter.min_size_to_sample + 50 * window
    for _ in range(20_000):
        if run.inserted >= goal:
            break
        for number in alive:
            for _ in range(rng.randint(0, 3)):
                run.insert(number)
        run.refresh()
        run.learn()
        run.check()
    assert run.inserted >= goal, "the others stood still"
    assert 0 <= run.lawful_samples(sum(run.known)) - run.sampled < run.sample_size


@given(run=runs(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_a_server_that_lost_its_last_second_and_a_learner_from_an_old_checkpoint(run, seed):
    """Both make what was dealt out too much; one refresh mends it, and nobody waits for ever."""
    rng = random.Random(seed)
    for _ in range(30):
        for number in range(len(run.servers)):
            run.insert(number)
        run.refresh()
        run.learn()
    victim = rng.choice(run.servers)
    victim.inserted -= min(victim.inserted, run.insert_size * rng.randint(0, 5))
    run.sampled -= min(run.sampled, run.sample_size * rng.randint(0, 5))
    run.allowances = Allowances(
        run.limiter, [ReplayCounts(inserted=s.inserted, sampled=s.allowance) for s in run.servers]
    )
    for _ in range(2):
        run.refresh()
    total = run.allowances.total(run.sampled)
    assert sum(max(s.inserted, s.allowance) for s in run.servers) <= max(total, run.inserted)
    run.learn()
    run.refresh()
    assert not run.may_sample()
    assert all(run.may_insert(server) for server in run.servers)


def test_with_less_slack_than_allowed_a_server_that_is_away_can_stop_the_others():
    """The bound is not an excess of caution: half of the slack for each of two must do for one alone."""
    stopped = 0
    for slack in range(6, 22):
        limiter = SampleToInsertRatio.from_update_ratio(
            updates_per_step=1.0, batch_size=8, learning_starts=1, slack_steps=slack
        )
        run = Run(limiter, 2, 10, 8)
        run.refresh()
        run.refresh()
        run.servers[1].is_away = True
        for _ in range(50):
            run.insert(0)
            run.refresh()
            run.learn()
        is_stopped = run.inserted < 100
        try:
            limiter.check_chunks(largest_insert=2 * 10, largest_sample=2 * 8)
        except ReplayConfigError:
            stopped += is_stopped
        else:
            assert not is_stopped
    assert stopped > 0


def test_a_learner_that_may_lead_is_refused():
    with pytest.raises(
        ReplayConfigError, match=r"a learner that never leads, got centre_shift 0\.0 below error_buffer"
    ):
        Allowances(SampleToInsertRatio(2.0, 8, 40.0), [ReplayCounts()] * 2)
