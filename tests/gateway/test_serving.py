"""What surrounds every request: ids, keys, one log line, load, health, and stopping in order."""

from __future__ import annotations

import contextlib
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.service.registry import Registry
from stagewire.store.database import StartRefusal
from tests.factories import eventually
from tests.gateway.apis import BASE, Api, exists, invalid, refusal
from tests.servers import RunningServer, held

if TYPE_CHECKING:
    from collections.abc import Iterator

CREATE = "registered-models/create"


@contextlib.contextmanager
def speaking(server: RunningServer) -> Iterator[Api]:
    with httpx.Client(base_url=server.http_url, timeout=30) as http:
        yield Api(http)


def make(api: Api, name: str, **headers: str) -> httpx.Response:
    return api.send("POST", CREATE, json={"name": name}, headers=headers)


def test_health_and_version_are_plain_texts(one: Api) -> None:
    assert one.http.get("/health").text == "OK"
    assert one.http.get("/version").text == version("stagewire")
    assert one.http.head("/health").status_code == 200


def test_a_request_keeps_the_id_it_came_with(one: Api) -> None:
    answer = make(one, "churn", **{"X-Request-Id": "mine"})

    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("given", [{}, {"X-Request-Id": ""}, {"X-Request-Id": "a\tb"}])
def test_a_request_without_an_id_is_given_one(one: Api, given: dict[str, str]) -> None:
    answers = [make(one, "a:b", **given) for _ in range(2)]

    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert {len(found) for found in ids} == {32}


def test_a_repeated_write_with_its_key_is_answered_as_before(api: Api) -> None:
    api.model()
    given = {"name": "churn", "source": "s3://x"}

    first, again, other = (
        api.send("POST", "model-versions/create", json=given, headers={"Idempotency-Key": key})
        for key in ("a", "a", "b")
    )

    assert first.json() == again.json()
    assert other.json()["model_version"]["version"] == "2"


