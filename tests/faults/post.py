"""A proxy that is a bad postman: it carries unary calls, some twice, some late, in no order.

It carries bytes and knows no message. What it has taken in it delivers, also after the caller has
given up: that is how a request arrives after its own repetition.
"""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

if TYPE_CHECKING:
    from types import TracebackType

    Reply = tuple[grpc.StatusCode, bytes]

TWICE = 0.10
LATE = 0.10
#: Longer than the writers of `load` wait for an answer.
TOO_LATE, TOO_LATE_SECONDS = 0.01, 6.0


@dataclass
class Duplicate:
    """One request that was delivered twice, and both replies."""

    method: str
    replies: list[Reply] = field(default_factory=list)


class Post(grpc.GenericRpcHandler):
    """Carries calls to `target` from an address of its own."""

    def __init__(self, target: str, *, seed: int, late_seconds: float) -> None:
        self.address = ""
        self.carried = 0
        self.given_up = 0
        self.duplicates: list[Duplicate] = []
        self._target = target
        self._chance = random.Random(seed)
        self._late_seconds = late_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="post")
        self._under_way: set[asyncio.Task[Reply]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(20)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._channel = grpc.aio.insecure_channel(self._target)
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((self,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def _close(self) -> None:
        await self.delivered()
        await self._server.stop(1)
        await self._channel.close()

    async def delivered(self) -> None:
        """Wait until all that was taken in has been delivered."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def wait_until_delivered(self) -> None:
        """As `delivered`, from another thread."""
        asyncio.run_coroutine_threadsafe(self.delivered(), self._loop).result(60)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Take any call in."""
        return grpc.unary_unary_rpc_method_handler(partial(self._carry, details.method))

    async def _carry(self, method: str, request: bytes, context: Any) -> bytes:
        self.carried += 1
        context.add_done_callback(self._note_end)
        first = self._send(method, request, self._delay())
        if self._chance.random() < TWICE:
            duplicate = Duplicate(method)
            self.duplicates.append(duplicate)
            for task in (first, self._send(method, request, self._late())):
                task.add_done_callback(lambda t: duplicate.replies.append(t.result()))
        # Shielded: a caller who gives up does not call the request back.
        code, answer = await asyncio.shield(first)
        if code is not grpc.StatusCode.OK:
            await context.abort(code, "as the server said")
        return answer

    def _note_end(self, context: Any) -> None:
        self.given_up += context.cancelled()

    def _delay(self) -> float:
        chance = self._chance.random()
        if chance < TOO_LATE:
            return TOO_LATE_SECONDS
        return self._late() if chance < TOO_LATE + LATE else 0.0

    def _late(self) -> float:
        return self._chance.uniform(0, self._late_seconds)

    def _send(self, method: str, request: bytes, delay: float) -> asyncio.Task[Reply]:
        task = asyncio.ensure_future(self._deliver(method, request, delay))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _deliver(self, method: str, request: bytes, delay: float) -> Reply:
        await asyncio.sleep(delay)
        call: Any = self._channel.unary_unary(method)
        try:
            return grpc.StatusCode.OK, await call(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            return error.code(), b""
