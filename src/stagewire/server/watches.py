"""Watch: one stream, from Hello to Goodbye.

A stream holds a place in the log and nothing else. It sends ready slices from the tail's ring, or
pages through the log where it has fallen behind; what it can't send in order and without gaps it
announces with a snapshot. A reader that takes nothing for 30 s is let go: it resumes from its
cursor and has lost nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from stagewire import errors, failpoints, pb
from stagewire.server.interceptors import shutting_down
from stagewire.service import limits
from stagewire.service import tail as tails
from stagewire.service.cursors import Cursor
from stagewire.service.tail import Filter, Watcher
from stagewire.service.watching import Beginnings

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import Executor

    from stagewire.service.snapshots import Snapshots
    from stagewire.service.tail import Entry, Tail
    from stagewire.service.watching import Start

# A Goodbye is written at once to a client that reads; at shutdown others are waited for so long.
LONGEST_GOODBYE_SECONDS = 2.0
# Streams that can't be told whether they are up to date are ended over this long, not at once.
NOT_FRESH_SPREAD_SECONDS = 1.0
_NOT_FRESH = pb.GOODBYE_REASON_NOT_FRESH


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of a stream, in seconds."""

    bookmark: float = 15.0
    lifetime: float = 300.0
    slow: float = 30.0


class Watches:
    """All watches of this process."""

    def __init__(
        self,
        tail: Tail,
        snapshots: Snapshots,
        executor: Executor,
        *,
        pace: Pace,
        most: int,
        most_starting: int,
    ) -> None:
        """Serve from `tail`, at most `most` streams at once, of which so many may be starting."""
        self.tail = tail
        self.snapshots = snapshots
        self.beginnings = Beginnings(tail.database, executor)
        self.pace = pace
        self.most = most
        self.most_starting = most_starting
        self.open = 0
        self.starting = 0
        self._ending = asyncio.Event()
        self._empty = asyncio.Event()
        self._streams: dict[_Stream, None] = {}

    async def watch(self, request: pb.WatchRequest, context: Any) -> None:
        """Serve one stream. Refuses what the contract's Watch refuses."""
        limits.check(request)
        self._admit()
        stream = _Stream(self, request, context)
        self.open += 1
        self._streams[stream] = None
        try:
            await stream.run()
        finally:
            self._streams.pop(stream, None)
            self.open -= 1
            if not self._streams:
                self._empty.set()

    def _admit(self) -> None:
        """Let one more in. Refuses SHUTTING_DOWN, TOO_MANY_WATCHES, DATABASE_UNAVAILABLE."""
        if self._ending.is_set():
            raise shutting_down()
        if self.open >= self.most:
            raise errors.RegistryError(
                "TOO_MANY_WATCHES",
                f"the server serves {self.most} watches already; try again",
                retry_after_seconds=random.uniform(1, 5),
            )
        if self.starting >= self.most_starting:
            # Those before it take a second or two; a refusal costs less than a place in line.
            raise errors.RegistryError(
                "TOO_MANY_WATCHES",
                f"{self.starting} watches are being started already; try again",
                retry_after_seconds=random.uniform(0.5, 2.5),
            )
        if not self.tail.is_fresh:
            raise tails.not_fresh()

    async def begin(self, request: pb.WatchRequest, filter_: Filter) -> Start:
        """Judge where a stream begins, together with others that come at the same time."""
        self.starting += 1
        try:
            return await self.beginnings.begin(request, filter_)
        finally:
            self.starting -= 1

    async def end(self, spread_seconds: float) -> None:
        """Say Goodbye to every stream, spread over a time, and wait until they have ended."""
        self._ending.set()
        for stream in list(self._streams):
            stream.end_after(random.uniform(0, spread_seconds))
        if self._streams:
            self._empty.clear()
            # Whoever takes nothing is not waited for: the server's own stop ends that stream.
            with suppress(TimeoutError):
                async with asyncio.timeout(spread_seconds + LONGEST_GOODBYE_SECONDS):
                    await self._empty.wait()


class _SlowConsumer(Exception):
    """The client takes nothing."""


