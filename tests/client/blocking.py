"""The asynchronous client seen from a test that blocks, so that one law is told for both."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_PLAIN = (str, bytes, int, float, type(None))


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, make: Callable[[], Any]) -> Any:
        async def go() -> Any:
            value = make()
            return await value if inspect.isawaitable(value) else value

        return asyncio.run_coroutine_threadsafe(go(), self._loop).result(30)

    def stop(self) -> None:
        self.run(self._loop.shutdown_asyncgens)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Blocking:
    """An object of the loop's, each of whose calls is waited for."""

    def __init__(self, loop: Loop, target: Any) -> None:
        self._loop = loop
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = self._loop.run(lambda: getattr(self._target, name))
        return value if isinstance(value, _PLAIN) else Blocking(self._loop, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        value = self._loop.run(lambda: self._target(*args, **kwargs))
        return Blocking(self._loop, value) if hasattr(value, "__anext__") else value

    def __iter__(self) -> Blocking:
        return self

    def __next__(self) -> Any:
        event = self._loop.run(lambda: anext(self._target, None))
        if event is None:
            raise StopIteration
        return event
