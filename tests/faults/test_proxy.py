"""The fault proxy does what it says, seen by a plain socket before an echo server."""

import contextlib
import socket
import threading
import time

import pytest

from benchmarks.faults.proxy import FaultProxy


def serve_echo(listener):
    def answer(connection):
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(1000):
                received.append(data)
                connection.sendall(data)

    received = []

    def accept():
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return received


@pytest.fixture
def echo():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        received = serve_echo(listener)
        with FaultProxy(*listener.getsockname()) as proxy:
            yield proxy, received


def connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(client, data=b"?"):
    client.sendall(data)
    return client.recv(1000)


def test_it_passes_everything_on(echo):
    proxy, _ = echo
    with connect(proxy) as client:
        client.sendall(large := bytes(range(256)) * 1000)
        back = b""
        while len(back) < len(large):
            back += client.recv(100_000)
    assert back == large


def test_latency_is_added_to_both_directions(echo):
    proxy, _ = echo
    with connect(proxy) as client:
        ask(client)
        proxy.latency_s = 0.1
        started_s = time.monotonic()
        assert ask(client) == b"?"
        assert 0.2 <= time.monotonic() - started_s < 2


def test_in_the_dark_nothing_passes_and_nothing_is_lost(echo):
    proxy, received = echo
    with connect(proxy) as old:
        ask(old, b"1")
        proxy.is_dark = True
        old.sendall(b"2")
        with connect(proxy) as new:
            new.sendall(b"3")
            time.sleep(0.1)
            assert received == [b"1"]
            proxy.is_dark = False
            assert (old.recv(10), new.recv(10)) == (b"2", b"3")


def test_cut_resets_old_connections_alone(echo):
    proxy, _ = echo
    with connect(proxy) as old:
        ask(old)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            old.recv(10)
    with connect(proxy) as new:
        assert ask(new) == b"?"


def test_half_open_connections_ask_and_never_hear(echo):
    proxy, received = echo
    with connect(proxy) as old:
        ask(old, b"1")
        proxy.half_open()
        old.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(old, b"2")
        assert received == [b"1", b"2"]
    with connect(proxy) as new:
        assert ask(new) == b"?"


def test_a_lost_reply_was_executed(echo):
    proxy, received = echo
    proxy.lose_replies = 1
    with connect(proxy) as client:
        client.sendall(b"1")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    assert (received, proxy.num_lost, proxy.lose_replies) == ([b"1"], 1, 0)


def test_closing_twice_is_fine_also_in_the_dark(echo):
    proxy, _ = echo
    with connect(proxy):
        proxy.is_dark = True
        proxy.close()
        proxy.close()
