"""One connection too many is told so, and takes none from others."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stagewire.gateway.crowds import Crowd
from tests.factories import eventually
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def connections(server: RunningServer, count: int) -> Iterator[list[socket.socket]]:
    """Hold so many connections open, each known to the server."""
    host, _, port = server.server.http_address.rpartition(":")
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            connection = socket.create_connection((host, int(port)), timeout=20)
            made.append(stack.enter_context(connection))
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        yield made


@pytest.mark.parametrize(
    ("setting", "status", "code"),
    [
        ("max_http_connections", 503, "TEMPORARILY_UNAVAILABLE"),
        ("max_http_connections_per_address", 429, "REQUEST_LIMIT_EXCEEDED"),
    ],
)
def test_one_connection_too_many_is_refused_in_http_until_another_ends(
    sqlite_url: str, setting: str, status: int, code: str
) -> None:
    with RunningServer(sqlite_url, **{setting: 3}) as server:
        with connections(server, 3) as open_ones:
            refused = httpx.get(f"{server.http_url}/health")
            open_ones[0].sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            still = open_ones[0].recv(65_536)

        eventually(lambda: httpx.get(f"{server.http_url}/health").status_code == 200)

    assert (refused.status_code, json.loads(refused.text)["error_code"]) == (status, code)
    assert (refused.headers["retry-after"], refused.headers["connection"]) == ("5", "close")
    assert still.startswith(b"HTTP/1.1 200 ")


def test_an_address_takes_connections_from_nobody_but_itself() -> None:
    crowd = Crowd(most=3, most_per_address=2)

    greedy = [crowd.enter("10.0.0.1") for _ in range(5)]
    other = crowd.enter("10.0.0.2")
    full = crowd.enter("10.0.0.3")
    crowd.leave("10.0.0.1")

    assert [answer is None for answer in greedy] == [True, True, False, False, False]
    assert other is None
    assert full is not None
    assert full.startswith(b"HTTP/1.1 503 ")
    assert crowd.enter("10.0.0.3") is None


def test_without_bounds_everybody_comes_in() -> None:
    crowd = Crowd(most=0, most_per_address=0)

    assert {crowd.enter("10.0.0.1") for _ in range(10_000)} == {None}


def test_a_grpc_connection_too_many_is_closed_and_works_once_another_ends(sqlite_url: str) -> None:
    def healthy(channel: grpc.Channel) -> bool:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    # Each with a connection of its own, and soon trying again.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
    with (
        RunningServer(sqlite_url, max_grpc_connections=2) as server,
        grpc.insecure_channel(server.address, options) as first,
        grpc.insecure_channel(server.address, options) as second,
        grpc.insecure_channel(server.address, options) as third,
    ):
        before = [healthy(channel) for channel in (first, second, third)]
        first.close()

        eventually(lambda: healthy(third))

    assert before == [True, True, False]
