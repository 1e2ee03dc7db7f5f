"""A thousand watchers of different models and a thousand of one model, on one server."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable

WATCHERS = 1000
STREAMS_A_CHANNEL = 100
ROUNDS = 3
SHARED = "shared"
SHARED_CHANGES = 10
WRITERS = 16
DEADLINE_SECONDS = 60.0


async def follow(stub: Any, model: str, changes: int, ready: asyncio.Semaphore) -> list[int]:
    """Follow one model and give the revisions told of it, until so many came."""
    request = pb.WatchRequest(start=pb.WATCH_START_NOW, filter=pb.WatchFilter(models=[model]))
    call = stub.Watch(request, timeout=DEADLINE_SECONDS * 2)
    hello = await call.read()
    assert hello.HasField("hello"), hello
    ready.release()
    revisions: list[int] = []
    # One bookmark more: what came twice or too late would come before it.
    while True:
        message = await call.read()
        if message.HasField("transaction"):
            assert [change.model for change in message.transaction.changes] == [model]
            revisions.append(message.transaction.revision)
        elif message.HasField("bookmark") and len(revisions) >= changes:
            call.cancel()
            return revisions


async def write(stub: Any, queue: asyncio.Queue[str], written: dict[str, list[int]]) -> None:
    """Make changes of the models named, as long as there are names."""
    while not queue.empty():
        model = queue.get_nowait()
        tags = {"n": str(len(written[model]))}
        answer = await stub.SetModelTags(pb.SetModelTagsRequest(model=model, tags=tags), timeout=30)
        written[model].append(answer.revision)


async def scene(address: str) -> tuple[dict[str, list[int]], dict[str, list[list[int]]], float]:
    """Open every stream, then write, and give what was written and what each watcher heard."""
    names = [f"m{number}" for number in range(WATCHERS)]
    channels = [
        grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(2 * WATCHERS // STREAMS_A_CHANNEL)
    ]
    stubs = [WatchServiceStub(channel) for channel in channels]
    writer = RegistryServiceStub(channels[0])
    made = asyncio.Semaphore(WRITERS)

    async def make(name: str) -> None:
        async with made:
            await writer.CreateModel(pb.CreateModelRequest(model=pb.Model(name=name)), timeout=30)

    await asyncio.gather(*(make(name) for name in [*names, SHARED]))
    ready = asyncio.Semaphore(0)
    watching = [
        asyncio.create_task(follow(stubs[n // STREAMS_A_CHANNEL], name, changes, ready))
        for n, (name, changes) in enumerate(
            [(name, ROUNDS) for name in names] + [(SHARED, SHARED_CHANGES)] * WATCHERS
        )
    ]
    for _ in watching:
        await ready.acquire()
    began = time.monotonic()
    written: dict[str, list[int]] = {name: [] for name in [*names, SHARED]}
    queue: asyncio.Queue[str] = asyncio.Queue()
    # One model's changes are made one after another, so that their answers tell their order.
    for _ in range(ROUNDS):
        for name in names:
            queue.put_nowait(name)
        await asyncio.gather(*(write(writer, queue, written) for _ in range(WRITERS)))
    for _ in range(SHARED_CHANGES):
        queue.put_nowait(SHARED)
    await write(writer, queue, written)
    async with asyncio.timeout(DEADLINE_SECONDS):
        found = await asyncio.gather(*watching)
    heard: dict[str, list[list[int]]] = {name: [] for name in written}
    for name, revisions in zip([*names, *[SHARED] * WATCHERS], found, strict=True):
        heard[name].append(revisions)
    await asyncio.gather(*(channel.close() for channel in channels))
    return written, heard, time.monotonic() - began


@pytest.mark.fault
@pytest.mark.timeout(180)
def test_two_thousand_watchers_hear_of_every_matching_change_once_and_in_order(
    database_url: str, record_property: Callable[[str, object], None]
) -> None:
    record_property("fault", "2,000 watchers on one server")
    record_property("runs", 1)
    # The client's two thousand streams share the interpreter with the server, which may not look
    # at the log for seconds: that is not what this is about.
    with RunningServer(
        database_url, bookmark_interval_seconds=2.0, freshness_seconds=60, log_level="warning"
    ) as server:
        written, heard, seconds = asyncio.run(scene(server.address))

        deadline = time.monotonic() + 10
        while server.server.watches.open:
            assert time.monotonic() < deadline, server.server.watches.open
            threading.Event().wait(0.01)

    assert len(heard) == WATCHERS + 1
    for model, revisions in written.items():
        assert revisions == sorted(revisions)
        assert all(told == revisions for told in heard[model]), model
    told = sum(len(one) for of_model in heard.values() for one in of_model)
    assert told == WATCHERS * (ROUNDS + SHARED_CHANGES)
    counts = {"streams": 2 * WATCHERS, "W1": told, "W4": told, "seconds": round(seconds)}
    record_property("checked", counts)