def test_a_repeated_transition_into_an_exclusive_stage_is_answered_as_before(
    one: Api, one_server: RunningServer
) -> None:
    one.versions(2)
    stage = pb.Stage(name="Canary", active=True, occupancy=pb.STAGE_OCCUPANCY_EXCLUSIVE)
    registry = one_server.server.registry
    registry.CreateStage(pb.CreateStageRequest(stage=stage), ANONYMOUS)
    one.move(1, "Canary")
    given = {"name": "churn", "version": "2", "stage": "Canary"}

    first, again = (
        one.send(
            "POST", "model-versions/transition-stage", json=given, headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    )

    assert first.json() == again.json()
    assert first.json()["model_version"]["current_stage"] == "Canary"


def test_a_key_used_for_something_else_is_refused(one: Api) -> None:
    make(one, "churn", **{"Idempotency-Key": "k"})

    found = refusal(make(one, "other", **{"Idempotency-Key": "k"}))

    assert found[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert "was used for another CreateModel request" in found[2]


def test_an_overlong_key_is_refused(one: Api) -> None:
    assert make(one, "a", **{"Idempotency-Key": "k" * 128}).status_code == 200
    found = refusal(make(one, "b", **{"Idempotency-Key": "k" * 129}))

    text = "The Idempotency-Key header must have at most 128 characters, has 129."
    assert found == invalid(text)


def test_without_a_key_equal_creates_are_two(one: Api) -> None:
    one.model()

    assert [one.version()["version"] for _ in range(2)] == ["1", "2"]
    assert refusal(make(one, "churn")) == exists("Registered Model (name=churn) already exists.")


def test_every_request_but_health_is_one_line_of_the_log(one: Api) -> None:
    with structlog.testing.capture_logs() as lines:
        one.http.get("/health")
        one.http.get("/version")
        make(one, "churn")
        make(one, "a:b")
        one.http.get("/nowhere")
        eventually(lambda: len(lines) == 4)

    told = [(line["method"], line["route"], line["code"]) for line in lines]
    assert told == [
        ("GET", "/version", "OK"),
        ("POST", BASE + CREATE, "OK"),
        ("POST", BASE + CREATE, "INVALID_PARAMETER_VALUE"),
        ("GET", "beyond", "ENDPOINT_NOT_FOUND"),
    ]
    assert lines[1]["caller"] == "anonymous"
    assert all(line["duration_ms"] >= 0 for line in lines)


def test_an_unforeseen_error_tells_nothing_but_the_requests_id(
    one: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_tx: object, _request: object) -> None:
        raise ZeroDivisionError("the secret is 42")

    monkeypatch.setattr(Registry.CreateModel, "work", fail)
    with structlog.testing.capture_logs() as lines:
        answer = make(one, "churn", **{"X-Request-Id": "mine"})
        eventually(lambda: len(lines) == 2)

    assert refusal(answer)[:2] == (500, "INTERNAL_ERROR")
    assert "42" not in answer.text
    assert "mine" in answer.text
    assert [line["event"] for line in lines] == ["unforeseen error", "request"]
    assert lines[1]["code"] == "INTERNAL_ERROR"


def test_a_server_that_has_enough_says_when_to_come_back(sqlite_url: str) -> None:
    with (
        RunningServer(sqlite_url, max_pending_calls=1) as server,
        speaking(server) as api,
        ThreadPoolExecutor(1) as pool,
    ):
        with held(server):
            waiting = pool.submit(make, api, "churn")
            eventually(lambda: server.server.admission.now == 1)
            refused = make(api, "other")
            alive = api.http.get("/health")
        made = waiting.result(timeout=10)

    assert refusal(refused)[:2] == (429, "REQUEST_LIMIT_EXCEEDED")
    assert int(refused.headers["retry-after"]) >= 1
    assert (alive.text, made.status_code) == ("OK", 200)


def test_who_hangs_up_keeps_his_place_until_his_call_has_ended(
    one: Api, one_server: RunningServer
) -> None:
    host, _, port = one_server.server.http_address.rpartition(":")
    body = b'{"name":"churn"}'
    with held(one_server):
        with socket.create_connection((host, int(port))) as impatient:
            impatient.sendall(
                b"POST /api/2.0/mlflow/registered-models/create HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            eventually(lambda: one_server.server.admission.now == 1)
        kept = one_server.server.admission.now
    eventually(lambda: one_server.server.admission.now == 0)

    assert kept == 1
    assert one.get("registered-models/get", name="churn")


def test_a_request_in_flight_is_finished_while_the_server_stops(sqlite_url: str) -> None:
    server = RunningServer(sqlite_url, stop_seconds=10.0)
    server.__enter__()
    with speaking(server) as api, ThreadPoolExecutor(2) as pool:
        api.http.get("/health")
        with held(server):
            waiting = pool.submit(make, api, "churn")
            eventually(lambda: server.server.admission.now == 1)
            stopping = pool.submit(server.__exit__, None, None, None)
            eventually(lambda: server.server.admission.closing)
        made = waiting.result(timeout=10)
        stopping.result()
        with pytest.raises(httpx.TransportError):
            api.http.get("/health")

    assert made.status_code == 200


def test_health_turns_first_when_a_server_stops_and_requests_still_work(sqlite_url: str) -> None:
    server = RunningServer(sqlite_url, drain_seconds=1.0)
    server.__enter__()
    with speaking(server) as api, ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(server.__exit__, None, None, None)
        eventually(lambda: api.http.get("/health").status_code == 503)
        made = make(api, "churn")
        stopping.result()

    assert made.status_code == 200


def test_a_request_on_an_open_connection_of_a_stopping_server_is_told_to_go_elsewhere(
    one: Api, one_server: RunningServer
) -> None:
    one_server.server.admission.closing = True

    answer = make(one, "churn")
    one_server.server.admission.closing = False

    assert refusal(answer)[:2] == (503, "TEMPORARILY_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"


def test_a_connection_serves_many_requests(one: Api, one_server: RunningServer) -> None:
    host, _, port = one_server.server.http_address.rpartition(":")
    ask = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(ask * 20)
        found = b""
        while found.count(b"HTTP/1.1 200 OK") < 20:
            found += connection.recv(1 << 16)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\x00\xff\r\n\r\n",
        b"GET /version\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET /" + b"x" * 1_000_000,
        b"GET /version HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200_000,
    ],
)
def test_what_is_no_http_ends_its_own_connection(
    one: Api, one_server: RunningServer, data: bytes
) -> None:
    host, _, port = one_server.server.http_address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        found = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(1 << 16):
                found += part

    assert not found or found.startswith(b"HTTP/1.1 400"), found[:200]
    assert one.http.get("/health").text == "OK"


def test_a_body_that_never_comes_keeps_nothing_from_others(
    one: Api, one_server: RunningServer
) -> None:
    host, _, port = one_server.server.http_address.rpartition(":")
    head = (
        b"POST /api/2.0/mlflow/registered-models/create HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            held_back = stack.enter_context(socket.create_connection((host, int(port))))
            held_back.sendall(head)
        began = time.monotonic()
        one.model()
        assert one_server.server.admission.now == 0

    assert time.monotonic() - began < 5


def test_a_taken_port_is_refused_with_what_to_do(one_server: RunningServer, tmp_path: Any) -> None:
    taken = one_server.server.http_address

    with pytest.raises(StartRefusal, match="choose another --http-address"):
        RunningServer(f"sqlite:///{tmp_path}/x.db", http_address=taken).__enter__()


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused(tmp_path: Any, address: str) -> None:
    with pytest.raises(StartRefusal, match="can't listen on"):
        RunningServer(f"sqlite:///{tmp_path}/x.db", http_address=address).__enter__()


def test_an_empty_address_turns_http_off(sqlite_url: str) -> None:
    with RunningServer(sqlite_url, http_address="") as server:
        assert server.server.http_address == ""
        found = server.server.registry.ListModels(pb.ListModelsRequest(), ANONYMOUS)
        assert list(found.models) == []


def test_what_is_written_over_http_is_read_over_grpc(one: Api, one_server: RunningServer) -> None:
    from stagewire.client import Client

    one.versions(1)
    one.move(1, "Production")

    with Client(one_server.address) as client:
        request = pb.ResolveModelVersionRequest(uri="models:/churn/Production")
        assert client.registry.ResolveModelVersion(request).version.source == "s3://models/1"
