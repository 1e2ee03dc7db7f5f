"""A real server in a thread of the test process, with its own loop and a free port."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, Self

import uvloop

from stagewire.server.serve import Server
from stagewire.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from types import TracebackType

# A test's server stops at once; the order of stopping stays the real one.
_SWIFT: dict[str, Any] = {
    "drain_seconds": 0.0,
    "goodbye_seconds": 0.1,
    "stop_seconds": 2.0,
    # Most tests say "s3" and mean any source; those about sources set what they are about.
    "source_policy": "permissive",
}

_ANYWHERE = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}


class RunningServer:
    """Start on entering, stop in order on leaving."""

    def __init__(self, database_url: str, **settings: Any) -> None:
        """Serve `database_url` with the product's settings, but for those given."""
        self.settings = Settings(database_url=database_url, **{**_ANYWHERE, **_SWIFT, **settings})
        self.server = Server(self.settings)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-server")

    def __enter__(self) -> Self:
        """Start serving."""
        self._thread.start()
        try:
            self.call(self.server.start())
        except BaseException:
            # As the product does: what listens for a database's news would do so for ever.
            self.call(self.server.abandon())
            self._end_loop()
            raise
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Stop in order."""
        try:
            self.call(self.server.stop())
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.address

    @property
    def http_url(self) -> str:
        """Where it answers HTTP."""
        return self.server.http_url

    def call(self, work: Coroutine[Any, Any, Any], *, timeout_seconds: float = 60) -> Any:
        """Run a coroutine on the server's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_seconds)


@contextlib.contextmanager
def held(server: RunningServer) -> Iterator[None]:
    """Keep SQLite's writer busy, so that writes wait."""
    began, done = threading.Event(), threading.Event()

    def hold(_tx: object) -> None:
        began.set()
        done.wait(30)

    database = server.server.database
    assert database is not None
    thread = threading.Thread(target=database.write, args=(hold,))
    thread.start()
    assert began.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()
