"""Reads answered from memory say what the database says, whatever was written meanwhile."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from stagewire import pb
from stagewire.client import Client, errors
from stagewire.rights import EVERYTHING
from tests.faults.load import NAMES, STAGES, Writer
from tests.servers import RunningServer
from tests.wire import streams

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITES = 150


def reads() -> Iterator[tuple[str, Any]]:
    """Every way to ask for the models that the writer below writes about."""
    for space in ("default", "risk"):
        for name in NAMES[:3]:
            named: dict[str, Any] = {"namespace": space, "model": name}
            yield "GetModel", pb.GetModelRequest(**named)
            for number in (1, 2):
                yield "GetModelVersion", pb.GetModelVersionRequest(**named, version=number)
            yield "ResolveModelVersion", pb.ResolveModelVersionRequest(**named)
            yield (
                "ResolveModelVersion",
                pb.ResolveModelVersionRequest(namespace=space, uri=f"models:/{name}@champion"),
            )
            for stage in STAGES[:2]:
                yield "ResolveModelVersion", pb.ResolveModelVersionRequest(**named, stage=stage)


def answer(client: Client, method: str, request: Any) -> Any:
    try:
        return getattr(client.registry, method)(request)
    except errors.StagewireError as refusal:
        return refusal.reason


def from_the_database(client: Client, method: str, request: Any) -> Any:
    """Ask the same where no memory answers: with metrics, which nobody logs here."""
    if method == "GetModel":
        # Kept under what was asked, and a name in another spelling was never asked.
        return None
    asked = type(request)()
    asked.CopyFrom(request)
    asked.include_metrics = True
    return answer(client, method, asked)


def known(server: RunningServer, method: str, request: Any) -> bytes | None:
    async def recall() -> bytes | None:
        return server.server.hot.recall(method, request, EVERYTHING)

    found: bytes | None = server.call(recall())
    return found


def test_whatever_is_written_memory_and_database_agree(
    server: RunningServer, client: Client
) -> None:
    for space in ("default", "risk"):
        if space != "default":
            streams.namespace(client, space)
    hits = 0
    with grpc.insecure_channel(server.address) as channel:
        writer = Writer(channel, 11)
        chance = random.Random(5)
        for _ in range(WRITES):
            writer._write(*writer._something())
            asked = list(reads())
            for method, request in chance.sample(asked, 12):
                first = answer(client, method, request)
                hits += known(server, method, request) is not None
                second = answer(client, method, request)
                truth = from_the_database(client, method, request)

                assert second == first, request
                assert truth in (None, first), request

    assert hits > WRITES // 5


def test_a_read_at_another_replica_sees_what_was_written_at_the_first(postgres_url: str) -> None:
    with (
        RunningServer(postgres_url) as one,
        RunningServer(postgres_url, listen=False) as other,
        Client(one.address) as writer,
        grpc.insecure_channel(other.address) as channel,
    ):
        from modelregistry.v1.registry_service_pb2_grpc import RegistryServiceStub

        reader: Any = RegistryServiceStub(channel)
        streams.model(writer)
        streams.version(writer)
        for number in range(20):
            reader.GetModel(pb.GetModelRequest(model="churn"), timeout=10)
            written = streams.tag(writer, n=str(number))
            found = reader.GetModel(
                pb.GetModelRequest(model="churn", min_revision=written.revision), timeout=10
            )

            assert found.model.tags["n"] == str(number)
            assert found.revision >= written.revision


@pytest.mark.parametrize("least", [1_000_000, -1])
def test_a_mark_that_memory_can_not_vouch_for_is_the_database_s_to_judge(
    server: RunningServer, client: Client, least: int
) -> None:
    streams.model(client)
    client.registry.GetModel(pb.GetModelRequest(model="churn"))
    request = pb.GetModelRequest(model="churn", min_revision=least)

    assert known(server, "GetModel", request) is None


async def caught_up(server: RunningServer) -> None:
    async with asyncio.timeout(10):
        while not server.server.tail.has_read_own_commits:  # noqa: ASYNC110  # another's progress
            await asyncio.sleep(0.01)


def test_answers_kept_never_outgrow_their_room(database_url: str) -> None:
    with RunningServer(database_url, hot_bytes=20_000) as server, Client(server.address) as client:
        for number in range(40):
            streams.model(client, f"m{number}")
            client.registry.GetModel(pb.GetModelRequest(model=f"m{number}"))

        server.call(caught_up(server))
        shelf = server.server.hot._shelf
        assert 0 < shelf.currsize <= 20_000
        assert set().union(*shelf.by_root.values()) == set(shelf)
        assert known(server, "GetModel", pb.GetModelRequest(model="m39")) is not None
        assert known(server, "GetModel", pb.GetModelRequest(model="m0")) is None


def test_what_is_not_in_the_log_is_not_kept(server: RunningServer, client: Client) -> None:
    streams.model(client)
    streams.version(client)
    request = pb.GetModelVersionRequest(model="churn", version=1, include_metrics=True)
    client.registry.GetModelVersion(request)

    assert known(server, "GetModelVersion", request) is None
