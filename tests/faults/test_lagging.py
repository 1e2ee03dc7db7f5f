"""Thousands of changes while streams lag: each catches up in order, and memory stays bounded."""

from __future__ import annotations

import asyncio
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import Client
from tests.faults.processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = 64
#: Half of the streams stay open and take nothing, half are closed and resumed from a cursor.
STREAMS = 16
MOST_GROWTH_BYTES = 96 * 1024 * 1024
ALL = pb.WatchFilter(namespaces=["*"])


async def write(registry: Any, model: str, count: int) -> None:
    """Make so many changes of one model, one after another, each repeated until it is known."""
    for number in range(count):
        request = pb.SetModelTagsRequest(
            model=model, tags={"n": str(number)}, request_id=uuid.uuid4().hex
        )
        while True:
            try:
                await registry.SetModelTags(request, timeout=30)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.ABORTED:
                    raise


async def catch_up(call: Any, after: int, until: int) -> int:
    """Read a stream from one revision to another; give how many came, in order, without a hole."""
    position = after
    while position < until:
        message = await call.read()
        if message.HasField("transaction"):
            assert message.transaction.revision == position + 1, position
            position += 1
    call.cancel()
    return position - after


async def scene(address: str, changes: int, resident: Callable[[], int]) -> tuple[int, int, int]:
    """Open streams, write, then read; give what was told and memory before and after."""
    # One connection a stream: a window of flow control of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(STREAMS)]
    registry: Any = RegistryServiceStub(channels[0])
    for number in range(MODELS):
        model = pb.Model(name=f"m{number}")
        await registry.CreateModel(pb.CreateModelRequest(model=model), timeout=30)
    opened = []
    for channel in channels:
        stub: Any = WatchServiceStub(channel)
        call = stub.Watch(pb.WatchRequest(start=pb.WATCH_START_NOW, filter=ALL), timeout=7200)
        hello, bookmark = await call.read(), await call.read()
        assert (hello.HasField("hello"), bookmark.HasField("bookmark")) == (True, True)
        opened.append((stub, call, bookmark.bookmark))
    for _, call, _ in opened[::2]:
        call.cancel()
    before = resident()
    await asyncio.gather(*(write(registry, f"m{n}", changes // MODELS) for n in range(MODELS)))
    first = opened[0][2].revision
    until = first + changes // MODELS * MODELS
    reading = []
    for number, (stub, call, mark) in enumerate(opened):
        request = pb.WatchRequest(cursor=mark.cursor, filter=ALL)
        stream = call if number % 2 else stub.Watch(request, timeout=7200)
        reading.append(catch_up(stream, mark.revision, until))
    told = await asyncio.gather(*reading)
    after = resident()
    await asyncio.gather(*(channel.close() for channel in channels))
    return sum(told), before, after


@pytest.mark.fault
@pytest.mark.timeout(240)
def test_streams_that_lag_by_thousands_of_changes_catch_up_in_bounded_memory(
    database_url: str,
    tmp_path: Path,
    at_length: bool,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("fault", "200,000 changes while streams lag")
    changes = 200_000 if at_length else 2_000
    with ServerProcess(
        database_url,
        tmp_path / "server.log",
        ring_bytes=50_000,
        # They lag because they take nothing: here that is not for the server to end.
        slow_consumer_seconds=7200,
        stream_lifetime_seconds=7200,
    ) as server:
        peak = Peak(server.process.pid)
        with peak:
            told, before, after = asyncio.run(scene(server.address, changes, peak.now))
        with Client(server.address) as client:
            verified = client.audit.VerifyLog(pb.VerifyLogRequest())

    assert verified.intact
    assert told == STREAMS * (changes // MODELS * MODELS)
    growth = max(peak.most, after) - before
    record_property("runs", STREAMS)
    record_property("checked", {"W1": told, "W4": told, "W20": 1, "grown_bytes": growth})
    assert growth < MOST_GROWTH_BYTES, growth


class Peak:
    """The most memory that a process held while this was entered."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="peak")
        self.most = 0

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def now(self) -> int:
        """Give its resident bytes."""
        (line,) = (li for li in self._status.read_text().splitlines() if li.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.most = max(self.most, self.now())
