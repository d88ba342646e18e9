"""A TCP proxy that can lose replies: the request arrives and is executed, then the connection is cut."""

import contextlib
import socket
import threading


class LossyProxy:
    """Forwards bytes both ways; with ``lose_replies = n`` the next n replies are dropped and their connections cut."""

    def __init__(self, host: str, port: int) -> None:
        self.lose_replies = 0
        self.num_lost = 0
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._upstream)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink, source is server), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_reply and self.lose_replies > 0:
                    self.lose_replies -= 1
                    self.num_lost += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
