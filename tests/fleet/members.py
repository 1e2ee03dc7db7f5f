"""Simulated agents: each follows a model over any number of streams, and keeps count.

They come back as the SDK does (its cursor, its jitter, its channel), but look at no more of a
message than its position and cursor, so that thousands cost less than the server they watch. Those
whose every message is kept and judged are in `tests/faults/watching.py`.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from stagewire import pb
from stagewire.client import channels, statuses
from stagewire.client.follower import SILENT_INTERVALS, STREAM_DEADLINE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCH = "/modelregistry.v1.WatchService/Watch"
#: As the SDK's: anything between now and a ceiling that doubles from 1 s.
LONGEST_BACKOFF_SECONDS = 120.0
_CHUNK = pb.WatchResponse.SNAPSHOT_CHUNK_FIELD_NUMBER << 3 | 2


@dataclass(slots=True)
class Counts:
    """What the members of one process met with, together."""

    messages: int = 0
    revisions: int = 0
    #: Messages at or before a place already seen: there must be none.
    repeated: int = 0
    streams: int = 0
    resets: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    goodbyes: Counter[str] = field(default_factory=Counter)


class Member:
    """One agent."""

    __slots__ = (
        "_call", "_counts", "_cursor", "_failures", "_progressed", "_silence", "_watch",
        "heard_time", "hello_time", "model", "position", "told",
    )  # fmt: skip

    def __init__(self, watch: Any, model: str, counts: Counts) -> None:
        self._watch = watch
        self._counts = counts
        self._call: Any = None
        self._cursor = b""
        self._failures = 0
        self._progressed = False
        self._silence = 60.0
        self.model = model
        self.position = 0
        #: Of the present stream: when it was greeted; 0 while there is none.
        self.hello_time = 0.0
        self.heard_time = 0.0
        #: Every revision received, in the order in which they came.
        self.told = array("q")

    async def follow(self) -> None:
        """Follow for ever; a refusal that waiting can't mend is counted, and ends it."""
        while True:
            try:
                pause = await self._stream()
            except grpc.aio.AioRpcError as error:
                pause = self._refused(error)
            self.hello_time = 0.0
            await asyncio.sleep(pause)

    def check_silence(self, now: float) -> None:
        """Give a stream up that has said nothing for three of its bookmark intervals."""
        if self.hello_time and now > self.heard_time + self._silence:
            self._counts.refusals["SILENT"] += 1
            self._call.cancel()

    async def _stream(self) -> float:
        request = pb.WatchRequest(filter=pb.WatchFilter(models=[self.model] if self.model else []))
        if self._cursor:
            request.cursor, request.snapshot_on_reset = self._cursor, True
        else:
            request.start = pb.WATCH_START_NOW
        self._progressed = False
        self._call = call = self._watch(
            request.SerializeToString(), timeout=STREAM_DEADLINE_SECONDS, wait_for_ready=True
        )
        pause = None
        try:
            while (data := await call.read()) is not grpc.aio.EOF:
                pause = self._receive(data)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        if pause is not None and self._progressed:
            return pause
        return (pause or 0.0) + self._backoff()

    def _refused(self, error: grpc.aio.AioRpcError) -> float:
        failure = statuses.of(error)
        self._counts.refusals[failure.reason or error.code().name] += 1
        return (failure.retry_after or 0.0) + self._backoff()

    def _backoff(self) -> float:
        self._failures += 1
        return random.uniform(0, min(LONGEST_BACKOFF_SECONDS, 2.0 ** (self._failures - 1)))

    def _receive(self, data: bytes) -> float | None:
        """Take one message; answers how long to wait after a Goodbye."""
        self._counts.messages += 1
        self.heard_time = time.monotonic()
        if data[0] == _CHUNK:
            return None
        message = pb.WatchResponse.FromString(data)
        match message.WhichOneof("message"):
            case "transaction":
                told = message.transaction
                self._counts.revisions += 1
                self._counts.repeated += told.revision <= self.position
                self.told.append(told.revision)
                self._advance(told.revision, told.cursor)
            case "bookmark":
                self._advance(message.bookmark.revision, message.bookmark.cursor)
            case "hello":
                self._counts.streams += 1
                self.hello_time = self.heard_time
                self._silence = SILENT_INTERVALS * (
                    message.hello.bookmark_interval.ToNanoseconds() / 1e9
                )
            case "snapshot_begin":
                reason = pb.SnapshotReason.Name(message.snapshot_begin.reason)
                self._counts.resets[reason] += 1
                self.position = message.snapshot_begin.revision
            case "snapshot_end":
                self._advance(self.position, message.snapshot_end.cursor)
            case "goodbye":
                goodbye = message.goodbye
                self._counts.goodbyes[pb.GoodbyeReason.Name(goodbye.reason)] += 1
                self._cursor = goodbye.cursor or self._cursor
                return goodbye.reconnect_after.ToNanoseconds() / 1e9
        return None

    def _advance(self, revision: int, cursor: bytes) -> None:
        self.position, self._cursor = revision, cursor
        self._failures, self._progressed = 0, True


class Crowd:
    """All members of this process and their connections."""

    def __init__(self, addresses: Sequence[str], *, streams_a_connection: int) -> None:
        """Let them use these servers in turn, with so many streams on each connection."""
        self._addresses = list(addresses)
        # A channel has a connection to every server, and its calls go round.
        self._streams_a_channel = streams_a_connection * len(addresses)
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.members: list[Member] = []
        self.counts = Counts()

    def open(self, models: Sequence[str]) -> None:
        """Add one member for each model named."""
        for number, model in enumerate(models):
            if number % self._streams_a_channel == 0:
                target = f"ipv4:{','.join(self._addresses)}"
                options = (*channels.OPTIONS, ("grpc.use_local_subchannel_pool", 1))
                self._channels.append(grpc.aio.insecure_channel(target, options=options))
            member = Member(self._channels[-1].unary_stream(WATCH), model, self.counts)
            self.members.append(member)
            self._tasks.append(asyncio.create_task(member.follow()))

    def cut(self) -> int:
        """Cut every connection under gRPC's feet, as a network does; answers how many."""
        cut = 0
        for entry in list(Path("/proc/self/fd").iterdir()):
            with suppress(OSError), socket.socket(fileno=os.dup(int(entry.name))) as found:
                # gRPC reaches IPv4 through sockets of IPv6; the others here have no port at all.
                host, port, *_ = found.getpeername() or ("", 0)
                if f"{host.removeprefix('::ffff:')}:{port}" in self._addresses:
                    found.shutdown(socket.SHUT_RDWR)
                    cut += 1
        return cut

    async def mind_silence(self) -> None:
        """Look after streams that have fallen silent, for ever."""
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for member in self.members:
                member.check_silence(now)

    async def close(self) -> None:
        """End every stream and connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()
