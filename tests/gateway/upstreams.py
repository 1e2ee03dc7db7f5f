"""A little tracking server: a real listener whose application a test writes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvloop
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from stagewire.gateway.listener import Listener

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from starlette.types import Receive, Scope, Send

#: What one piece of a stream weighs.
PIECE = 64 * 1024


@dataclass
class Tracking:
    """What was asked of it, and what it answers."""

    url: str = ""
    asked: list[Scope] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    #: Pieces sent so far, and whether who took them hung up.
    sent: int = 0
    left: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)
    answers: dict[str, Response] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and remember."""
        self.asked.append(scope)
        answer = self.answers.get(scope["path"])
        if answer is None:
            answer = await self._ways.get(scope["path"], _echo)(self, scope, receive)
        self.arrived.set()
        await answer(scope, receive, send)

    async def _endless(self, scope: Scope, receive: Receive) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * PIECE
                    self.sent += 1
                    # Sending to who is gone waits for nothing.
                    await asyncio.sleep(0)
            finally:
                self.left.set()

        return StreamingResponse(pieces())

    async def _silent(self, scope: Scope, receive: Receive) -> Response:
        self.arrived.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        return Response()

    async def _counting(self, scope: Scope, receive: Receive) -> Response:
        size = 0
        try:
            async for chunk in Request(scope, receive).stream():
                size += len(chunk)
                self.arrived.set()
        finally:
            self.bodies.append(size)
            self.left.set()
        return JSONResponse({"bytes": size})

    async def _broken(self, scope: Scope, receive: Receive) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionError

        return StreamingResponse(pieces(), headers={"content-length": "8"})

    _ways: dict[str, Callable[[Any, Scope, Receive], Awaitable[Response]]] = field(
        default_factory=lambda: {
            "/endless": Tracking._endless,
            "/silent": Tracking._silent,
            "/counting": Tracking._counting,
            "/broken": Tracking._broken,
        }
    )


async def _echo(_tracking: Tracking, scope: Scope, receive: Receive) -> Response:
    body = await Request(scope, receive).body()
    return JSONResponse(
        {
            "method": scope["method"],
            "target": (scope["raw_path"] + b"?" + scope["query_string"]).decode("latin-1"),
            "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
            "body": body.decode("latin-1"),
        }
    )


@contextlib.contextmanager
def running(tracking: Tracking) -> Iterator[Tracking]:
    """Serve it on a thread and a port of its own."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="test-upstream")
    thread.start()

    def call(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    listener = Listener(tracking, "127.0.0.1:0", stop_seconds=1)
    call(listener.start())
    tracking.url = f"http://{listener.address}"
    try:
        yield tracking
    finally:
        call(listener.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
