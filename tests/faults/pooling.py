"""A proxy before PostgreSQL that keeps notifications back, as one that pools transactions does."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa

if TYPE_CHECKING:
    from types import TracebackType

_NOTIFICATION = b"A"
_HEADER = struct.Struct(">cI")


class Proxy:
    """Forwards connections on a port of loopback to a server's Unix socket, less notifications."""

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url)
        self._target = f"{url.query['host']}/.s.PGSQL.{url.port or 5432}"
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        #: Where a registry reaches its database through this.
        plain = {"sslmode": "disable", "gssencmode": "disable"}
        self.url = url.set(host="127.0.0.1", port=port, query=plain).render_as_string(
            hide_password=False
        )
        self.kept_back = 0
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        for one in (self._listener, *self._open):
            # Wakes whoever waits for it; closing alone would not.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _begin(self, work: object, *ends: socket.socket) -> None:
        thread = threading.Thread(target=work, args=ends, name="proxy")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            self._begin(self._forward, client, server)
            self._begin(self._filter, server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        """Pass bytes on as they come, to the end of either side."""
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _filter(self, source: socket.socket, target: socket.socket) -> None:
        """Pass messages on whole, but notifications."""
        waiting = b""
        with suppress(OSError):
            while data := source.recv(65536):
                waiting += data
                waiting, passed = self._split(waiting)
                target.sendall(passed)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _split(self, waiting: bytes) -> tuple[bytes, bytes]:
        passed = b""
        while len(waiting) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(waiting)
            if len(waiting) < 1 + length:
                break
            message, waiting = waiting[: 1 + length], waiting[1 + length :]
            if kind == _NOTIFICATION:
                self.kept_back += 1
            else:
                passed += message
        return waiting, passed
