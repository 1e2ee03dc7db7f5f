"""One watch's stream, from Hello to Goodbye.

A stream holds a place in the log and nothing else. It sends ready slices from the tail's ring, or
pages through the log where it has fallen behind; what it can't send in order and without gaps it
announces with a snapshot. A reader that takes nothing for 30 s is let go: it resumes from its
cursor and has lost nothing. What its caller may see is the same from its beginning to its end.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from stagewire import errors, failpoints, pb
from stagewire.service import tail as tails
from stagewire.service import views
from stagewire.service.cursors import Cursor
from stagewire.service.tail import Filter, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.callers import Caller
    from stagewire.server.watches import Watches
    from stagewire.service.tail import Entry
    from stagewire.service.watching import Start

# Streams that can't be told whether they are up to date are ended over this long, not at once.
NOT_FRESH_SPREAD_SECONDS = 1.0
# As many may end by one grant, to come back for a snapshot each.
PERMISSIONS_SPREAD_SECONDS = 5.0
# To whom nothing may be sent any more, the last words are tried for so long.
LAST_WORDS_SECONDS = 5.0
# By one clock credentials have ended, and by the other they may not quite.
_CLOCKS_DIFFER_SECONDS = 0.1
_NOT_FRESH = pb.GOODBYE_REASON_NOT_FRESH
_PERMISSIONS_CHANGED = pb.GOODBYE_REASON_PERMISSIONS_CHANGED


class _SlowConsumer(Exception):
    """The client takes nothing."""


class Stream:
    """One client's stream."""

    def __init__(
        self, watches: Watches, request: pb.WatchRequest, context: Any, caller: Caller
    ) -> None:
        """Prepare, for a caller who may watch this; `run` does the work."""
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
        self.caller = caller
        self.rights = caller.rights
        self.ends = time.monotonic() + self.pace.lifetime * random.uniform(1, 2)
        if caller.expires is not None:
            left = caller.expires - time.time() + _CLOCKS_DIFFER_SECONDS
            self.ends = min(self.ends, time.monotonic() + left)
        self.reason = pb.GOODBYE_REASON_LIFETIME
        #: Whether the caller's rights may have changed since they were last asked for.
        self.in_doubt = False
        #: How long a write may take.
        self.patience = self.pace.slow
        #: Whether the caller may see something else now: nothing is sent any more but Goodbye.
        self.is_muted = False
        #: Why the caller is nobody any more.
        self.refusal: errors.RegistryError | None = None

    def end_after(self, seconds: float) -> None:
        """End in order, so much later, because the server stops."""
        self._end(seconds, pb.GOODBYE_REASON_SHUTTING_DOWN)

    def _end(self, seconds: float, reason: pb.GoodbyeReason.ValueType) -> None:
        self.ends = min(self.ends, time.monotonic() + seconds)
        self.reason = reason
        self.watcher.wake.set()

    def ask(self) -> None:
        """Ask anew what the caller may do; where that shows something else, the stream ends."""
        self.in_doubt = False
        try:
            caller = self.watches.gate.renewed(self.caller)
        except errors.RegistryError as refusal:
            self.refusal = refusal
            self.patience = min(self.patience, LAST_WORDS_SECONDS)
            self.watcher.wake.set()
            return
        if caller.rights.epoch != self.rights.epoch and not self.is_muted:
            self.is_muted = True
            self.patience = min(self.patience, LAST_WORDS_SECONDS)
            self._end(random.uniform(0, PERMISSIONS_SPREAD_SECONDS), _PERMISSIONS_CHANGED)

    @property
    def may_send(self) -> bool:
        """Whether what the caller may see is what it was when the stream began."""
        if self.in_doubt:
            self.ask()
        return not self.is_muted and self.refusal is None

    async def run(self) -> None:
        """Send everything, from Hello to Goodbye."""
        start = await self.watches.begin(self.request, self.filter, self.rights)
        self.log_id = start.log_id
        self.watcher.position, self.watcher.chain = start.position, start.chain
        # Before the first word, so that nothing committed after it can be missed.
        self.tail.register(self.watcher)
        try:
            await self._say(hello=self._hello(start))
            if start.snapshot is not None:
                if not await self._snapshot(start.snapshot):
                    return await self._give_up()
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
                f"nothing was taken from this stream for {self.patience:g} s; resume from the "
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
            # Also while much goes by that is not for this stream, which is silence to its client.
            due = now >= self.said + self.pace.bookmark
            if self.in_doubt or due or now >= self.ends:
                self.ask()
            if self.refusal is not None:
                return await self._turn_away(self.refusal)
            if now >= self.ends:
                return await self._goodbye()
            if due:
                await self._bookmark()
            if self.is_muted:
                await self._wait()
                continue
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
        watcher, rights = self.watcher, self.rights
        for entry in entries:
            if self.in_doubt or time.monotonic() >= self.ends:
                return
            if entry.revision <= watcher.position:
                continue
            if rights.everything:
                header = entry.header
                slices, entered = self.filter.select(entry)
            else:
                slices, entered, header = views.select(rights, self.filter, entry)
            if entered:
                reason = pb.SNAPSHOT_REASON_MODEL_ENTERED
                if not await self._snapshot(reason, at_least=entry.revision):
                    return
                continue
            if slices:
                cursor = self._cursor(entry.revision, entry.chain)
                await self._write(tails.transaction(header, cursor, slices))
            watcher.position, watcher.chain = entry.revision, entry.chain

    async def _snapshot(self, reason: pb.SnapshotReason.ValueType, *, at_least: int = 0) -> bool:
        """Send a snapshot and go on from it; False when rights changed before it was whole."""
        snapshot = await self.watches.snapshots.get(
            self.filter, self.rights, at_least=max(at_least, self.watcher.position)
        )
        if snapshot.log_id != self.log_id:
            raise tails.history_changed()
        sight = views.sight(self.rights)
        begin = pb.SnapshotBegin(reason=reason, revision=snapshot.revision, sight=sight)
        await self._say(snapshot_begin=begin)
        for chunk in snapshot.chunks():
            if not self.may_send:
                return False
            await self._write(chunk)
        end = pb.SnapshotEnd(
            count=snapshot.count,
            digest=snapshot.digest,
            cursor=self._cursor(snapshot.revision, snapshot.chain),
        )
        await self._say(snapshot_end=end)
        self.watcher.position, self.watcher.chain = snapshot.revision, snapshot.chain
        return True

    async def _bookmark(self) -> None:
        position = self.watcher.position
        cursor = self._cursor(position, self.watcher.chain)
        await self._say(bookmark=pb.Bookmark(cursor=cursor, revision=position))

    async def _turn_away(self, refusal: errors.RegistryError) -> None:
        """Say where to resume, for a client that gets other credentials, and refuse."""
        with suppress(_SlowConsumer):
            await self._bookmark()
        raise refusal

    async def _give_up(self) -> None:
        """End a stream whose first snapshot is not whole: there is no place to resume from."""
        if self.refusal is not None:
            raise self.refusal
        after = Duration()
        after.FromMilliseconds(int(random.uniform(0, PERMISSIONS_SPREAD_SECONDS) * 1000))
        goodbye = pb.Goodbye(
            cursor=self.request.cursor, reconnect_after=after, reason=_PERMISSIONS_CHANGED
        )
        await self._say(goodbye=goodbye)

    async def _goodbye(self) -> None:
        await self._bookmark()
        after = Duration()
        if self.reason not in (pb.GOODBYE_REASON_LIFETIME, _PERMISSIONS_CHANGED):
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
        digest, epoch = self.filter.digest, self.rights.epoch
        return Cursor(self.log_id, revision, chain, digest, epoch).encode()

    async def _say(self, **message: Any) -> None:
        await self._write(pb.WatchResponse(**message).SerializeToString())

    async def _write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await self.context.write(data)
            self.said = time.monotonic()
        except TimeoutError:
            raise _SlowConsumer from None
