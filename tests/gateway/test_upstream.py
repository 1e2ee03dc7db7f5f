"""What is not the registry's is the tracking server's: byte for byte, and no faster than taken."""

from __future__ import annotations

import contextlib
import http.client as http_client
import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response
from typer.testing import CliRunner

from stagewire.cli.main import app
from tests.gateway.upstreams import PIECE, Tracking, running
from tests.servers import RunningServer

MEGABYTE = 1024 * 1024


@pytest.fixture
def tracking() -> Iterator[Tracking]:
    with running(Tracking()) as served:
        yield served


@pytest.fixture
def both(tracking: Tracking, sqlite_url: str) -> Iterator[RunningServer]:
    """A registry before that tracking server."""
    with RunningServer(sqlite_url, upstream_tracking_uri=f"{tracking.url}/base/") as server:
        yield server


@pytest.fixture
def http(both: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=both.http_url, timeout=30) as client:
        yield client


def until(what: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def raw(server: RunningServer, request: bytes) -> socket.socket:
    """Send bytes as they are."""
    host, _, port = server.http_url.removeprefix("http://").rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    connection.sendall(request)
    return connection


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    with connection:
        found = http_client.HTTPResponse(connection)
        found.begin()
        return found.status, json.loads(found.read())


@pytest.mark.parametrize(
    "target",
    [
        "/api/2.0/mlflow/runs/search?filter=a%20b&filter=c+d&x=%2f%2F|{}'\"<>^`",
        "/ajax-api/3.0/mlflow/traces/search",
        "/get-artifact?path=a/../b&run_uuid=1",
        "/api/2.0/mlflow-artifacts/artifacts/1/a%2Fb%20c/%E2%82%AC;d=1?",
        "/graphql",
        "/static-files/static/js/main.js",
        "/",
        "//double//",
    ],
)
def test_a_target_arrives_letter_by_letter(both: RunningServer, target: str) -> None:
    connection = raw(
        both, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    status, said = answer(connection)
    path, _, query = target.partition("?")
    assert (status, said["target"]) == (200, f"/base{path}?{query}")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_methods_and_bodies_arrive(http: httpx.Client, method: str) -> None:
    said = http.request(method, "/api/2.0/mlflow/runs/x", content=b"a\x00\xff").json()
    assert (said["method"], said["body"]) == (method, "a\x00\xff")
    assert http.request(method, "/api/2.0/mlflow/runs/x").json()["body"] == ""


def test_a_body_of_unknown_length_arrives_in_pieces(http: httpx.Client) -> None:
    said = http.post("/x", content=iter([b"ab", b"cd"])).json()
    assert said["body"] == "abcd"
    assert ["transfer-encoding", "chunked"] in said["headers"]


def test_headers_pass_but_for_those_of_one_connection(both: RunningServer) -> None:
    connection = raw(
        both,
        b"POST /x HTTP/1.1\r\nHost: registry.example:80\r\nAuthorization: Bearer secret\r\n"
        b"Cookie: a=1\r\nX-Twice: 1\r\nX-Twice: 2\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n"
        b"Keep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Authorization: Basic no\r\n"
        b"X-Forwarded-For: 10.0.0.9\r\nX-Forwarded-Proto: https\r\nX-MLFLOW-WORKSPACE: default\r\n"
        b"Content-Length: 2\r\n\r\nok",
    )
    status, said = answer(connection)
    headers = [(name, value) for name, value in said["headers"]]
    assert (status, said["body"]) == (200, "ok")
    for kept in (
        ("authorization", "Bearer secret"),
        ("cookie", "a=1"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-mlflow-workspace", "default"),
        ("content-length", "2"),
        ("x-forwarded-for", "10.0.0.9, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "registry.example:80"),
    ):
        assert kept in headers
    given = {name for name, _ in headers}
    assert given.isdisjoint({"x-hop", "keep-alive", "te", "proxy-authorization", "connection"})
    assert given.isdisjoint({"user-agent", "accept", "accept-encoding"})


def test_the_host_is_the_tracking_servers(http: httpx.Client, tracking: Tracking) -> None:
    said = dict(http.get("/x").json()["headers"])
    assert said["host"] == tracking.url.removeprefix("http://")
    assert said["x-forwarded-proto"] == "http"


def test_an_answer_comes_back_as_it_was_given(http: httpx.Client, tracking: Tracking) -> None:
    packed = b"\x1f\x8b not really gzip"
    made = Response(packed, 418, {"content-encoding": "gzip", "etag": '"1"'})
    made.headers.append("set-cookie", "a=1; HttpOnly")
    made.headers.append("set-cookie", "b=2")
    tracking.answers["/base/packed"] = made
    with http.stream("GET", "/packed") as found:
        assert found.status_code == 418
        assert b"".join(found.iter_raw()) == packed
        assert found.headers["content-encoding"] == "gzip"
        assert found.headers.get_list("set-cookie") == ["a=1; HttpOnly", "b=2"]
        assert len(found.headers.get_list("date")) == 1
        assert found.headers["content-length"] == str(len(packed))
    assert http.head("/packed").headers["content-length"] == str(len(packed))


def test_cookies_of_one_caller_are_not_the_next_ones(
    both: RunningServer, tracking: Tracking
) -> None:
    tracking.answers["/base/login"] = Response(headers={"set-cookie": "session=mine; Path=/"})
    httpx.get(f"{both.http_url}/login")
    said = dict(httpx.get(f"{both.http_url}/x").json()["headers"])
    assert "cookie" not in said


def test_a_redirect_is_passed_on_and_not_followed(http: httpx.Client, tracking: Tracking) -> None:
    tracking.answers["/base/old"] = RedirectResponse("/new", 307)
    found = http.get("/old")
    assert (found.status_code, found.headers["location"]) == (307, "/new")
    assert [scope["path"] for scope in tracking.asked] == ["/base/old"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/2.0/mlflow/registered-models/nothing",
        "/api/2.0/mlflow//registered-models/create",
        "/api/2.0/mlflow/registered%2Dmodels/none",
        "/ajax-api/2.0/mlflow/model-versions/none/",
        "/api/2.0/preview/mlflow/webhooks/a/b/c",
        "/api/2.0//mlflow/model-versions/create",
    ],
)
def test_nothing_of_the_registrys_is_asked_elsewhere(
    http: httpx.Client, tracking: Tracking, path: str
) -> None:
    found = http.post(path, json={})
    assert (found.status_code, found.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert tracking.asked == []


def test_routes_of_the_registry_answer_before_the_tracking_server(
    http: httpx.Client, tracking: Tracking
) -> None:
    made = http.post("/api/2.0/mlflow/registered-models/create", json={"name": "churn"})
    assert made.json()["registered_model"]["name"] == "churn"
    assert http.get("/health").text == "OK"
    assert http.get("/version").status_code == 200
    assert http.get("/api/3.0/mlflow/server-info").status_code == 200
    assert tracking.asked == []


def test_targets_that_are_no_paths_go_nowhere(both: RunningServer, tracking: Tracking) -> None:
    for target in ("http://elsewhere/x", "*", "elsewhere:80"):
        status, said = answer(
            raw(both, f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        )
        assert (status, said["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert tracking.asked == []


def test_without_a_tracking_server_the_refusal_names_the_setting(sqlite_url: str) -> None:
    with RunningServer(sqlite_url) as server:
        found = httpx.get(f"{server.http_url}/api/2.0/mlflow/experiments/search")
    assert (found.status_code, found.json()["error_code"]) == (404, "ENDPOINT_NOT_FOUND")
    assert "--upstream-tracking-uri" in found.json()["message"]


def test_a_tracking_server_that_is_down_is_told_of(sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    with RunningServer(sqlite_url, upstream_tracking_uri=uri) as server:
        found = httpx.post(f"{server.http_url}/api/2.0/mlflow/runs/create", json={})
        registry = httpx.get(f"{server.http_url}/api/2.0/mlflow/registered-models/search")
    assert (found.status_code, found.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert "upstream_tracking_uri" in found.json()["message"]
    assert uri in found.json()["message"]
    assert registry.status_code == 200


def test_half_an_answer_is_no_whole_one(http: httpx.Client, tracking: Tracking) -> None:
    tracking._ways["/base/broken"] = Tracking._broken
    with pytest.raises(httpx.RemoteProtocolError), http.stream("GET", "/broken") as found:
        list(found.iter_raw())


def most_memory() -> int:
    """Peak memory of this process, which has all three: client, registry, tracking server."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_an_upload_of_500_megabytes_is_never_held(http: httpx.Client, tracking: Tracking) -> None:
    tracking._ways["/base/counting"] = Tracking._counting
    before, piece = most_memory(), b"x" * MEGABYTE
    found = http.put("/counting", content=(piece for _ in range(500)))
    assert found.json() == {"bytes": 500 * MEGABYTE}
    assert most_memory() - before < 100 * MEGABYTE


def test_a_download_of_500_megabytes_is_never_held(http: httpx.Client, tracking: Tracking) -> None:
    tracking._ways["/base/endless"] = Tracking._endless
    before, size = most_memory(), 0
    with http.stream("GET", "/endless") as found:
        for chunk in found.iter_raw():
            size += len(chunk)
            if size >= 500 * MEGABYTE:
                break
    assert most_memory() - before < 100 * MEGABYTE
    assert tracking.left.wait(20)


def test_who_takes_nothing_is_sent_nothing(http: httpx.Client, tracking: Tracking) -> None:
    tracking._ways["/base/endless"] = Tracking._endless
    with http.stream("GET", "/endless") as found:
        pieces = found.iter_raw()
        next(pieces)
        seen = -1

        def stands() -> bool:
            nonlocal seen
            before, seen = seen, tracking.sent
            time.sleep(0.2)
            return before == seen

        until(stands)
        # Some megabytes lie in the buffers of four sockets.
        assert tracking.sent * PIECE < 64 * MEGABYTE
    assert tracking.left.wait(20)


def test_a_caller_who_hangs_up_while_waiting_is_hung_up_for(
    both: RunningServer, tracking: Tracking
) -> None:
    tracking._ways["/base/silent"] = Tracking._silent
    connection = raw(both, b"GET /silent HTTP/1.1\r\nHost: x\r\n\r\n")
    assert tracking.arrived.wait(20)
    assert not tracking.left.is_set()
    connection.close()
    assert tracking.left.wait(20)


def test_a_caller_who_hangs_up_in_the_middle_of_a_body_is_hung_up_for(
    both: RunningServer, tracking: Tracking
) -> None:
    tracking._ways["/base/counting"] = Tracking._counting
    connection = raw(
        both, b"PUT /counting HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000
    )
    assert tracking.arrived.wait(20)
    connection.close()
    assert tracking.left.wait(20)
    assert tracking.bodies == [1000]


def test_an_answer_before_the_body_is_read_gets_through(
    both: RunningServer, tracking: Tracking
) -> None:
    tracking.answers["/base/closed"] = JSONResponse({"error_code": "NO"}, 403)
    length = 100 * MEGABYTE
    connection = raw(
        both, b"PUT /closed HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length
    )

    def pour() -> None:
        with contextlib.suppress(OSError):
            connection.sendall(b"x" * length)

    pouring = threading.Thread(target=pour)
    pouring.start()
    status, said = answer(connection)
    pouring.join(20)
    assert (status, said) == (403, {"error_code": "NO"})


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://host",
        "host:5000",
        "http://",
        "http://me:secret@host",
        "http://host?x=1",
        "http://h:99999",
    ],
)
def test_an_upstream_that_can_be_none_is_refused_at_start(uri: str) -> None:
    told = CliRunner().invoke(app, ["serve", "--upstream-tracking-uri", uri])
    assert told.exit_code != 0
    assert "--upstream-tracking-uri" in told.output