class _Stream:
    """One client's stream."""

    def __init__(self, watches: Watches, request: pb.WatchRequest, context: Any) -> None:
        self.watches = watches
        self.tail = watches.tail
        self.pace = watches.pace
        self.request = request
        self.context = context
        self.filter = Filter.of(request.filter)
        self.watcher = Watcher(self.filter, 0, b"")
        self.log_id = ""
        self.generation = watches.tail.generation
        self.lapses = watches.tail.lapses
        self.ends = time.monotonic() + self.pace.lifetime * random.uniform(1, 2)
        self.reason = pb.GOODBYE_REASON_LIFETIME

    def end_after(self, seconds: float) -> None:
        """End in order, so much later, because the server stops."""
        self._end(seconds, pb.GOODBYE_REASON_SHUTTING_DOWN)

    def _end(self, seconds: float, reason: pb.GoodbyeReason.ValueType) -> None:
        self.ends = min(self.ends, time.monotonic() + seconds)
        self.reason = reason
        self.watcher.wake.set()

    async def run(self) -> None:
        """Send everything, from Hello to Goodbye."""
        start = await self.watches.begin(self.request, self.filter)
        self.log_id = start.log_id
        self.watcher.position, self.watcher.chain = start.position, start.chain
        # Before the first word, so that nothing committed after it can be missed.
        self.tail.register(self.watcher)
        try:
            await self._say(hello=self._hello(start))
            if start.snapshot is not None:
                await self._snapshot(start.snapshot)
            elif self.request.start == pb.WATCH_START_NOW or (
                self.request.start == pb.WATCH_START_BEGINNING and start.position
            ):
                # Where it begins: from now, or where a compacted log does. Or a stream that broke
                # before its first change could not be resumed, and would begin elsewhere.
                await self._bookmark()
            await self._follow()
        except _SlowConsumer:
            raise errors.RegistryError(
                "SLOW_CONSUMER",
                f"nothing was taken from this stream for {self.pace.slow:g} s; resume from the "
                "last cursor",
                retry_after_seconds=1.0,
            ) from None
        finally:
            self.tail.unregister(self.watcher)

    async def _follow(self) -> None:
        watcher, tail = self.watcher, self.tail
        while True:
            failpoints.hit("stream")
            watcher.wake.clear()
            if tail.generation != self.generation or tail.log_id != self.log_id:
                raise tails.history_changed()
            if tail.lapses != self.lapses:
                self.lapses = tail.lapses
                self._end(random.uniform(0, NOT_FRESH_SPREAD_SECONDS), _NOT_FRESH)
            now = time.monotonic()
            if now >= self.ends:
                return await self._goodbye()
            # Also while much goes by that is not for this stream, which is silence to its client.
            if now >= self.said + self.pace.bookmark:
                await self._bookmark()
            recent = tail.recent(watcher.position, watcher.chain)
            if recent is None:
                recent = await tail.page(watcher.position, watcher.chain)
            if recent:
                await self._send_all(recent)
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Wait for what concerns this stream, or until something has to be said."""
        watcher = self.watcher
        watcher.idle = watcher.position == self.tail.last
        pause = min(self.said + self.pace.bookmark, self.ends) - time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(pause, 0)):
                await watcher.wake.wait()
        if watcher.idle:
            # Whatever came since was not for it, or it would not be idle any more.
            watcher.idle = False
            watcher.position, watcher.chain = self.tail.last, self.tail.chain[:8]

    async def _send_all(self, entries: Iterable[Entry]) -> None:
        watcher = self.watcher
        for entry in entries:
            if time.monotonic() >= self.ends:
                return
            if entry.revision <= watcher.position:
                continue
            slices, entered = self.filter.select(entry)
            if entered:
                await self._snapshot(pb.SNAPSHOT_REASON_MODEL_ENTERED, at_least=entry.revision)
                continue
            if slices:
                cursor = self._cursor(entry.revision, entry.chain)
                await self._write(tails.transaction(entry, cursor, slices))
            watcher.position, watcher.chain = entry.revision, entry.chain

    async def _snapshot(self, reason: pb.SnapshotReason.ValueType, *, at_least: int = 0) -> None:
        snapshot = await self.watches.snapshots.get(
            self.filter, at_least=max(at_least, self.watcher.position)
        )
        if snapshot.log_id != self.log_id:
            raise tails.history_changed()
        begin = pb.SnapshotBegin(reason=reason, revision=snapshot.revision)
        await self._say(snapshot_begin=begin)
        for chunk in snapshot.chunks():
            await self._write(chunk)
        end = pb.SnapshotEnd(
            count=snapshot.count,
            digest=snapshot.digest,
            cursor=self._cursor(snapshot.revision, snapshot.chain),
        )
        await self._say(snapshot_end=end)
        self.watcher.position, self.watcher.chain = snapshot.revision, snapshot.chain

    async def _bookmark(self) -> None:
        position = self.watcher.position
        cursor = self._cursor(position, self.watcher.chain)
        await self._say(bookmark=pb.Bookmark(cursor=cursor, revision=position))

    async def _goodbye(self) -> None:
        await self._bookmark()
        after = Duration()
        if self.reason != pb.GOODBYE_REASON_LIFETIME:
            after.FromMilliseconds(int(random.uniform(0, 1000)))
        cursor = self._cursor(self.watcher.position, self.watcher.chain)
        goodbye = pb.Goodbye(cursor=cursor, reconnect_after=after, reason=self.reason)
        await self._say(goodbye=goodbye)

    def _hello(self, start: Start) -> pb.Hello:
        hello = pb.Hello(log_id=start.log_id, head_revision=start.head, session=start.session)
        hello.bookmark_interval.FromMilliseconds(int(self.pace.bookmark * 1000))
        hello.stream_lifetime.FromMilliseconds(int(max(self.ends - time.monotonic(), 0) * 1000))
        return hello

    def _cursor(self, revision: int, chain: bytes) -> bytes:
        return Cursor(self.log_id, revision, chain, self.filter.digest).encode()

    async def _say(self, **message: Any) -> None:
        await self._write(pb.WatchResponse(**message).SerializeToString())

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self.pace.slow):
                await self.context.write(data)
            self.said = time.monotonic()
        except TimeoutError:
            raise _SlowConsumer from None
