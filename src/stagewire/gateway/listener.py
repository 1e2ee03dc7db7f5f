"""HTTP on the server's own loop: a port taken before anything is promised, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from stagewire.gateway.crowds import Crowd

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

_BACKLOG = 2048
#: A request's line and headers: a filter of 10,000 characters, percent-encoded, and some.
_MOST_HEADER_BYTES = 64 * 1024
_IDLE_SECONDS = 75
#: How long a request's line and headers may take; until they are whole, nobody else looks at them.
_HEAD_SECONDS = 30.0
#: One who is refused may take so long to hear it.
_LINGER_SECONDS = 1.0
_LAST_PORT = 65_535
#: A body may be sent in pieces, but so many of them may not be shorter than that: each costs the
#: loop what a piece of any length does, and a megabyte of single letters kept it for two seconds.
_MOST_CRUMBS = 1_000
_CRUMB_BYTES = 256


class _Uvicorn(uvicorn.Server):
    """A server whose signals are another's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it stops its servers in order."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        self.accepting.set()

    accepting: asyncio.Event


class _Reader(h11.Connection):
    """A reader of HTTP that does not take a body crumb by crumb."""

    _crumbs = 0
    _chunk_bytes = 0

    def next_event(self) -> Any:
        """Give what came next. Raises RemoteProtocolError."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._crumbs = 0
        elif isinstance(event, h11.Data):
            self._count(event)
        return event

    def _count(self, part: h11.Data) -> None:
        # A chunk comes in as many parts as the network makes of it.
        self._chunk_bytes = len(part.data) + (0 if part.chunk_start else self._chunk_bytes)
        if part.chunk_end and self._chunk_bytes < _CRUMB_BYTES:
            self._crumbs += 1
            if self._crumbs > _MOST_CRUMBS:
                raise h11.RemoteProtocolError("send the body in larger chunks")


class _Connection(H11Protocol):
    """A connection that is closed on who begins no request, or a request's head and not its end.

    Else anybody could keep as many connections open as the process may have; one more than `crowd`
    lets in is refused before it is listened to.
    """

    _waiting: asyncio.TimerHandle | None = None
    _address: str | None = None
    _refused = False

    def __init__(self, *args: Any, crowd: Crowd, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.conn = _Reader(h11.SERVER, _MOST_HEADER_BYTES)
        self._crowd = crowd

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, unless there are too many connections."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        refusal = self._crowd.enter(address)
        if refusal is not None:
            self._refuse(transport, refusal)
            return
        self._address = address
        self._wait()

    def _refuse(self, transport: asyncio.Transport, refusal: bytes) -> None:
        self._refused = True
        transport.write(refusal)
        if transport.can_write_eof():
            # A request that comes in after the close would be answered by a reset, which can
            # overtake the refusal.
            transport.write_eof()
            self.loop.call_later(_LINGER_SECONDS, transport.abort)
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Take what came; what is no whole head yet does not buy more time."""
        if self._refused:
            return
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        super().connection_lost(exc)
        self._stop_waiting()
        if self._address is not None:
            self._crowd.leave(self._address)
            self._address = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP; whoever works on its beginning learns that nobody waits."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            # An answer was begun, and half of one must not look like a whole one.
            self.transport.close()
        if self._answers:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _wait(self) -> None:
        if self._answers:
            self._stop_waiting()
        elif self._waiting is None and self.timeout_keep_alive_task is None:
            self._waiting = self.loop.call_later(_HEAD_SECONDS, self._give_up)

    @property
    def _answers(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self._answers:
            self.transport.close()


class Listener:
    """One address where an application is served."""

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        *,
        stop_seconds: float,
        tls: ssl.SSLContext | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        """Take the address, `HOST:PORT`, and let in whom `crowd` does.

        Raises OSError or ValueError where it can't be had.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        if int(port) > _LAST_PORT:
            raise ValueError(address)
        self._socket = socket.create_server(
            (host, int(port)),
            family=socket.AF_INET6 if ":" in host else socket.AF_INET,
            backlog=_BACKLOG,
        )
        self.address = f"{address.rpartition(':')[0]}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            # Its parser bounds lines and headers, which the faster one does not.
            http=partial(_Connection, crowd=crowd or Crowd(most=0, most_per_address=0)),  # type: ignore[arg-type]  # it is called, and no more
            h11_max_incomplete_event_size=_MOST_HEADER_BYTES,
            ws="none",
            lifespan="off",
            log_config=None,
            # What it would say, the application's own lines say better.
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=max(1, round(stop_seconds)),
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
        )
        self._server = _Uvicorn(config)
        self._task: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Begin to accept."""
        self._server.accepting = asyncio.Event()
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        await self._server.accepting.wait()

    async def stop(self) -> None:
        """Accept no more, let what runs end, and close."""
        if self._task is None:
            self._socket.close()
            return
        self._server.should_exit = True
        await self._task
