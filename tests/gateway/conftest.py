"""A server of each database, and a client of its HTTP without what MLflow's own adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from tests.gateway.apis import Api
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def api(server: RunningServer) -> Iterator[Api]:
    """Speak MLflow's API with a server of each database."""
    with httpx.Client(base_url=server.http_url, timeout=30) as http:
        yield Api(http)


@pytest.fixture
def one_server(sqlite_url: str) -> Iterator[RunningServer]:
    """Run a server for what is told above the database: one kind is enough."""
    with RunningServer(sqlite_url) as running:
        yield running


@pytest.fixture
def one(one_server: RunningServer) -> Iterator[Api]:
    """Speak MLflow's API with that server."""
    with httpx.Client(base_url=one_server.http_url, timeout=30) as http:
        yield Api(http)
