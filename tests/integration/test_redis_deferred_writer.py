"""Inserts whose answer is read later: once each, in order, whatever happens to server and connection meanwhile."""

import os
import signal
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.faults.proxy import FaultProxy
from replay.deferred_writer import DeferredWriter
from replay.embedded_server import EmbeddedServer
from replay.errors import InvalidSegmentError, ReplayUnreachableError, SequenceGapError
from replay.redis_writer import RedisWriter
from tests.integration.redis_fixtures import (  # noqa: F401 - fixtures are used by name
    CAPACITY,
    LIMITER,
    client,
    held_rewards,
    kill_and_restart,
    learner,
    run_id,
    server,
    wait_for_the_end,
    writer,
)
from tests.unit.replay.segments import SPEC, make_segment

pytestmark = pytest.mark.redis


@pytest.fixture
def deferred(writer):
    return DeferredWriter(writer, LIMITER)


def segment(sequence, steps=4):
    return make_segment(steps, sequence=sequence, first=4 * sequence)


def test_everything_is_stored_once_and_in_order(deferred, learner):
    for sequence in range(0, 9, 3):
        deferred.insert_many([segment(s) for s in range(sequence, sequence + 3)])
    deferred.insert(segment(9))
    deferred.flush()
    assert learner.refresh().inserted == 40
    assert held_rewards(learner) == list(range(40))


def test_the_answer_is_not_waited_for(deferred, client, learner):
    # Scripts and writes wait; a pause of all commands would hold back the one that ends it, too.
    client.client_pause(60_000, all=False)
    deferred.insert(segment(0))
    client.client_unpause()
    deferred.flush()
    assert learner.refresh().inserted == 4


def test_what_is_under_way_counts_and_the_law_holds_as_for_a_writer_that_waits(deferred, server, run_id):
    plain = RedisWriter.connect(server.url, f"{run_id}-plain", SPEC, LIMITER, CAPACITY)
    for sequence in range(8):
        expected = plain.insert(segment(sequence))
        reply = deferred.insert(segment(sequence))
        assert (reply.counts, reply.can_insert) == (expected.counts, expected.can_insert)
    assert not reply.can_insert
    assert deferred.poll() == plain.poll()
    plain.close()


def test_versions_of_the_policy_arrive_one_insert_later(deferred, learner):
    learner.announce_policy_version(7)
    assert deferred.insert(segment(0)).policy_version == 0
    assert deferred.insert(segment(1)).policy_version == 7


@pytest.mark.parametrize("lost", [1, 2])
def test_lost_answers_store_once(server, run_id, learner, lost):
    target = urlsplit(server.url)
    proxy = FaultProxy(target.hostname, target.port)
    url = f"redis://:{target.password}@127.0.0.1:{proxy.port}/0"
    writer = RedisWriter.connect(url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=10, socket_timeout_s=0.5)
    deferred = DeferredWriter(writer, LIMITER)
    deferred.insert(segment(0))
    deferred.flush()
    proxy.lose_replies = lost
    deferred.insert_many([segment(s) for s in (1, 2, 3)])
    deferred.insert(segment(4))
    deferred.flush()
    assert proxy.num_lost == lost
    assert learner.refresh().inserted == 20
    assert held_rewards(learner) == list(range(20))
    deferred.close()


@pytest.mark.parametrize("moment", ["before", "under way"])
def test_a_killed_server_loses_nothing(server, deferred, learner, moment):
    deferred.insert(segment(0))
    deferred.flush()
    if moment == "under way":
        deferred.insert_many([segment(1), segment(2)])
        kill_and_restart(server)
    else:
        kill_and_restart(server)
        deferred.insert_many([segment(1), segment(2)])
    deferred.insert(segment(3))
    deferred.flush()
    assert learner.refresh().inserted == 16
    assert held_rewards(learner) == list(range(16))


def test_a_server_that_forgot_its_scripts_is_taught_again(deferred, client, learner):
    deferred.insert(segment(0))
    deferred.flush()
    client.script_flush()
    deferred.insert_many([segment(1), segment(2)])
    deferred.flush()
    assert learner.refresh().inserted == 12


def test_a_server_that_stays_away_is_an_error_until_it_is_back(tmp_path, run_id):
    with EmbeddedServer.start(tmp_path) as own:
        plain = RedisWriter.connect(own.url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=0.2)
        deferred = DeferredWriter(plain, LIMITER)
        os.kill(own.pid, signal.SIGKILL)
        wait_for_the_end(own)
        deferred.insert(segment(0))
        with pytest.raises(ReplayUnreachableError):
            deferred.insert(segment(1))
        own.restart()
        assert deferred.insert(segment(1)).counts.inserted == 8
        assert deferred.poll().counts.inserted == 8
        deferred.close()


def test_a_bad_segment_is_refused_and_nothing_of_its_insert_is_sent(deferred, learner):
    bad = segment(1)
    bad.rewards[0] = np.nan
    with pytest.raises(InvalidSegmentError, match="rewards"):
        deferred.insert_many([segment(0), bad])
    deferred.insert(segment(0))
    deferred.flush()
    assert learner.refresh().inserted == 4


def test_a_gap_is_told_by_the_next_call(deferred):
    deferred.insert(segment(1))
    with pytest.raises(SequenceGapError):
        deferred.flush()


def test_unread_answers_never_meet_the_next_command(deferred, client):
    client.config_set("maxmemory", "1")
    deferred.insert_many([segment(0), segment(1)])
    client.config_set("maxmemory", "0")
    assert deferred.insert(segment(2)).counts.inserted == 12
    assert deferred.poll().counts.inserted == 12


def test_closing_twice_is_fine(deferred):
    deferred.insert(segment(0))
    deferred.close()
    deferred.close()
