"""Connections over which no honest request comes: each is refused or closed, and none is kept."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import TYPE_CHECKING

import h11
import pytest

from stagewire.gateway import listener
from tests.factories import without_looking_for_garbage

if TYPE_CHECKING:
    from tests.gateway.apis import Api
    from tests.servers import RunningServer

GET = b"GET /api/2.0/mlflow/registered-models/search HTTP/1.1\r\nhost: x\r\n"


def connected(server: RunningServer) -> socket.socket:
    host, _, port = server.server.http_address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def until_closed(connection: socket.socket) -> bytes:
    said = b""
    while more := connection.recv(65_536):
        said += more
    return said


@pytest.mark.parametrize("begun", [b"", b"GET", GET])
def test_who_does_not_end_a_requests_head_is_hung_up_on(
    one_server: RunningServer, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(listener, "_HEAD_SECONDS", 0.1)

    with connected(one_server) as connection:
        connection.sendall(begun)

        assert until_closed(connection) == b""


def test_nor_is_one_kept_for_whom_there_was_an_answer_before(
    one_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_HEAD_SECONDS", 0.1)

    with connected(one_server) as connection:
        connection.sendall(GET + b"\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET")

        assert until_closed(connection) == b""


def test_a_whole_head_buys_the_time_that_its_body_takes(
    one_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_HEAD_SECONDS", 0.1)
    body = b'{"name": "churn"}'
    head = b"POST /api/2.0/mlflow/registered-models/create HTTP/1.1\r\nhost: x\r\n"
    head += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)

    with connected(one_server) as slow, connected(one_server) as other:
        slow.sendall(head)
        # So much time has passed when another one is hung up on.
        assert until_closed(other) == b""
        slow.sendall(body)

        assert slow.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_a_request_with_two_lengths_is_refused_and_nothing_after_it_is_read(
    one_server: RunningServer,
) -> None:
    smuggled = GET + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"

    with connected(one_server) as connection:
        connection.sendall(smuggled + GET + b"\r\n")
        said = until_closed(connection)

    assert said.startswith(b"HTTP/1.1 400 ")
    assert said.count(b"HTTP/1.1") == 1


def test_health_is_read_and_nothing_else(one: Api) -> None:
    for method in ("POST", "PUT", "DELETE", "TRACE"):
        assert one.http.request(method, "/health").status_code == 405


def test_a_tunnel_is_refused(one_server: RunningServer) -> None:
    with connected(one_server) as connection:
        connection.sendall(b"CONNECT /health HTTP/1.1\r\nhost: x\r\n\r\n")

        assert connection.recv(65_536).startswith(b"HTTP/1.1 405 ")


def test_a_body_that_is_no_http_ends_its_request_quietly(
    one_server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    head = b"POST /api/2.0/mlflow/registered-models/create HTTP/1.1\r\nhost: x\r\n"
    head += b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"

    with connected(one_server) as connection:
        connection.sendall(head + b"zz\r\n")

        assert until_closed(connection).startswith(b"HTTP/1.1 400 ")
    assert "unforeseen" not in capsys.readouterr().out


@pytest.mark.parametrize(("length", "code"), [(1, b"400"), (300, b"200")])
def test_a_body_may_come_in_pieces_but_not_in_crumbs(
    one_server: RunningServer, length: int, code: bytes
) -> None:
    head = b"POST /api/2.0/mlflow/registered-models/create HTTP/1.1\r\nhost: x\r\n"
    head += b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b'{"name": "churn"}' + b" " * 1_100 * length
    pieces = [body[at : at + length] for at in range(0, len(body), length)]

    with connected(one_server) as connection:
        connection.sendall(head + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces))
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"0\r\n\r\n")

        assert connection.recv(65_536).startswith(b"HTTP/1.1 " + code)


def test_what_the_network_makes_of_a_chunk_is_no_crumb() -> None:
    reader = listener._Reader(h11.SERVER)
    reader.receive_data(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    reader.next_event()

    taken = 0
    for _ in range(1_100):
        for part in (b"12c\r\n" + b"x" * 290, b"x" * 10 + b"\r\n"):
            reader.receive_data(part)
            while (event := reader.next_event()) is not h11.NEED_DATA:
                assert isinstance(event, h11.Data)
                taken += len(event.data)

    assert taken == 1_100 * 300


def test_a_refusal_repeats_no_lone_surrogate(one: Api) -> None:
    events = [{"entity": "\ud800", "action": "CREATED"}]
    body = json.dumps({"name": "hook", "url": "https://example.com/", "events": events})

    answer = one.http.post(
        "/api/2.0/mlflow/webhooks", content=body, headers={"content-type": "application/json"}
    )

    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_a_refused_request_is_let_go_without_looking_for_garbage(
    one_server: RunningServer,
) -> None:
    body = json.dumps({"name": "a/b", "description": "x" * 3_000_000})
    path = "/api/2.0/mlflow/registered-models/create"
    connection = http.client.HTTPConnection(one_server.server.http_address)

    def refused() -> None:
        connection.request("POST", path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()[:13]) == (400, b'{"error_code"')

    with contextlib.closing(connection):
        assert without_looking_for_garbage(refused, times=10) < 10_000_000
