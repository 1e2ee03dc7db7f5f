"""Who is let in: tokens from their making to their end, on one server and on its neighbours."""

from __future__ import annotations

import base64
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stagewire import pb
from stagewire.client import statuses
from stagewire.store.database import StartRefusal
from tests.factories import eventually, sql
from tests.guarded import METHODS, Door, GuardedServer, grant, make_secret, make_token
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEEN = pb.ListModelsRequest()


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[GuardedServer]:
    with GuardedServer(database_url, tmp_path) as started:
        yield started


@pytest.fixture
def admin(server: GuardedServer) -> Iterator[Door]:
    with server.door() as door:
        yield door


def ends_in(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromNanoseconds(int((time.time() + seconds) * 1e9))
    return moment


def test_whoever_shows_nothing_is_let_into_nothing_but_health(server: GuardedServer) -> None:
    with server.door("") as nobody:
        for name, method in METHODS.items():
            if method.server_streaming:
                with pytest.raises(grpc.RpcError) as caught:
                    next(nobody.stream(name))
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, name
            else:
                assert nobody.refusal(name) == "CREDENTIALS_MISSING", name
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection = reflection_pb2_grpc.ServerReflectionStub(nobody.channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(reflection.ServerReflectionInfo(iter([question]), timeout=20))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        health = health_pb2_grpc.HealthStub(nobody.channel)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 1


def test_reflection_answers_whoever_is_let_in(server: GuardedServer, admin: Door) -> None:
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(admin.channel)

    answer = next(
        stub.ServerReflectionInfo(iter([question]), metadata=admin.metadata(), timeout=20)
    )

    named = {service.name for service in answer.list_services_response.service}
    assert "modelregistry.v1.AccessService" in named


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Bearer nonsense",
        "Bearer sw_",
        "Bearer sw__",
        "Bearer sw_0123456789abcdef_" + "x" * 43,
        "Basic !!!",
        "Basic " + base64.b64encode(b"name-alone").decode(),
        "Basic " + base64.b64encode(b"admin:wrong").decode(),
        "Digest x",
        "Bearer " + "x" * 5000,
    ],
)
def test_whatever_is_no_token_is_refused(server: GuardedServer, header: str) -> None:
    with server.door() as door:
        assert door.refusal("ListModels", SEEN, header=header) == "CREDENTIALS_INVALID"


def test_one_wrong_letter_is_refused_and_the_right_ones_are_taken(admin: Door) -> None:
    other = "A" if admin.token[-1] != "A" else "B"
    assert admin.refusal("ListModels", token=admin.token[:-1] + other) == "CREDENTIALS_INVALID"

    basic = base64.b64encode(f"anyone:{admin.token}".encode()).decode()
    admin("ListModels", SEEN, header=f"Basic {basic}")
    admin("ListModels", SEEN, header=f"bearer  {admin.token}")


def test_a_token_is_known_at_once_and_may_do_what_its_subject_was_granted(admin: Door) -> None:
    _, secret = make_token(admin, "alice")
    assert admin.refusal("ListModels", SEEN, token=secret) == "NAMESPACE_NOT_FOUND"

    id_ = grant(admin, "alice", "viewer")
    admin("ListModels", SEEN, token=secret)
    made = pb.CreateModelRequest(model=pb.Model(name="churn"))
    assert admin.refusal("CreateModel", made, token=secret) == "PERMISSION_DENIED"

    admin("DeleteGrant", pb.DeleteGrantRequest(id=id_))
    assert admin.refusal("ListModels", SEEN, token=secret) == "NAMESPACE_NOT_FOUND"


def test_a_scope_narrows_and_never_adds(admin: Door) -> None:
    grant(admin, "alice", "editor", model="risk-*")
    reading = pb.Scope(role=pb.ROLE_VIEWER, model="*")
    ruling = pb.Scope(role=pb.ROLE_ADMIN, namespace="*")
    _, reader = make_token(admin, "alice", reading)
    _, ruler = make_token(admin, "alice", ruling)
    made = pb.CreateModelRequest(model=pb.Model(name="risk-1"))

    assert admin.refusal("CreateModel", made, token=reader) == "PERMISSION_DENIED"
    admin("CreateModel", made, token=ruler)
    assert admin.refusal("ListRefusals", token=ruler) == "PERMISSION_DENIED"
    made.model.name = "other"
    assert admin.refusal("CreateModel", made, token=ruler) == "PERMISSION_DENIED"


def test_a_revoked_token_is_refused_at_once_where_it_was_revoked(admin: Door) -> None:
    grant(admin, "alice", "viewer")
    for _ in range(20):
        id_, secret = make_token(admin, "alice")
        admin("ListModels", SEEN, token=secret)
        admin("RevokeToken", pb.RevokeTokenRequest(id=id_))
        assert admin.refusal("ListModels", SEEN, token=secret) == "CREDENTIALS_INVALID"


