"""A scripted registry, and both clients before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stagewire.client import AsyncClient, Client
from tests.client.blocking import Blocking, Loop
from tests.client.scripted import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.stop()


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Callable[..., Any]]:
    """Make clients of either kind, with the constructor's arguments."""
    made: list[Any] = []
    if request.param == "sync":

        def connect_sync(**options: Any) -> Any:
            made.append(Client(registry.address, **options))
            return made[-1]

        yield connect_sync
        for client in made:
            client.close()
        return

    loop = Loop()

    def connect_async(**options: Any) -> Any:
        made.append(Blocking(loop, loop.run(lambda: AsyncClient(registry.address, **options))))
        return made[-1]

    yield connect_async
    for client in made:
        client.close()
    loop.stop()


@pytest.fixture
def client(connect: Callable[..., Any]) -> Any:
    return connect()
