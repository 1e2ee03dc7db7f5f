"""Tokens of every role on both listeners: whoever comes with one is told what the table says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stagewire import pb
from stagewire.client import statuses
from stagewire.gateway.paths import SERVED
from tests import roles
from tests.contract import protos
from tests.guarded import Door, GuardedServer
from tests.roles import ANSWERED, DENIED, NOT_FOUND, Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METHODS = sorted(method.name for method in protos.methods())
STREAMS = frozenset({"Watch", "ExportRegistry"})
#: What a call is told by its gRPC code, in the table's words.
TOLD = {grpc.StatusCode.PERMISSION_DENIED: DENIED, grpc.StatusCode.NOT_FOUND: NOT_FOUND}
#: What is told of files where no other server stands behind this one.
NO_FILES = "The registry has no files"
TOLD_BY_HTTP = {200: ANSWERED, 403: DENIED, 404: NOT_FOUND}


_Key = TypeVar("_Key")
Table = dict[_Key, dict[str, str]]


class Held:
    """A server whose access is controlled, its scene, and a token of each role."""

    def __init__(self, server: GuardedServer, door: Door) -> None:
        """Grant each role to a subject of its name, and make it a token."""
        self.server = server
        self.door = door
        database = server.server.database
        assert database is not None
        database.next_sessions(10)
        self.scene = Scene(door, receiver="https://127.0.0.1:9/nobody-is-here")
        self.tokens = {}
        for role, scopes in roles.ROLES.items():
            subject = f"role-{role}"
            for scope in scopes:
                grant = pb.Grant(subject=subject, scope=scope)
                door("CreateGrant", pb.CreateGrantRequest(grant=grant))
            request = pb.CreateTokenRequest(token=pb.Token(subject=subject))
            self.tokens[role] = door("CreateToken", request).secret

    def told(self, method: str, request: Any, token: str) -> str:
        """Call by gRPC, and say what came of it."""
        try:
            if method in STREAMS:
                call = self.door.stream(method, request, token=token)
                next(call)
                call.cancel()
            else:
                self.door(method, request, token=token)
        except grpc.RpcError as error:
            return TOLD.get(error.code(), statuses.of(error).reason)
        return ANSWERED


@pytest.fixture
def held(sqlite_url: str, tmp_path: Path) -> Iterator[Held]:
    """Serve a registry to whoever shows a token."""
    settings: dict[str, Any] = {
        "webhook_allow_private_addresses": True,
        # Each asks more in a second than anybody would.
        "caller_requests_per_second": 100_000,
        "refused_calls_per_second": 100_000,
    }
    with GuardedServer(sqlite_url, tmp_path, **settings) as server, server.door() as door:
        yield Held(server, door)


@pytest.fixture
def http(held: Held) -> Iterator[httpx.Client]:
    """Ask the same server by HTTP."""
    with httpx.Client(base_url=held.server.http_url, timeout=30) as made:
        yield made


def test_each_token_may_call_what_its_role_is_for(held: Held) -> None:
    found: dict[str, dict[str, str]] = {}
    for method in METHODS:
        request = held.scene.request(method)
        found[method] = {}
        for role, token in held.tokens.items():
            told = held.told(method, request, token)
            found[method][role] = told
            if told == ANSWERED:
                request = held.scene.request(method)

    assert _differing(found, roles.expected()) == {}


def test_nobody_without_a_token_is_answered_anything_but_health(held: Held) -> None:
    made = [method for method in METHODS if method not in STREAMS]
    for shown in ({"token": ""}, {"token": "sw_0123456789abcdef_" + "x" * 43}):
        for method in made:
            assert held.door.refusal(method, **shown) in (
                "CREDENTIALS_MISSING",
                "CREDENTIALS_INVALID",
            )
        for method in STREAMS:
            with pytest.raises(grpc.RpcError) as refusal:
                next(held.door.stream(method, **shown))
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED

    reflection = reflection_pb2_grpc.ServerReflectionStub(held.door.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with pytest.raises(grpc.RpcError) as refusal:
        next(reflection.ServerReflectionInfo(iter([question])))
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    health = health_pb2_grpc.HealthStub(held.door.channel)
    serving = health.Check(health_pb2.HealthCheckRequest())
    assert serving.status == health_pb2.HealthCheckResponse.SERVING


def _differing(found: Table[_Key], expected: Table[_Key]) -> Table[_Key]:
    """Give of what was found only what should be otherwise."""
    assert found.keys() == expected.keys()
    differing = {
        key: {role: told for role, told in row.items() if told != expected[key][role]}
        for key, row in found.items()
    }
    return {key: row for key, row in differing.items() if row}


def _ask(
    http: httpx.Client, route: tuple[str, str], fields: dict[str, Any], token: str
) -> httpx.Response:
    method, path = route
    base = next(r.bases[0] for r in SERVED if (r.method, r.path) == route)
    sent: dict[str, Any] = {"params": fields} if method == "GET" else {"json": fields}
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return http.request(method, base + path.format(**fields), headers=headers, **sent)


def test_each_token_is_answered_by_http_what_its_role_is_for(
    held: Held, http: httpx.Client
) -> None:
    expected = {route: roles.expected()[rpc] for route, (rpc, _) in roles.ROUTES.items()}
    found: dict[tuple[str, str], dict[str, str]] = {}
    for route, (_, make) in roles.ROUTES.items():
        fields = make(held.scene)
        found[route] = {}
        for role, token in held.tokens.items():
            answer = _ask(http, route, fields, token)
            told = TOLD_BY_HTTP.get(answer.status_code, answer.text)
            if NO_FILES in told:
                told = ANSWERED
            found[route][role] = told
            if told == ANSWERED:
                fields = make(held.scene)

    assert _differing(found, expected) == {}


def test_nobody_without_a_token_is_answered_by_http_anything_but_health(
    held: Held, http: httpx.Client
) -> None:
    for token in ("", "sw_0123456789abcdef_" + "x" * 43):
        for route in roles.ROUTES:
            fields = {"webhook_id": "w", "workspace_name": "default"}
            answer = _ask(http, route, fields, token)
            assert answer.status_code == 401, route
            assert answer.headers["www-authenticate"]
        headers = {"authorization": f"Bearer {token}"} if token else {}
        for path in ("/version", "/", "/no/such/path", "/api/2.0/mlflow/experiments/search"):
            for method in ("GET", "POST", "PUT", "OPTIONS"):
                assert http.request(method, path, headers=headers).status_code == 401, path
    assert http.get("/health").text == "OK"


def test_whoever_was_granted_nothing_gets_nothing_from_behind_the_registry(
    held: Held, http: httpx.Client
) -> None:
    for role, token in held.tokens.items():
        headers = {"authorization": f"Bearer {token}"}
        answer = http.get("/api/2.0/mlflow/experiments/search", headers=headers)

        assert answer.status_code == (403 if role in ("nobody", "stranger") else 404), role


def test_what_is_kept_in_memory_is_given_to_whoever_sees_both_its_names(held: Held) -> None:
    door, tokens = held.door, held.tokens
    name = held.scene.model()
    door("RenameModel", pb.RenameModelRequest(model=name, new_name="other-1"))
    asked = [pb.GetModelRequest(model=called) for called in (name, "other-1")]
    for request in (*asked, *asked):
        assert door("GetModel", request).model.name == "other-1"

    for role, told in (
        ("viewer", [ANSWERED, ANSWERED]),
        ("neighbour", [NOT_FOUND, ANSWERED]),
        ("owner", [NOT_FOUND, NOT_FOUND]),
        ("stranger", [NOT_FOUND, NOT_FOUND]),
    ):
        assert [held.told("GetModel", request, tokens[role]) for request in asked] == told
