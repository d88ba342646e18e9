"""Frames on their way into the replay: whatever ends an insert early, nothing of it stays on the server."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import redis

from replay import insert_transaction
from replay.codec import frame_bytes
from replay.embedded_server import EmbeddedServer
from replay.errors import InvalidSegmentError, ReplayError, ReplayFullError, ReplayLostError, SequenceGapError
from replay.redis_writer import RedisWriter
from tests.integration.redis_fixtures import (  # noqa: F401 - fixtures are used by name
    CAPACITY,
    LIMITER,
    client,
    held_rewards,
    learner,
    run_id,
    server,
    wait_for_the_end,
    writer,
)
from tests.unit.replay.segments import SPEC, make_segment

pytestmark = pytest.mark.redis


def segments(*sequences):
    return [make_segment(4, sequence=sequence, first=4 * sequence) for sequence in sequences]


def everything(client, run_id):
    """All keys of the run with their values, as DUMP writes them."""
    return {key: client.dump(key) for key in client.keys(f"hdqnn:{{{run_id}}}:*")}


def staged(client):
    return client.keys("*:staged:*")


def test_a_batch_of_several_transactions_is_stored_in_order(writer, learner, monkeypatch):
    monkeypatch.setattr(insert_transaction, "_TRANSACTION_BYTES", 3 * frame_bytes(4, SPEC))
    request = b"".join(bytes(piece) for piece in writer._transactions.requests(segments(*range(7))))
    assert request.count(b"EXEC") == 3
    assert writer.insert_many(segments(*range(7))).counts.inserted == 28
    learner.refresh()
    assert held_rewards(learner) == list(range(28))


@pytest.mark.parametrize("num_bytes", [0, 500], ids=["each frame sent by itself", "in pieces"])
def test_pieces_make_the_same_request(writer, monkeypatch, num_bytes):
    def request():
        # Longer ones first, so that the buffer holds old bytes.
        return [bytes(piece) for piece in writer._transactions.requests([make_segment(9), *segments(1, 2, 3)])]

    whole = request()
    monkeypatch.setattr(insert_transaction, "_SEND_BYTES", num_bytes)
    pieces = request()
    assert len(whole) == 1 < len(pieces)
    assert b"".join(pieces) == whole[0]


def test_repeated_segments_and_gaps_change_nothing(writer, client, run_id):
    writer.insert_many(segments(0, 1, 2))
    before = everything(client, run_id)
    assert not writer.insert_many(segments(0, 1, 2)).is_new
    with pytest.raises(SequenceGapError):
        writer.insert_many(segments(4, 5))
    assert everything(client, run_id) == before
    assert writer.insert_many(segments(1, 2, 3)).is_new
    assert not staged(client)


def test_another_data_set_refuses_and_keeps_nothing(writer, client, run_id):
    client.hset(writer.dataset.meta_key, "dataset_id", "another")
    before = everything(client, run_id)
    with pytest.raises(ReplayLostError):
        writer.insert_many(segments(0, 1))
    assert everything(client, run_id) == before


def test_a_server_without_room_refuses_first(server, client, run_id):
    writer = RedisWriter.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=0.1)
    writer.insert_many(segments(0))
    before = everything(client, run_id)
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(ReplayFullError):
            writer.insert_many(segments(1, 2))
    finally:
        client.config_set("maxmemory", "0")
    assert everything(client, run_id) == before
    assert writer.insert_many(segments(1, 2)).counts.inserted == 12
    writer.close()


def test_a_server_that_forgot_its_scripts_keeps_nothing_of_the_first_try(writer, client):
    writer.insert_many(segments(0))
    client.script_flush()
    request = b"".join(bytes(piece) for piece in writer._transactions.requests(segments(1, 2)))
    connection = writer.dataset.session.client.connection_pool.get_connection()
    connection.send_packed_command([request])
    with pytest.raises(redis.exceptions.NoScriptError):
        writer._transactions.read(connection, segments(1, 2))
    assert not staged(client)
    # The answers were all taken.
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    writer.dataset.session.client.connection_pool.release(connection)
    assert writer.insert_many(segments(1, 2)).counts.inserted == 12


def test_the_script_refuses_where_no_frame_is_staged(writer, client, run_id):
    writer.insert_many(segments(0))
    before = everything(client, run_id)
    transactions, dataset = writer._transactions, writer.dataset
    client.set(f"{dataset.staging_prefix}0", "frame")
    keys = (*transactions._keys, *(f"{dataset.staging_prefix}{number}" for number in (0, 1)))
    arguments = (*transactions._constants, "0:1", 1, 4, 0, "0:1", 2, 4, 0)
    with pytest.raises(ReplayError, match="no frame was staged"):
        dataset.session.call(dataset.session.script(transactions.script, keys, *arguments))
    client.delete(f"{dataset.staging_prefix}0")
    assert everything(client, run_id) == before


def test_a_connection_that_dies_half_way_leaves_nothing(writer, client, learner, run_id):
    writer.insert_many(segments(0))
    before = everything(client, run_id)
    request = b"".join(bytes(piece) for piece in writer._transactions.requests(segments(1, 2)))
    for length in [*np.linspace(1, len(request) - 1, 40, dtype=int), len(request) - 1]:
        connection = writer.dataset.session.client.connection_pool.get_connection()
        connection.send_packed_command([request[:length]])
        connection.disconnect()
        writer.dataset.session.client.connection_pool.release(connection)
        assert everything(client, run_id) == before
    writer.insert_many(segments(1, 2))
    assert learner.refresh().inserted == 12
    assert held_rewards(learner) == list(range(12))
    assert not staged(client)


def test_a_bad_segment_in_the_middle_leaves_nothing_and_the_writer_goes_on(writer, client, run_id, monkeypatch):
    monkeypatch.setattr(insert_transaction, "_SEND_BYTES", 0)
    bad = segments(2)[0]
    bad.rewards[0] = np.nan
    before = everything(client, run_id)
    with pytest.raises(InvalidSegmentError, match="rewards"):
        writer.insert_many([*segments(0, 1), bad])
    assert everything(client, run_id) == before
    assert writer.insert_many(segments(0, 1, 2)).counts.inserted == 12


def test_a_file_that_ends_within_an_insert_is_read_up_to_the_one_before(tmp_path):
    """As after a power cut: the append-only file has only a part of the last transaction."""
    with EmbeddedServer.start(tmp_path) as own, redis.Redis.from_url(own.url) as client:
        file = next(tmp_path.glob("appendonlydir/*.incr.aof"))
        writer = RedisWriter.connect(own.url, "run", SPEC, LIMITER, CAPACITY, deadline_s=10)
        writer.insert_many(segments(0, 1))
        before, start = everything(client, "run"), file.stat().st_size
        writer.insert_many(segments(2, 3))
        end = file.stat().st_size
        for length in np.linspace(start + 1, end - 1, 6, dtype=int):
            os.kill(own.pid, signal.SIGKILL)
            wait_for_the_end(own)
            os.truncate(file, length)
            own.restart()
            assert everything(client, "run") == before
            writer.insert_many(segments(2, 3))
            assert writer.poll().counts.inserted == 16
            assert not staged(client)
        writer.close()


def test_writers_of_one_run_share_the_staging_keys(writer, server, run_id, client, learner):
    other = RedisWriter.connect(server.url, run_id, SPEC, LIMITER, CAPACITY, deadline_s=10)
    started = writer.start_insert(segments(0, 1))
    other.insert_many([replace(segment, actor_id=1) for segment in segments(0, 1)])
    writer.finish_insert(started)
    assert learner.refresh().inserted == 16
    assert sorted(held_rewards(learner)) == sorted([*range(8), *range(8)])
    assert not staged(client)
    other.close()
