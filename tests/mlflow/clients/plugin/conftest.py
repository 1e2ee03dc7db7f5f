"""What the plugin's laws are about: one server, reached over gRPC and over HTTP."""

from __future__ import annotations

import os
import socket
import uuid
from typing import TYPE_CHECKING, NamedTuple

import pytest

from stagewire import pb
from stagewire.client import Client, errors

if TYPE_CHECKING:
    from collections.abc import Iterator


class Served(NamedTuple):
    """Where a registry answers: gRPC as HOST:PORT, MLflow's REST API as a URL."""

    grpc: str
    http: str

    def create_namespace(self, name: str) -> None:
        """Make a namespace, unless it is there."""
        request = pb.CreateNamespaceRequest(namespace=pb.Namespace(name=name))
        with Client(self.grpc) as client:
            try:
                client.namespaces.CreateNamespace(request)
            except errors.NamespaceExists:
                return


@pytest.fixture(scope="session")
def served() -> Served:
    """Give the server that whoever started these tests has started."""
    return Served(os.environ["REGISTRY_GRPC"], os.environ["REGISTRY"])


@pytest.fixture
def free_port() -> Iterator[int]:
    """Keep a port on which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.fixture
def name() -> str:
    """Give a name that no other test has: what is served outlasts them."""
    return f"plugin-{uuid.uuid4().hex[:12]}"
