"""Fan-out: one event to many streams, from its commit to each receipt."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from typing import TYPE_CHECKING

from benchmarks import requests, server, wire
from benchmarks.load import sample
from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from benchmarks.load import Sample

STREAMS_A_WIRE = 100
#: Between events, so that one is over before the next begins.
PAUSE_SECONDS = 0.01
_PREFIX = 5
#: The first byte of a WatchResponse that holds a transaction.
_TRANSACTION = pb.WatchResponse.TRANSACTION_FIELD_NUMBER << 3 | 2


class _Stream:
    """One stream: counts whole messages and says when each came."""

    __slots__ = ("_audience", "_greeted", "_rest")

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._greeted = False
        self._rest = b""

    def data(self, payload: bytes) -> None:
        now = time.monotonic_ns()
        buffer = self._rest + payload
        while len(buffer) >= _PREFIX:
            end = _PREFIX + int.from_bytes(buffer[1:_PREFIX], "big")
            if len(buffer) < end:
                break
            # A hello, then events; bookmarks may come between.
            if not self._greeted or buffer[_PREFIX] == _TRANSACTION:
                self._greeted = True
                self._audience.heard(now, buffer[_PREFIX:end])
            buffer = buffer[end:]
        self._rest = buffer

    def end(self) -> None:
        self._audience.lost += 1


class Audience:
    """Many streams that wait for the same event."""

    def __init__(self, size: int) -> None:
        """Expect so many receipts of each event."""
        self.size = size
        #: Receipts that make an event complete; streams that watch other models get none.
        self.expected = size
        self.lost = 0
        self.wires: list[wire.Wire] = []
        self.receipts: list[int] = []
        self.message = b""
        self._complete = asyncio.Event()

    async def gather(self, address: str, path: str, *requests: bytes) -> None:
        """Open every stream, with the requests in turn, and wait until each has said hello."""
        headers = wire.header_block(address, path)
        # Streams outlive the calls' deadline.
        headers = headers[: headers.index(b"\x00\x0cgrpc-timeout")]
        self.wires = await wire.connect(address, -(-self.size // STREAMS_A_WIRE))
        self._complete.clear()
        for index in range(self.size):
            request = requests[index % len(requests)]
            self.wires[index // STREAMS_A_WIRE].call(headers, request, _Stream(self))
        await self.wait()

    def heard(self, now: int, message: bytes) -> None:
        """Note a receipt."""
        self.receipts.append(now)
        self.message = message
        if len(self.receipts) == self.expected:
            self._complete.set()

    async def wait(self) -> list[int]:
        """Wait until every stream has its message; answers when they came."""
        async with asyncio.timeout(30):
            await self._complete.wait()
        if self.lost:
            raise RuntimeError(f"{self.lost} of {self.size} streams ended")
        receipts, self.receipts = self.receipts, []
        self._complete.clear()
        return receipts

    def close(self) -> None:
        """Hang up."""
        for each in self.wires:
            each.close()


class FanOut:
    """The product's watch and the bare one, with audiences of one size."""

    def __init__(self, channel: grpc.aio.Channel, address: str, size: int) -> None:
        """Prepare; `open` opens the streams."""
        self._address = address
        self._channel = channel
        self.model = requests.watched(size)
        self._topic = f"{size:04}".encode()
        self._promotions: Iterator[bytes] = requests.promotions(self.model)
        self.watchers = Audience(size)
        self.listeners = Audience(size)

    async def open(self) -> None:
        """Open both audiences' streams."""
        await self.open_watchers()
        await self.listeners.gather(self._address, server.STREAM, self._topic)

    async def open_watchers(self) -> None:
        """Open the watch's streams alone."""
        watch = pb.WatchRequest(
            start=pb.WATCH_START_NOW, filter=pb.WatchFilter(models=[self.model])
        )
        await self.watchers.gather(self._address, requests.WATCH, watch.SerializeToString())

    async def watch(self, events: int) -> Sample:
        """Promote versions of the watched model; from commit to receipt."""
        promote = wire.raw_call(self._channel, requests.TRANSITION)
        revisions, received = [], []
        for _ in range(events):
            await promote(next(self._promotions))
            received.append(await self.watchers.wait())
            told = pb.WatchResponse.FromString(self.watchers.message)
            revisions.append(told.transaction.revision)
            await asyncio.sleep(PAUSE_SECONDS)
        commits = await _commits(self._channel, revisions[-1])
        return _sample([commits[revision] for revision in revisions], received)

    async def publish(self, events: int) -> Sample:
        """Publish the same bytes by the bare fan-out."""
        publish = wire.raw_call(self._channel, server.PUBLISH)
        began, received = [], []
        for _ in range(events):
            answer = await publish(self._topic + self.watchers.message)
            began.append(int.from_bytes(answer, "big"))
            received.append(await self.listeners.wait())
            await asyncio.sleep(PAUSE_SECONDS)
        return _sample(began, received)

    def close(self) -> None:
        """Hang up."""
        self.watchers.close()
        self.listeners.close()


class OwnModels:
    """Streams that watch each a model of its own; an event is for one of them alone."""

    def __init__(self, writing: grpc.aio.Channel, watching: str, size: int) -> None:
        """Write by `writing`, and watch at the address `watching`, of the same server or not."""
        self._channel = writing
        self._address = watching
        self._models = requests.own_models(size)
        self._promotions = itertools.cycle(
            [requests.promotions(model) for model in self._models[: requests.CALLERS]]
        )
        self.watchers = Audience(size)

    async def open(self) -> None:
        """Open the streams."""
        watches = [
            pb.WatchRequest(start=pb.WATCH_START_NOW, filter=pb.WatchFilter(models=[model]))
            for model in self._models
        ]
        bodies = [watch.SerializeToString() for watch in watches]
        await self.watchers.gather(self._address, requests.WATCH, *bodies)
        self.watchers.expected = 1

    async def watch(self, events: int) -> Sample:
        """Promote a version of one model after another; from commit to receipt."""
        promote = wire.raw_call(self._channel, requests.TRANSITION)
        revisions, received = [], []
        for _ in range(events):
            await promote(next(next(self._promotions)))
            received.append(await self.watchers.wait())
            told = pb.WatchResponse.FromString(self.watchers.message)
            revisions.append(told.transaction.revision)
            await asyncio.sleep(PAUSE_SECONDS)
        commits = await _commits(self._channel, revisions[-1])
        return _sample([commits[revision] for revision in revisions], received)


async def _commits(channel: grpc.aio.Channel, last: int) -> dict[int, int]:
    """Read when commits returned; the last one may be noted after its event was received."""
    read = wire.raw_call(channel, server.COMMITS)
    async with asyncio.timeout(10):
        while True:
            commits: dict[int, int] = dict(json.loads(await read(b"")))
            if last in commits:
                return commits
            await asyncio.sleep(PAUSE_SECONDS)


def _sample(began: list[int], received: list[list[int]]) -> Sample:
    delays = [
        receipt - start
        for start, receipts in zip(began, received, strict=True)
        for receipt in receipts
    ]
    seconds = sum(max(r) - start for start, r in zip(began, received, strict=True)) / 1e9
    return sample(delays, seconds)
