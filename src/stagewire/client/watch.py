"""Watches: iterators over the log that outlive the streams they read from.

A watch resumes by itself from its last cursor, so a restarted server, a cut cable or a stream
that ended in order are pauses in the iteration and nothing else. It ends when it is closed, or
with a refusal that waiting can't mend.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from stagewire.client import errors, statuses
from stagewire.client.follower import STREAM_DEADLINE_SECONDS, Event, Follower

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType
    from typing import Self

    from stagewire import pb

_log = logging.getLogger("stagewire.client")


class _Followed:
    """What both kinds of watch know of where they stand."""

    _follower: Follower

    @property
    def cursor(self) -> bytes:
        """Where to resume after the last event handed out; empty before the first."""
        return self._follower.cursor

    @property
    def log_id(self) -> str:
        """Identity of the log; empty before the first stream."""
        return self._follower.log_id

    @property
    def session(self) -> int:
        """The present stream's session, for ReportStatus."""
        return self._follower.session

    @property
    def head_revision(self) -> int:
        """The log's newest revision when the present stream began."""
        return self._follower.head_revision


class _Silence:
    """Cancels a call that says nothing for too long while somebody listens to it."""

    def __init__(self, call: Any, follower: Follower) -> None:
        # Not the watch itself: a thread that held it would keep a forgotten watch alive.
        self._call = call
        self._follower = follower
        self._look = threading.Event()
        self._over = False
        self._since: float | None = None
        self.broken = False
        threading.Thread(target=self._guard, name="stagewire-watch-silence", daemon=True).start()

    def listen(self) -> None:
        self._since = time.monotonic()

    def heard(self, message: pb.WatchResponse | None) -> None:
        self._since = None
        if message is not None and message.HasField("hello"):
            self._look.set()  # the limit may be shorter than what the guard waits for

    def end(self) -> None:
        self._over = True
        self._look.set()

    def _guard(self) -> None:
        while not self._over:
            since, limit = self._since, self._follower.silence_seconds
            # Nobody listens while an event is being worked on: that is no fault of the stream's.
            pause = limit / 3 if since is None else since + limit - time.monotonic()
            if pause <= 0:
                self.broken = True
                self._call.cancel()
                return
            self._look.wait(pause)
            self._look.clear()


class Watch(_Followed):
    """An iterator over `Snapshot`, `pb.Transaction` and `pb.Bookmark`.

    For one thread, save `close`, which ends the iteration from any.
    """

    def __init__(
        self,
        begin: Callable[..., Any],
        follower: Follower,
        *,
        reconnect: bool = True,
    ) -> None:
        """Keep the call that begins a stream; none begins before the first event is asked for."""
        self._begin = begin
        self._follower = follower
        self._reconnect = reconnect
        self._closed = threading.Event()
        self._call: Any = None
        self._iterator = self._events()

    def __enter__(self) -> Self:
        """Return the watch itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __iter__(self) -> Iterator[Event]:
        """Return the watch itself."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event; raises the refusals that waiting can't mend."""
        return next(self._iterator)

    def close(self) -> None:
        """End the iteration; may be called from any thread, also twice."""
        self._closed.set()
        call = self._call
        if call is not None:
            call.cancel()

    def _events(self) -> Iterator[Event]:
        while not self._closed.is_set():
            failure = yield from self._stream()
            if self._closed.is_set():
                return
            if not self._reconnect:
                if failure is not None:
                    raise failure
                return
            pause = self._follower.pause(failure)
            _tell(failure, pause)
            self._closed.wait(pause)

    def _stream(self) -> Any:
        call = self._begin(
            self._follower.request(),
            timeout=STREAM_DEADLINE_SECONDS,
            wait_for_ready=True,
        )
        self._call = call
        if self._closed.is_set():
            call.cancel()
        silence = _Silence(call, self._follower)
        try:
            while True:
                silence.listen()
                message = next(call, None)
                event = None if message is None else self._follower.receive(message)
                silence.heard(message)
                if message is None:
                    return None
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            if silence.broken:
                return _silent(self._follower)
            return statuses.of(error)
        except errors.SnapshotDamaged as error:
            return error
        finally:
            silence.end()
            call.cancel()


class AsyncWatch(_Followed):
    """An asynchronous iterator over `Snapshot`, `pb.Transaction` and `pb.Bookmark`."""

    def __init__(
        self,
        begin: Callable[..., Any],
        follower: Follower,
        *,
        reconnect: bool = True,
    ) -> None:
        """Keep the call that begins a stream; none begins before the first event is asked for."""
        self._begin = begin
        self._follower = follower
        self._reconnect = reconnect
        self._closed = asyncio.Event()
        self._call: Any = None
        self._iterator = self._events()

    async def __aenter__(self) -> Self:
        """Return the watch itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        """Return the watch itself."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event; raises the refusals that waiting can't mend."""
        return await anext(self._iterator)

    def close(self) -> None:
        """End the iteration; for the loop's own thread, and may be called twice."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def _events(self) -> AsyncIterator[Event]:
        while not self._closed.is_set():
            failure: errors.StagewireError | None = None
            try:
                async for event in self._stream():
                    yield event
            except errors.StagewireError as error:
                failure = error
            if self._closed.is_set():
                return
            if not self._reconnect:
                if failure is not None:
                    raise failure
                return
            pause = self._follower.pause(failure)
            _tell(failure, pause)
            try:
                await asyncio.wait_for(self._closed.wait(), pause)
            except TimeoutError:
                continue

    async def _stream(self) -> AsyncIterator[Event]:
        call = self._begin(
            self._follower.request(),
            timeout=STREAM_DEADLINE_SECONDS,
            wait_for_ready=True,
        )
        self._call = call
        try:
            while True:
                message = await self._read(call)
                if message is None:
                    return
                event = self._follower.receive(message)
                if event is not None:
                    yield event
        finally:
            call.cancel()

    async def _read(self, call: Any) -> pb.WatchResponse | None:
        try:
            async with asyncio.timeout(self._follower.silence_seconds):
                message = await call.read()
        except TimeoutError:
            raise _silent(self._follower) from None
        except grpc.RpcError as error:
            raise statuses.of(error) from error
        except asyncio.CancelledError:
            # grpc raises this also when only the call was cancelled, as `close` does.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return None
        return None if message is grpc.aio.EOF else message


def _silent(follower: Follower) -> errors.Unavailable:
    return errors.Unavailable(
        f"the stream said nothing for {follower.silence_seconds:g} s, which is broken"
    )


def _tell(failure: errors.StagewireError | None, pause: float) -> None:
    if failure is not None:
        _log.warning("watch interrupted (%s); resuming in %.1f s", failure, pause)
