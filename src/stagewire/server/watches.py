"""All watches of this process: how many there may be, where they begin, and when they must end.

A stream whose caller may see something else than when it began, or may not call any more, ends
within seconds: it asks before it sends anything, and who sends nothing is asked about.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stagewire import errors
from stagewire.server.interceptors import shutting_down
from stagewire.server.servicers import CALLER
from stagewire.server.shares import Shares
from stagewire.server.streams import Stream
from stagewire.service import limits, rules
from stagewire.service import tail as tails
from stagewire.service.watching import Beginnings

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from stagewire import pb
    from stagewire.access.gate import Gate, OpenGate
    from stagewire.access.spaces import Spaces
    from stagewire.rights import Rights
    from stagewire.service.snapshots import Snapshots
    from stagewire.service.tail import Filter, Tail
    from stagewire.service.watching import Start

# A Goodbye is written at once to a client that reads; at shutdown others are waited for so long.
LONGEST_GOODBYE_SECONDS = 2.0
# Streams asked about before others get their turn: some microseconds each.
_ASKED_AT_ONCE = 50
# Where many tokens and grants change, streams are asked about once for all of those so far.
_ASK_AGAIN_SECONDS = 0.5


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
        most_per_caller: int,
        gate: Gate | OpenGate,
        spaces: Spaces,
    ) -> None:
        """Serve from `tail`, at most `most` streams at once, of which so many may be starting.

        `gate` says what callers may do, and when that may have changed. No known caller has more
        than `most_per_caller` of them, no namespace more than its quota in `spaces`.
        """
        self.tail = tail
        self.snapshots = snapshots
        self.beginnings = Beginnings(tail.database, executor)
        self.pace = pace
        self.most = most
        self.most_starting = most_starting
        self.open = 0
        self.starting = 0
        self.shares = Shares(spaces, most_per_caller=most_per_caller)
        self._ending = asyncio.Event()
        self._empty = asyncio.Event()
        self._streams: dict[Stream, None] = {}
        self._asking: asyncio.Task[None] | None = None
        self.gate = gate
        self.gate.listeners.append(self._doubt)

    async def watch(self, request: pb.WatchRequest, context: Any) -> None:
        """Serve one stream. Refuses what the contract's Watch refuses."""
        limits.check(request)
        # With the rights of now: from here on the stream hears of changes.
        caller = self.gate.renewed(CALLER.get())
        rules.authorise("Watch", caller, request)
        self._admit()
        with self.shares.taken(caller, request.filter.namespaces):
            stream = Stream(self, request, context, caller)
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

    async def begin(self, request: pb.WatchRequest, filter_: Filter, rights: Rights) -> Start:
        """Judge where a stream begins, together with others that come at the same time."""
        self.starting += 1
        try:
            return await self.beginnings.begin(request, filter_, rights)
        finally:
            self.starting -= 1

    def _doubt(self) -> None:
        """Hear that somebody's rights may have changed."""
        for stream in self._streams:
            stream.in_doubt = True
        if self._streams and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        """Ask about every stream in doubt, and wake those that must end.

        Whichever sends something meanwhile asks for itself before.
        """
        while doubtful := [stream for stream in self._streams if stream.in_doubt]:
            for count, stream in enumerate(doubtful):
                if count % _ASKED_AT_ONCE == 0:
                    await asyncio.sleep(0)
                if stream.in_doubt:
                    stream.ask()
            await asyncio.sleep(_ASK_AGAIN_SECONDS)

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
        if self._asking is not None:
            self._asking.cancel()
