"""A TCP proxy that fails on command: slow, dark, cut, half-open, replies lost. Needs no rights and no other program."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self

_CHUNK_BYTES = 65_536
_CHUNKS_UNDER_WAY = 64
_LOOK_PERIOD_S = 0.01
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST, as a crashed host's successor does."""

Tap = Callable[[int, bool, bytes], None]
"""Called with (number of the connection, whether the bytes go to the client, bytes) before they are passed on."""


class FaultProxy:
    """Stands before one server; every attribute may be changed while it runs.

    Args:
        host: of the server.
        port: of the server; may be changed through ``upstream``.
        tap: sees all bytes that are passed on.
    """

    def __init__(self, host: str, port: int, tap: Tap | None = None) -> None:
        self.upstream = (host, port)
        self.latency_s = 0.0
        """Each chunk arrives this much later, in each direction."""
        self.is_dark = False
        """Nothing passes, in no direction, and nobody is told; what was sent arrives when it is light again."""
        self.lose_replies = 0
        """So many next replies vanish after the server executed the request; their connections are cut."""
        self.num_lost = 0
        self._tap = tap or (lambda *_: None)
        self._links: set[_Link] = set()
        self._num_links = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset every connection; new ones work."""
        self._call(self._each(_Link.reset))

    def half_open(self) -> None:
        """No connection brings an answer any more and none is closed; requests still run, and new connections work."""
        self._call(self._each(_Link.fall_silent))

    def close(self) -> None:
        """Cut everything and stop; calling it twice is fine."""
        if self._loop.is_closed():
            return
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30.0)

    async def _each(self, action: "Callable[[_Link], None]") -> None:
        for link in list(self._links):
            action(link)

    async def _stop(self) -> None:
        self._server.close()
        await self._each(_Link.reset)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(self._num_links, [writer])
        self._num_links += 1
        self._links.add(link)
        try:
            while self.is_dark:
                await asyncio.sleep(_LOOK_PERIOD_S)
            server_reader, server_writer = await asyncio.open_connection(*self.upstream)
            link.writers.append(server_writer)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(link, reader, server_writer, is_reply=False))
                both.create_task(self._pump(link, server_reader, writer, is_reply=True))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # an end went away, or the proxy closes
        finally:
            link.reset()
            self._links.discard(link)

    async def _pump(
        self, link: "_Link", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY)

        async def receive() -> None:
            data = b"more"
            while data:
                data = await reader.read(_CHUNK_BYTES)
                await under_way.put((self._loop.time() + self.latency_s, data))

        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            while True:
                due_s, data = await under_way.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                while self.is_dark or (is_reply and link.is_silent):
                    await asyncio.sleep(_LOOK_PERIOD_S)
                if is_reply and data and self.lose_replies > 0:
                    self.lose_replies -= 1
                    self.num_lost += 1
                    data = b""
                if not data:
                    raise ConnectionResetError("one end closed the connection")
                self._tap(link.number, is_reply, data)
                writer.write(data)
                await writer.drain()


class _Link:
    """One client's connection through the proxy."""

    def __init__(self, number: int, writers: list[asyncio.StreamWriter]) -> None:
        self.number = number
        self.writers = writers
        self.is_silent = False

    def reset(self) -> None:
        """Close both ends with RST."""
        for writer in self.writers:
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def fall_silent(self) -> None:
        """Pass no answer on any more, and close nothing."""
        self.is_silent = True
