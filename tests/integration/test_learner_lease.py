"""One learner per run on a server: a copy of a run directory waits for the death of the original, or is refused."""

import time

import pytest
import redis

from replay.embedded_server import EmbeddedServer
from replay.errors import ReplayConfigError
from replay.learner_lease import LearnerLease, hold_lease
from replay.redis_session import RedisSession
from tests.integration.redis_fixtures import client, kill_and_restart, run_id, server  # noqa: F401 - used by name

pytestmark = pytest.mark.redis
DURATION_S = 0.8


@pytest.fixture
def session(server):  # noqa: F811 - fixture
    opened = RedisSession(server.url, deadline_s=10)
    yield opened
    opened.close()


@pytest.fixture
def take(session, run_id):  # noqa: F811 - fixture
    """Takes leases and stops them at the end."""
    taken = []

    def acquire(holder, run=run_id):
        lease = LearnerLease(session, run, holder, duration_s=DURATION_S)
        taken.append(lease)
        lease.acquire()
        return lease

    yield acquire
    for lease in taken:
        lease.close()


def test_a_copy_is_refused_while_the_original_lives(take):
    original = take("/runs/a on one")
    with pytest.raises(ReplayConfigError, match=r"another learner works on .*: /runs/a on one; .*: /runs/b .*a copy"):
        take("/runs/b on one")
    original.poll()


def test_a_copy_goes_on_once_the_original_is_dead_and_the_original_at_once(take):
    original = take("a")
    original.close(gives_back=False)
    started_s = time.monotonic()
    take("a").close(gives_back=False)
    assert time.monotonic() - started_s < 0.5 * DURATION_S
    take("b")
    assert 0.5 * DURATION_S < time.monotonic() - started_s < 3 * DURATION_S


def test_a_run_that_ends_gives_it_back_and_runs_count_apart(server, take, run_id):  # noqa: F811 - fixtures
    with hold_lease(server.url, run_id, "a", duration_s=600.0) as lease:
        take("b", run="another")
        lease.poll()
    take("b").poll()


def test_who_was_asleep_for_too_long_hears_that_another_took_it(take, client, run_id):  # noqa: F811 - fixtures
    original = take("a")
    client.set(f"hdqnn:{{{run_id}}}:learner", "b", px=60_000)
    time.sleep(DURATION_S / 2)
    with pytest.raises(ReplayConfigError, match=r"another learner works on .*: b; expected only this one: a"):
        original.poll()
    original.close()
    assert client.get(f"hdqnn:{{{run_id}}}:learner") == b"b", "gave back what was not its own"


def test_a_server_that_dies_costs_nobody_the_lease(server, take):  # noqa: F811 - fixture
    original = take("a")
    kill_and_restart(server)
    time.sleep(DURATION_S)
    original.poll()
    with pytest.raises(ReplayConfigError):
        take("b")


def test_a_full_server_keeps_the_lease_of_a_learner_that_lives(take, client, run_id):  # noqa: F811 - fixtures
    original = take("a")
    client.config_set("maxmemory", 1000)
    try:
        time.sleep(2 * DURATION_S)
        assert client.get(f"hdqnn:{{{run_id}}}:learner") == b"a"
    finally:
        client.config_set("maxmemory", 0)
    original.poll()


def test_every_server_of_a_run_knows_its_learner(server, tmp_path, client, run_id):  # noqa: F811 - fixtures
    key = f"hdqnn:{{{run_id}}}:learner"
    with EmbeddedServer.start(tmp_path) as other, redis.Redis.from_url(other.url) as second:
        with hold_lease(f"{server.url},{other.url}", run_id, "a", duration_s=DURATION_S) as lease:
            assert [each.get(key) for each in (client, second)] == [b"a", b"a"]
            lease.poll()
            second.set(key, "b", px=60_000)
            time.sleep(DURATION_S / 2)
            with pytest.raises(ReplayConfigError, match=r"another learner works on .*: b; expected only this one: a"):
                lease.poll()
        assert [each.get(key) for each in (client, second)] == [None, b"b"]
        with pytest.raises(ReplayConfigError), hold_lease(f"{server.url},{other.url}", run_id, "a", duration_s=0.2):
            pytest.fail("learned beside another learner")
        assert client.get(key) is None, "kept the lease of a run that did not start"
