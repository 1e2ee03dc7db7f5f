"""Many watches at once: those too many to begin are told when to come back, and all get in."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import tenacity
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import AsyncClient, Client, statuses
from tests.faults.processes import ServerProcess
from tests.servers import RunningServer
from tests.wire import streams

if TYPE_CHECKING:
    from pathlib import Path

WATCHES = 200


async def begin(stub: Any) -> float | None:
    """Begin one watch; give how long its refusal asked to wait, None when it began."""
    call = stub.Watch(pb.WatchRequest(start=pb.WATCH_START_NOW), timeout=30)
    try:
        hello = await call.read()
    except grpc.RpcError as error:
        refusal = statuses.of(error)
        assert refusal.reason == "TOO_MANY_WATCHES", refusal
        return refusal.retry_after
    finally:
        call.cancel()
    assert hello.HasField("hello")
    return None


async def burst(address: str) -> list[float | None]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = WatchServiceStub(channel)
        return await asyncio.gather(*(begin(stub) for _ in range(WATCHES)))


def test_who_is_too_many_to_begin_is_told_when_to_come_back(
    database_url: str, tmp_path: Path
) -> None:
    # In a process of its own, so that the burst does not take turns with who answers it.
    with ServerProcess(database_url, tmp_path / "log", max_starting_watches=2) as server:
        answers = asyncio.run(burst(server.address))

    waits = [wait for wait in answers if wait is not None]
    assert len(waits) >= 10
    assert len(answers) - len(waits) >= 2
    assert all(0.5 <= wait <= 2.5 for wait in waits)
    assert max(waits) - min(waits) > 0.5


async def follow(client: AsyncClient, revision: int) -> float:
    async with client.watch(start="now", backoff=tenacity.wait_random(0, 0.2)) as events:
        async for event in events:
            if event.revision >= revision:
                return time.monotonic()
    raise AssertionError


async def storm(address: str, revision: int) -> None:
    async with AsyncClient(address) as client:
        await asyncio.gather(*(follow(client, revision) for _ in range(WATCHES)))


def test_every_client_gets_in_in_the_end(database_url: str) -> None:
    with (
        RunningServer(database_url, max_starting_watches=20) as server,
        Client(server.address) as client,
    ):
        revision = streams.model(client).revision

        asyncio.run(asyncio.wait_for(storm(server.address, revision), 60))


def test_watches_that_begin_together_are_judged_one_by_one(
    server: RunningServer, client: Client
) -> None:
    last = streams.versions(client, 3)
    good = pb.WatchRequest(start=pb.WATCH_START_NOW)
    bad = pb.WatchRequest(cursor=b"damaged")
    lost = pb.WatchRequest(start=pb.WATCH_START_NOW, filter=pb.WatchFilter(namespaces=["nobody-s"]))

    async def together() -> list[str]:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = WatchServiceStub(channel)

            async def one(request: pb.WatchRequest) -> str:
                call = stub.Watch(request, timeout=30)
                try:
                    message = await call.read()
                except grpc.RpcError as error:
                    return str(statuses.of(error).reason)
                finally:
                    call.cancel()
                assert message.hello.head_revision == last
                return str(message.hello.session)

            return await asyncio.gather(*(one(r) for r in [good, bad, lost] * 20))

    found = asyncio.run(together())

    assert found[1::3] == ["INVALID_CURSOR"] * 20
    assert found[2::3] == ["NAMESPACE_NOT_FOUND"] * 20
    assert len(set(found[::3])) == 20