@pytest.mark.parametrize("listen", [True, False])
def test_other_servers_learn_of_it_within_two_seconds(
    postgres_url: str, tmp_path: Path, *, listen: bool
) -> None:
    with (
        GuardedServer(postgres_url, tmp_path, listen=listen) as one,
        GuardedServer(postgres_url, tmp_path, secret=one.secret, listen=listen) as two,
        one.door() as here,
        two.door() as there,
    ):
        grant(here, "alice", "viewer")
        id_, secret = make_token(here, "alice")
        # Made a moment ago, and looked for where it is not known yet.
        there("GetCaller", token=secret)
        eventually(lambda: _refused(there, secret) == "", seconds=2)

        here("RevokeToken", pb.RevokeTokenRequest(id=id_))

        eventually(
            lambda: _refused(there, secret) == "CREDENTIALS_INVALID",
            seconds=2,
        )


def _refused(door: Door, secret: str) -> str:
    """Say why a token is refused, or nothing when it is not."""
    try:
        door("ListModels", SEEN, token=secret)
    except grpc.RpcError as error:
        return statuses.of(error).reason
    return ""


def test_a_token_ends_when_it_said_it_would(admin: Door) -> None:
    grant(admin, "alice", "viewer")
    _, secret = make_token(admin, "alice", expire_time=ends_in(1.5))
    admin("ListModels", SEEN, token=secret)

    eventually(lambda: _refused(admin, secret) == "CREDENTIALS_EXPIRED", seconds=5)


def test_a_server_that_is_not_fresh_lets_nobody_in(server: GuardedServer, admin: Door) -> None:
    admin("ListModels", SEEN)
    tail = server.server.tail
    # As if the log had not been looked at for long: what the clock says then.
    tail.pace = type(tail.pace)(freshness=-1.0)

    assert admin.refusal("ListModels", SEEN) == "DATABASE_UNAVAILABLE"


