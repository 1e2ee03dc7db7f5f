"""Both clients read whole exports, and hear of a refusal as of any other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from stagewire import pb
from stagewire.client import AsyncClient, Client, errors
from tests.moving import live
from tests.servers import RunningServer


def test_both_clients_read_the_same_export(server: RunningServer) -> None:
    live(server.server.registry)

    with Client(server.address) as client:
        parts = list(client.export())

    async def read() -> list[pb.ExportRegistryResponse]:
        async with AsyncClient(server.address) as other:
            return [part async for part in other.export()]

    assert server.call(read()) == parts
    assert sum(len(part.records) for part in parts) == parts[0].total_records > 40


def test_a_refused_export_arrives_as_its_own_class(server: RunningServer) -> None:
    with (
        Client(server.address) as client,
        pytest.raises(errors.NamespaceNotFound, match="nowhere"),
    ):
        list(client.export(namespaces=["nowhere"]))

    async def read() -> None:
        async with AsyncClient(server.address) as other:
            async for _ in other.export(namespaces=["nowhere"]):
                pass

    with pytest.raises(errors.NamespaceNotFound):
        server.call(read())


def test_more_exports_than_run_at_once_wait_for_their_turn(server: RunningServer) -> None:
    live(server.server.registry)

    with Client(server.address) as client, ThreadPoolExecutor(6) as pool:
        read = [pool.submit(lambda: list(client.export())) for _ in range(6)]
        answers = [one.result(30) for one in read]

    assert all(answer == answers[0] for answer in answers)
