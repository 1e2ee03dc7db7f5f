"""Callers with a provider's token, on both listeners: what they may do, and why they may not."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from stagewire import pb
from stagewire.access import provider
from stagewire.access.oidc import MOST_CHARACTERS
from stagewire.access.provider import MOST_WAITING, PAUSE_SECONDS
from stagewire.claims import MOST_GROUPS
from stagewire.client import statuses
from tests.access.issuers import AUDIENCE, DISCOVERY, Issuer
from tests.factories import eventually
from tests.guarded import GuardedServer, grant, make_token

if TYPE_CHECKING:
    from collections.abc import Iterator

SEARCH = "/api/2.0/mlflow/registered-models/search"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer("ES256") as started:
        yield started


@pytest.fixture
def server(sqlite_url: str, tmp_path: Path, issuer: Issuer) -> Iterator[GuardedServer]:
    with trusting(sqlite_url, tmp_path, issuer) as started:
        yield started


def trusting(url: str, folder: Path, issuer: Issuer, **more: Any) -> GuardedServer:
    said: dict[str, Any] = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, **more}
    return GuardedServer(url, folder, **said)


def token(issuer: Issuer, *, seconds: int = 600, **more: Any) -> str:
    now = int(time.time())
    return issuer.token(**{"iat": now - 5, "exp": now + seconds, **more})


def refusal(call: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_a_caller_may_do_what_its_name_its_groups_and_its_claims_were_given(
    sqlite_url: str, tmp_path: Path, issuer: Issuer
) -> None:
    rules = ["team=ml=registrar"]
    with (
        trusting(sqlite_url, tmp_path, issuer, oidc_roles=rules) as server,
        server.door() as admin,
    ):
        grant(admin, "oidc:ana", "approver", model="risk-*")
        grant(admin, "group:ops", "deployer", stage="Production")
        shown = token(issuer, team="ml", groups=["ops", "x"])

        said = admin("GetCaller", token=shown)
        made = pb.CreateModelRequest(model=pb.Model(name="churn"))
        admin("CreateModel", made, token=shown)

        assert (said.subject, list(said.groups)) == ("oidc:ana", ["ops", "x"])
        assert said.method == pb.AUTHENTICATION_METHOD_OIDC
        assert said.expire_time.seconds > time.time()
        assert {(scope.role, scope.model, scope.stage.lower()) for scope in said.scopes} == {
            (pb.ROLE_REGISTRAR, "*", ""),
            (pb.ROLE_APPROVER, "risk-*", ""),
            (pb.ROLE_DEPLOYER, "*", "production"),
        }
        # Another's claims give another nothing.
        assert admin.refusal("CreateModel", made, token=token(issuer)) == "PERMISSION_DENIED"
        assert admin("ListEvents", pb.ListEventsRequest(actor="oidc:ana")).events


def test_a_token_is_taken_on_http_too(server: GuardedServer, issuer: Issuer) -> None:
    with server.door() as admin:
        grant(admin, "oidc:ana", "viewer")
    shown = token(issuer)
    url = server.http_url + SEARCH

    assert httpx.get(url, headers={"Authorization": f"Bearer {shown}"}).status_code == 200
    assert httpx.get(url, auth=("anything", shown)).status_code == 200
    assert httpx.get(url, auth=("anything", shown[:-8])).status_code == 401


def test_each_refusal_says_what_to_do(server: GuardedServer, issuer: Issuer) -> None:
    shown = {
        token(issuer, aud="another"): "CREDENTIALS_INVALID",
        token(issuer, seconds=-60): "CREDENTIALS_EXPIRED",
        "x" * 6_000: "CREDENTIALS_INVALID",
    }
    with server.door() as door:
        for secret, reason in shown.items():
            error = refusal(lambda secret=secret: door("ListModels", token=secret))
            details = statuses.of(error)
            assert (details.reason, error.code()) == (reason, grpc.StatusCode.UNAUTHENTICATED)
            assert secret not in str(error)
            answer = httpx.get(server.http_url + SEARCH, auth=("", secret))
            assert answer.status_code == 401
            assert secret not in answer.text


def test_while_the_provider_is_away_its_users_are_told_to_come_again(
    sqlite_url: str, tmp_path: Path, issuer: Issuer
) -> None:
    shown = token(issuer)
    issuer.stop()
    with trusting(sqlite_url, tmp_path, issuer) as server, server.door() as door:
        error = refusal(lambda: door("ListModels", token=shown))

        details = statuses.of(error)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert details.reason == "IDENTITY_PROVIDER_UNAVAILABLE"
        assert details.retry_after is not None
        assert 0 < details.retry_after <= PAUSE_SECONDS
        assert httpx.get(server.http_url + SEARCH, auth=("", shown)).status_code == 503
        # Whoever has a token of the registry's own is none the worse.
        door("ListModels")


def test_the_keys_are_there_before_the_first_caller(server: GuardedServer, issuer: Issuer) -> None:
    eventually(lambda: len(issuer.asked) == 2)
    with server.door() as door:
        eventually(lambda: door("GetCaller", token=token(issuer)).subject == "oidc:ana")

    assert len(issuer.asked) == 2


def test_a_provider_that_hangs_holds_up_nobody_else(
    sqlite_url: str, tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than this test may take.
    monkeypatch.setattr(provider, "FETCH_SECONDS", 100.0)
    gate = threading.Event()

    def wait(listener: BaseHTTPRequestHandler) -> None:
        gate.wait(60)
        issuer.answer(listener)

    issuer.answers[DISCOVERY] = wait
    shown = token(issuer)
    with (
        trusting(sqlite_url, tmp_path, issuer, pool_threads=4) as server,
        server.door() as door,
        ThreadPoolExecutor(30) as pool,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(gate.set)

        def call() -> str:
            try:
                door("GetCaller", token=shown)
            except grpc.RpcError as error:
                return statuses.of(error).reason
            return "let in"

        eventually(lambda: len(issuer.asked) == 1)
        calls = [pool.submit(call) for _ in range(30)]
        # Some wait, the others are told at once, and those of other tokens are let in.
        eventually(lambda: sum(one.done() for one in calls) > 30 - MOST_WAITING)
        _, secret = make_token(door, "alice")
        door("GetCaller", token=secret)
        gate.set()
        reasons = [one.result() for one in calls]

    assert set(reasons) == {"let in", "IDENTITY_PROVIDER_UNAVAILABLE"}
    assert 0 < reasons.count("let in") < MOST_WAITING


def test_a_watch_ends_with_the_token(sqlite_url: str, tmp_path: Path, issuer: Issuer) -> None:
    with (
        trusting(sqlite_url, tmp_path, issuer, oidc_leeway_seconds=0) as server,
        server.door() as door,
    ):
        grant(door, "oidc:ana", "viewer")
        stream = door.stream("Watch", token=token(issuer, seconds=4))
        next(stream)

        error = refusal(lambda: list(stream))

    assert statuses.of(error).reason == "CREDENTIALS_EXPIRED"


def test_a_token_with_many_groups_is_taken_each_time(server: GuardedServer, issuer: Issuer) -> None:
    groups = [str(uuid.uuid4()) for _ in range(MOST_GROUPS)]
    shown = token(issuer, groups=groups)
    assert 10_000 < len(shown) < MOST_CHARACTERS

    with server.door() as door:
        for _ in range(20):
            assert list(door("GetCaller", token=shown).groups) == groups
    headers = {"Authorization": f"Bearer {shown}"}
    answer = httpx.get(server.http_url + SEARCH, headers=headers)

    # Known, and without any grant.
    assert "identity" not in answer.text
    assert answer.status_code == 404