def test_a_secret_is_shown_once_and_stored_nowhere(
    admin: Door, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    request = pb.CreateTokenRequest(token=pb.Token(subject="alice"), request_id="one")
    made = admin("CreateToken", request)

    assert admin.refusal("CreateToken", request) == "SECRET_SHOWN_ONCE"
    random = made.secret.split("_", 2)[2]
    for table in ("tokens", "requests", "log", "refusals"):
        for row in sql(database_url, f"SELECT * FROM {table}"):  # noqa: S608  # our own names
            assert random not in str(row)
            assert random.encode() not in b"".join(bytes(v) for v in row if isinstance(v, bytes))
    listed = admin("ListTokens").tokens
    assert {token.subject for token in listed} == {"admin", "alice"}
    assert random not in str(listed)
    assert random not in "".join(capfd.readouterr())


def test_the_last_admin_stays(admin: Door) -> None:
    (own,) = admin("ListTokens").tokens
    (root,) = admin("ListGrants").grants

    assert admin.refusal("RevokeToken", pb.RevokeTokenRequest(id=own.id)) == "LAST_ADMIN"
    assert admin.refusal("DeleteGrant", pb.DeleteGrantRequest(id=root.id)) == "LAST_ADMIN"

    second = grant(admin, "oidc:bob", "admin", namespace="*")
    admin("DeleteGrant", pb.DeleteGrantRequest(id=second))
    grant(admin, "oidc:bob", "admin", namespace="*")
    admin("RevokeToken", pb.RevokeTokenRequest(id=own.id))


def test_last_use_is_kept_and_written_once_however_often_it_was(
    server: GuardedServer, admin: Door, database_url: str
) -> None:
    for _ in range(50):
        admin("ListModels", SEEN)
    assert not sql(database_url, "SELECT * FROM token_uses")

    server.call(server.server.gate.ledger.write())  # type: ignore[union-attr]  # it controls

    assert len(sql(database_url, "SELECT * FROM token_uses")) == 1
    (token,) = admin("ListTokens").tokens
    assert time.time() - token.last_use_time.seconds < 30


def test_refusals_are_counted_and_listed(server: GuardedServer, admin: Door) -> None:
    _, secret = make_token(admin, "alice")
    grant(admin, "alice", "viewer")
    doomed = pb.DeleteModelRequest(model="churn")
    for _ in range(5):
        assert admin.refusal("DeleteModel", doomed, token=secret) == "PERMISSION_DENIED"
    admin.refusal("ListModels", token="sw_no_good")

    server.call(server.server.gate.ledger.write())  # type: ignore[union-attr]  # it controls

    found = {
        (r.caller, r.method.rpartition(".")[2], r.reason, r.model, r.count)
        for r in admin("ListRefusals").refusals
    }
    assert found == {
        ("alice", "DeleteModel", "PERMISSION_DENIED", "churn", 5),
        ("", "ListModels", "CREDENTIALS_INVALID", "", 1),
    }
    assert {r.peer for r in admin("ListRefusals").refusals} == {"127.0.0.1"}


def test_whoever_calls_is_told_who_that_is(admin: Door) -> None:
    grant(admin, "alice", "editor", model="risk-*", stage="staging")
    id_, secret = make_token(admin, "alice")

    said = admin("GetCaller", token=secret)

    assert (said.subject, said.method, said.token_id) == (
        "alice",
        pb.AUTHENTICATION_METHOD_TOKEN,
        id_,
    )
    (scope,) = said.scopes
    assert (scope.role, scope.model, scope.stage) == (pb.ROLE_EDITOR, "risk-*", "staging")


def test_what_was_heard_is_what_a_new_server_reads(
    server: GuardedServer, admin: Door, database_url: str, tmp_path: Path
) -> None:
    kept = []
    for number in range(6):
        id_, _ = make_token(admin, f"s{number % 3}")
        found = grant(admin, f"s{number % 3}", "viewer", model=f"m{number}*")
        if number % 2:
            admin("RevokeToken", pb.RevokeTokenRequest(id=id_))
            admin("DeleteGrant", pb.DeleteGrantRequest(id=found))
        else:
            kept.append(id_)
    directory = server.server.gate.directory  # type: ignore[union-attr]  # it controls
    tokens, scopes = dict(directory._tokens), dict(directory._scopes)
    assert set(kept) < set(tokens)

    server.call(_reloaded(directory))

    assert (directory._tokens, dict(directory._scopes)) == (tokens, scopes)


async def _reloaded(directory: Any) -> None:
    directory.start_over()
    await directory._loading


def test_a_bootstrap_file_is_adopted_once(database_url: str, tmp_path: Path) -> None:
    with GuardedServer(database_url, tmp_path) as first, first.door() as door:
        assert door("GetCaller").subject == "admin"
        kept = first.secret
    with GuardedServer(database_url, tmp_path) as second, second.door() as door:
        assert door.refusal("GetCaller") == "CREDENTIALS_INVALID"
        assert door("GetCaller", token=kept).subject == "admin"


def test_a_file_that_names_no_token_is_refused(database_url: str, tmp_path: Path) -> None:
    with (
        pytest.raises(StartRefusal, match="stagewire admin bootstrap"),
        GuardedServer(database_url, tmp_path, secret="open sesame"),
    ):
        pytest.fail("it started")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "--tls-certificate-file"),
        ({"allow_plaintext": True}, "stagewire admin bootstrap"),
        ({"allow_plaintext": True, "auth": "off"}, "--allow-anonymous"),
        ({"allow_plaintext": True, "auth": "on"}, "stagewire admin bootstrap"),
    ],
)
def test_a_fresh_server_beyond_this_host_needs_somebody_to_let_in(
    sqlite_url: str, settings: dict[str, Any], text: str
) -> None:
    with (
        pytest.raises(StartRefusal, match=text),
        RunningServer(sqlite_url, grpc_address="0.0.0.0:0", **settings),
    ):
        pytest.fail("it started")


def test_on_this_host_access_is_open_until_there_is_a_token(sqlite_url: str) -> None:
    with RunningServer(sqlite_url) as server, Door(server.address) as door:
        assert door("GetCaller").subject == "anonymous"
        _, secret = make_token(door, "root")
        grant(door, "root", "admin", namespace="*")
    with RunningServer(sqlite_url) as server, Door(server.address) as door:
        assert door.refusal("GetCaller") == "CREDENTIALS_MISSING"
        assert door("GetCaller", token=secret).subject == "root"
    with RunningServer(sqlite_url, auth="off") as server, Door(server.address) as door:
        assert door("GetCaller").subject == "anonymous"


def test_access_stays_controlled_when_every_token_has_ended(sqlite_url: str) -> None:
    with RunningServer(sqlite_url) as server, Door(server.address) as door:
        id_, _ = make_token(door, "root")
        door("RevokeToken", pb.RevokeTokenRequest(id=id_))

    with (
        pytest.raises(StartRefusal, match="stagewire admin bootstrap"),
        RunningServer(sqlite_url),
    ):
        pytest.fail("it started")


def test_servers_that_start_together_adopt_one_admin(postgres_url: str, tmp_path: Path) -> None:
    secret = make_secret()
    (tmp_path / "bootstrap").write_text(secret)
    settings = {"bootstrap_token_file": str(tmp_path / "bootstrap")}

    def start(_number: int) -> str:
        with (
            RunningServer(postgres_url, **settings) as server,
            Door(server.address, secret) as door,
        ):
            return str(door("GetCaller").subject)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(start, range(4))) == {"admin"}
    (admins,) = sql(postgres_url, "SELECT count(*) FROM grants WHERE namespace = '*'")
    assert admins[0] == 1
