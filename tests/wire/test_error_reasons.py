"""Every refusal of the contract, provoked by real means and received over the wire."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import Client, errors, statuses
from stagewire.errors import CODES
from stagewire.server import interceptors
from stagewire.store import postgresql
from tests.factories import eventually, sql
from tests.guarded import GuardedServer
from tests.servers import RunningServer
from tests.wire.streams import Stream

Case = Callable[["Scene"], None]

CASES: dict[str, Case] = {}


class Scene:
    """What a case plays on: a database, servers on it, and a client of the first."""

    def __init__(
        self, url: str, stack: contextlib.ExitStack, request: pytest.FixtureRequest
    ) -> None:
        self.url = url
        self.stack = stack
        self.request = request
        self._client: Client | None = None

    def serve(self, url: str = "", **settings: Any) -> RunningServer:
        """Start a server."""
        return self.stack.enter_context(RunningServer(url or self.url, **settings))

    def connect(self, server: RunningServer) -> Client:
        """Make a client of a server."""
        return self.stack.enter_context(Client(server.address))

    @property
    def client(self) -> Client:
        """A client of an ordinary server."""
        if self._client is None:
            self._client = self.connect(self.serve())
        return self._client

    def churn(self, versions: int = 1, name: str = "churn") -> Client:
        """Have a model with so many versions."""
        create_model(self.client, name)
        for _ in range(versions):
            self.client.registry.CreateModelVersion(pb.CreateModelVersionRequest(model=name))
        return self.client


def case(reason: str) -> Callable[[Case], Case]:
    """Register what provokes a refusal: it ends by raising it."""

    def register(play: Case) -> Case:
        assert reason not in CASES
        CASES[reason] = play
        return play

    return register


def create_model(client: Client, name: str = "churn", **fields: Any) -> pb.CreateModelResponse:
    request = pb.CreateModelRequest(model=pb.Model(name=name, **fields))
    return client.registry.CreateModel(request)


def delete_model(client: Client, name: str = "churn") -> pb.Model:
    return client.registry.DeleteModel(pb.DeleteModelRequest(model=name)).model


def delete_version(client: Client, number: int) -> None:
    request = pb.DeleteModelVersionRequest(model="churn", version=number, force=True)
    client.registry.DeleteModelVersion(request)


def set_alias(client: Client, number: int) -> None:
    request = pb.SetAliasRequest(model="churn", alias="champion", version=number)
    client.registry.SetAlias(request)


def list_versions(client: Client, **fields: Any) -> pb.ListModelVersionsResponse:
    return client.registry.ListModelVersions(pb.ListModelVersionsRequest(**fields))


@case("INVALID_FIELD")
def _(scene: Scene) -> None:
    create_model(scene.client, "a/b")


def create_from(scene: Scene, source: str) -> None:
    client = scene.connect(scene.serve(source_policy="traversal"))
    create_model(client)
    wanted = pb.ModelVersion(source=source)
    client.registry.CreateModelVersion(pb.CreateModelVersionRequest(model="churn", version=wanted))


@case("SOURCE_UNSAFE")
def _(scene: Scene) -> None:
    create_from(scene, "s3://models/%2e%2e/secret")


@case("SOURCE_NOT_IN_RUN")
def _(scene: Scene) -> None:
    create_from(scene, "/etc")


@case("INVALID_FILTER")
def _(scene: Scene) -> None:
    list_versions(scene.client, filter="stage = = 'x'")


@case("INVALID_ORDER_BY")
def _(scene: Scene) -> None:
    list_versions(scene.client, order_by="colour desc")


@case("INVALID_PAGE_TOKEN")
def _(scene: Scene) -> None:
    page = list_versions(scene.churn(2), page_size=1)
    list_versions(scene.client, page_token=page.next_page_token, filter="version > 1")


@case("INVALID_CURSOR")
def _(scene: Scene) -> None:
    cursor = bytearray(cursor_of(scene.client))
    cursor[5] ^= 1
    resume(scene.client, bytes(cursor))


@case("INVALID_UPDATE_MASK")
def _(scene: Scene) -> None:
    request = pb.UpdateModelRequest(
        model="churn", update=pb.ModelUpdate(), update_mask=FieldMask(paths=["name"])
    )
    scene.churn(0).registry.UpdateModel(request)


@case("REQUEST_ID_REUSED")
def _(scene: Scene) -> None:
    for name in ("a", "b"):
        request = pb.CreateModelRequest(model=pb.Model(name=name), request_id="one")
        scene.client.registry.CreateModel(request)


def limit(client: Client, **quota: int) -> None:
    request = pb.UpdateNamespaceRequest(
        name="default", update=pb.NamespaceUpdate(quota=pb.Quota(**quota))
    )
    request.update_mask.paths.append("quota")
    client.namespaces.UpdateNamespace(request)


@case("QUOTA_EXCEEDED")
def _(scene: Scene) -> None:
    limit(scene.client, max_models=1)
    create_model(scene.client, "a")
    create_model(scene.client, "b")


@case("RATE_LIMITED")
def _(scene: Scene) -> None:
    limit(scene.client, requests_per_second=1)

    def ask_again() -> bool:
        list_versions(scene.client)
        return False

    eventually(ask_again)


@case("NAMESPACE_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.client.registry.ListModels(pb.ListModelsRequest(namespace="nowhere"))


@case("MODEL_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.client.resolve("ghost")


@case("VERSION_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.churn().resolve("churn", version=99)


@case("STAGE_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.churn().promote("churn", 1, "Prodution")


@case("ALIAS_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.churn().resolve("churn", alias="challenger")


@case("AGENT_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.client.deployments.ForgetAgent(pb.ForgetAgentRequest(agent="gpu-7"))


@case("STAGE_EMPTY")
def _(scene: Scene) -> None:
    scene.churn().resolve("churn", stage="Production")


@case("NAMESPACE_EXISTS")
def _(scene: Scene) -> None:
    request = pb.CreateNamespaceRequest(namespace=pb.Namespace(name="default"))
    scene.client.namespaces.CreateNamespace(request)


@case("MODEL_EXISTS")
def _(scene: Scene) -> None:
    create_model(scene.churn(0))


@case("STAGE_EXISTS")
def _(scene: Scene) -> None:
    scene.client.stages.CreateStage(pb.CreateStageRequest(stage=pb.Stage(name="production")))


@case("ALIAS_EXISTS")
def _(scene: Scene) -> None:
    set_alias(scene.churn(2), 1)
    set_alias(scene.client, 2)


@case("IMPORT_CONFLICT")
def _(scene: Scene) -> None:
    model = pb.ModelRecord(model=pb.Model(id="another", name="churn"))
    request = pb.ImportRegistryRequest(records=[pb.RegistryRecord(model=model)])
    scene.churn(0).configuration.ImportRegistry(request)


@case("REVISION_MISMATCH")
def _(scene: Scene) -> None:
    request = pb.SetModelTagsRequest(model="churn", tags={"a": "1"}, expected_revision=1)
    scene.churn(0).registry.SetModelTags(request)


@case("CONTENTION")
def _(scene: Scene) -> None:
    # An operator's own session holds what every write needs; one wait of the real 2 s is enough.
    scene.request.getfixturevalue("monkeypatch").setattr(postgresql, "WRITE_SECONDS", 0.1)
    url = scene.request.getfixturevalue("postgres_url")
    client = scene.connect(scene.serve(url))
    with operator(url) as session:
        session.execute("SELECT 1 FROM log_head FOR UPDATE")
        create_model(client)


@case("RENAMED")
def _(scene: Scene) -> None:
    request = pb.RenameModelRequest(model="churn", new_name="leavers")
    scene.churn().registry.RenameModel(request)
    scene.client.promote("churn", 1, "Staging")


@case("NAME_HAS_HISTORY")
def _(scene: Scene) -> None:
    delete_model(scene.churn(1, "old"), "old")
    scene.churn(1).registry.RenameModel(pb.RenameModelRequest(model="churn", new_name="old"))


@case("MODEL_IN_USE")
def _(scene: Scene) -> None:
    set_alias(scene.churn(), 1)
    delete_model(scene.client)


@case("VERSION_IN_USE")
def _(scene: Scene) -> None:
    scene.churn().promote("churn", 1, "Production")
    request = pb.DeleteModelVersionRequest(model="churn", version=1)
    scene.client.registry.DeleteModelVersion(request)


@case("STAGE_IN_USE")
def _(scene: Scene) -> None:
    scene.client.stages.DeleteStage(pb.DeleteStageRequest(stage="Archived"))


@case("NAMESPACE_NOT_EMPTY")
def _(scene: Scene) -> None:
    create = pb.CreateNamespaceRequest(namespace=pb.Namespace(name="risk"))
    scene.client.namespaces.CreateNamespace(create)
    model = pb.CreateModelRequest(namespace="risk", model=pb.Model(name="churn"))
    scene.client.registry.CreateModel(model)
    scene.client.namespaces.DeleteNamespace(pb.DeleteNamespaceRequest(name="risk"))


@case("STAGE_OCCUPIED")
def _(scene: Scene) -> None:
    stage = pb.Stage(name="Canary", occupancy=pb.STAGE_OCCUPANCY_EXCLUSIVE_REFUSING)
    scene.churn(2).stages.CreateStage(pb.CreateStageRequest(stage=stage))
    for number in (1, 2):
        scene.client.promote("churn", number, "Canary")


@case("VERSION_NOT_READY")
def _(scene: Scene) -> None:
    pending = pb.ModelVersion(status=pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION)
    request = pb.CreateModelVersionRequest(model="churn", version=pending)
    scene.churn(0).registry.CreateModelVersion(request)
    scene.client.promote("churn", 1, "Staging")


@case("NOTHING_TO_ROLL_BACK")
def _(scene: Scene) -> None:
    scene.churn().promote("churn", 1, "Production")
    scene.client.rollback("churn", "Production")


@case("ROLLBACK_TARGET_DELETED")
def _(scene: Scene) -> None:
    for number in (1, 2):
        (scene.churn(2) if number == 1 else scene.client).promote("churn", number, "Production")
    delete_version(scene.client, 1)
    scene.client.rollback("churn", "Production")


@case("NOT_DELETED")
def _(scene: Scene) -> None:
    made = create_model(scene.client).model
    scene.client.registry.PurgeModel(pb.PurgeModelRequest(model_id=made.id, reason="law"))


@case("PURGED")
def _(scene: Scene) -> None:
    made = delete_model(scene.churn(0))
    scene.client.registry.PurgeModel(pb.PurgeModelRequest(model_id=made.id, reason="law"))
    scene.client.registry.UndeleteModel(pb.UndeleteModelRequest(model_id=made.id))


@case("NAMESPACE_PROTECTED")
def _(scene: Scene) -> None:
    scene.client.namespaces.DeleteNamespace(pb.DeleteNamespaceRequest(name="default"))


@case("REVISION_AHEAD")
def _(scene: Scene) -> None:
    scene.client.registry.ListModels(pb.ListModelsRequest(min_revision=10**9))


@case("CURSOR_AHEAD")
def _(scene: Scene) -> None:
    resume(*restored(scene))


@case("LOG_DIVERGED")
def _(scene: Scene) -> None:
    client, cursor = restored(scene)
    for name in ("other", "than", "before"):
        create_model(client, name)
    resume(client, cursor)


@case("OTHER_LOG")
def _(scene: Scene) -> None:
    cursor = cursor_of(scene.client)
    url = scene.request.getfixturevalue("postgres_url")
    resume(scene.connect(scene.serve(url)), cursor)


@case("COMPACTED")
def _(scene: Scene) -> None:
    cursor = cursor_of(scene.client)
    scene.churn(2)
    sql(
        scene.url,
        "UPDATE log_head SET compacted_revision = 2, "
        "compacted_hash = (SELECT chain_hash FROM log WHERE revision = 2)",
    )
    sql(scene.url, "DELETE FROM log WHERE revision <= 2")
    resume(scene.client, cursor)


@case("FILTER_CHANGED")
def _(scene: Scene) -> None:
    resume(scene.client, cursor_of(scene.client), stages=["Production"])


@case("TRANSACTION_TOO_LARGE")
def _(scene: Scene) -> None:
    texts = {f"{number:0240}": "x" * 1000 for number in range(500)}
    request = pb.CreateModelVersionRequest(
        model="churn", version=pb.ModelVersion(tags=texts, params=texts)
    )
    scene.churn(0).registry.CreateModelVersion(request)


@case("SLOW_CONSUMER")
def _(scene: Scene) -> None:
    server = scene.serve(slow_consumer_seconds=0.3)
    client = scene.connect(server)
    create_model(client)
    big = pb.ModelVersion(params={f"p{number}": "x" * 1000 for number in range(200)})
    for _ in range(10):
        request = pb.CreateModelVersionRequest(model="churn", version=big)
        client.registry.CreateModelVersion(request)
    # Windows that don't grow, so that few bytes make the server wait.
    options = [("grpc.http2.bdp_probe", 0)]
    with grpc.insecure_channel(server.address, options) as channel:
        request_all = pb.WatchRequest(start=pb.WATCH_START_BEGINNING)
        stream: Any = WatchServiceStub(channel).Watch(request_all, timeout=60)
        next(stream)
        eventually(lambda: server.server.watches.open == 0)
        read_out(stream)


@case("OVERLOADED")
def _(scene: Scene) -> None:
    server = scene.serve(max_pending_calls=1)
    waiting, refused = scene.connect(server), scene.connect(server)
    with writer_held(server):
        pending = threading.Thread(target=create_model, args=(waiting,))
        pending.start()
        scene.stack.callback(pending.join)
        eventually(lambda: server.server.admission.now == 1)
        refused.registry.ListModels(pb.ListModelsRequest())


@case("TOO_MANY_WATCHES")
def _(scene: Scene) -> None:
    cursor_of(scene.connect(scene.serve(max_watches=0)))


@case("DEADLINE_PASSED")
def _(scene: Scene) -> None:
    # A client's own clock ends a call before the server can say so; this caller has none.
    monkeypatch = scene.request.getfixturevalue("monkeypatch")
    monkeypatch.setattr(interceptors, "_deadline", lambda _context, now: now - 1)
    create_model(scene.client)


@case("DATABASE_UNAVAILABLE")
def _(scene: Scene) -> None:
    url = scene.request.getfixturevalue("postgres_url")
    client = scene.connect(scene.serve(url))
    with operator(scene.request.getfixturevalue("postgres"), autocommit=True) as session:
        name = url.rpartition("/")[2].partition("?")[0]
        session.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
    create_model(client)


@case("SHUTTING_DOWN")
def _(scene: Scene) -> None:
    server = RunningServer(scene.url, goodbye_seconds=20.0)
    with contextlib.ExitStack() as stack:
        server.__enter__()
        client, late = scene.connect(server), scene.connect(server)
        late.registry.ListModels(pb.ListModelsRequest())
        # Of several streams one at least is still to be said goodbye to when the late one comes.
        streams = [Stream(client, pb.WatchRequest(start=pb.WATCH_START_NOW)) for _ in range(5)]
        for stream in streams:
            stream.hello()
        stopping = threading.Thread(target=server.__exit__, args=(None, None, None))
        stopping.start()
        stack.callback(stopping.join)
        for stream in streams:
            stack.callback(stream.__exit__, None, None, None)
        eventually(server.server.watches._ending.is_set)
        cursor_of(late)


@case("INTERNAL")
def _(scene: Scene) -> None:
    scene.churn(0)
    sql(scene.url, "DROP TABLE model_tags")
    scene.client.registry.GetModel(pb.GetModelRequest(model="churn"))


def create_webhook(client: Client, url: str = "https://203.0.113.9/", **fields: Any) -> str:
    wanted = pb.Webhook(name="ci", url=url, events=["*"], **fields)
    return client.webhooks.CreateWebhook(pb.CreateWebhookRequest(webhook=wanted)).webhook.id


#: Where deliveries of a test may lead.
NEAR: dict[str, Any] = {
    "webhook_allowed_schemes": ["http", "https"],
    "webhook_allow_private_addresses": True,
}


@case("WEBHOOK_ADDRESS_REFUSED")
def _(scene: Scene) -> None:
    create_webhook(scene.client, "https://127.0.0.1/hook")


@case("WEBHOOK_NOT_FOUND")
def _(scene: Scene) -> None:
    client = scene.connect(scene.serve(**NEAR))
    id_ = create_webhook(client)
    client.webhooks.DeleteWebhook(pb.DeleteWebhookRequest(id=id_))
    client.webhooks.GetWebhook(pb.GetWebhookRequest(id=id_))


@case("DELIVERY_NOT_FOUND")
def _(scene: Scene) -> None:
    client = scene.connect(scene.serve(**NEAR))
    request = pb.RedeliverWebhookRequest(id=create_webhook(client), delivery_id="ghost")
    client.webhooks.RedeliverWebhook(request)


@case("WEBHOOK_DISABLED")
def _(scene: Scene) -> None:
    client = scene.connect(scene.serve(**NEAR))
    id_ = create_webhook(client, status=pb.WEBHOOK_STATUS_DISABLED)
    request = pb.RedeliverWebhookRequest(id=id_, dead_since_revision=1)
    client.webhooks.RedeliverWebhook(request)


@case("SECRETS_KEY_MISSING")
def _(scene: Scene) -> None:
    # A file beside an SQLite file's would be made; a database that servers share has none.
    url = scene.request.getfixturevalue("postgres_url")
    client = scene.connect(scene.serve(url, **NEAR))
    create_webhook(client, secret="hidden")


def cursor_of(client: Client) -> bytes:
    """Take the cursor of a snapshot."""
    with Stream(client) as stream:
        return stream.until("snapshot_end")[-1].snapshot_end.cursor


def resume(client: Client, cursor: bytes, **filter_: Any) -> None:
    """Resume a watch after a cursor, without asking for a snapshot."""
    request = pb.WatchRequest(cursor=cursor, filter=pb.WatchFilter(**filter_))
    with Stream(client, request) as stream:
        stream.next()


def restored(scene: Scene) -> tuple[Client, bytes]:
    """Give out a cursor, then serve the registry again from a backup older than that."""
    path = Path(scene.url.removeprefix("sqlite:///"))
    backup = path.with_suffix(".backup")
    shutil.copy(path, backup)
    with RunningServer(scene.url) as server, Client(server.address) as client:
        create_model(client)
        cursor = cursor_of(client)
    shutil.copy(backup, path)
    return scene.client, cursor


def read_out(stream: Any) -> None:
    """Read what a stream still holds, to its end."""
    try:
        for _ in stream:
            pass
    except grpc.RpcError as error:
        raise statuses.of(error) from error


@contextlib.contextmanager
def operator(url: str, *, autocommit: bool = False) -> Iterator[Any]:
    """Open an operator's own session."""
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=autocommit) as session:
        yield session


@contextlib.contextmanager
def writer_held(server: RunningServer) -> Iterator[None]:
    """Keep SQLite's writer busy."""
    held, done = threading.Event(), threading.Event()

    def hold(_tx: object) -> None:
        held.set()
        done.wait(30)

    database = server.server.database
    assert database is not None
    thread = threading.Thread(target=database.write, args=(hold,))
    thread.start()
    assert held.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join()


def guarded(scene: Scene, **settings: Any) -> tuple[GuardedServer, Client]:
    """Start a server that asks who calls, and give its admin."""
    folder = Path(scene.request.getfixturevalue("tmp_path"))
    server = scene.stack.enter_context(GuardedServer(scene.url, folder, **settings))
    return server, come(scene, server, server.secret)


def come(scene: Scene, server: RunningServer, token: str) -> Client:
    """Call a server with a token."""
    return scene.stack.enter_context(Client(server.address, token=token))


def head(client: Client) -> None:
    client.watches.GetHead(pb.GetHeadRequest())


@case("CREDENTIALS_MISSING")
def _(scene: Scene) -> None:
    server, _ = guarded(scene)
    head(come(scene, server, ""))


@case("CREDENTIALS_INVALID")
def _(scene: Scene) -> None:
    server, _ = guarded(scene)
    head(come(scene, server, "sw_0123456789abcdef_wrong"))


@case("CREDENTIALS_EXPIRED")
def _(scene: Scene) -> None:
    server, admin = guarded(scene)
    token = pb.Token(subject="alice")
    token.expire_time.FromNanoseconds(time.time_ns() + 500_000_000)
    made = admin.access.CreateToken(pb.CreateTokenRequest(token=token))
    alice = come(scene, server, made.secret)
    for _ in range(100):
        head(alice)
        time.sleep(0.02)


@case("IDENTITY_PROVIDER_UNAVAILABLE")
def _(scene: Scene) -> None:
    nowhere = "http://127.0.0.1:9"
    server, _ = guarded(scene, oidc_issuer=nowhere, oidc_audience="registry")
    said = ({"alg": "RS256", "kid": "a"}, {"iss": nowhere, "aud": "registry"})
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in said]
    head(come(scene, server, b".".join([*parts, b"AAAA"]).decode()))


@case("PERMISSION_DENIED")
def _(scene: Scene) -> None:
    server, admin = guarded(scene)
    viewer = pb.Grant(subject="alice", scope=pb.Scope(role=pb.ROLE_VIEWER))
    admin.access.CreateGrant(pb.CreateGrantRequest(grant=viewer))
    token = pb.CreateTokenRequest(token=pb.Token(subject="alice"))
    made = admin.access.CreateToken(token)
    come(scene, server, made.secret).registry.DeleteModel(pb.DeleteModelRequest(model="churn"))


@case("TOKEN_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.client.access.RevokeToken(pb.RevokeTokenRequest(id="none"))


@case("GRANT_NOT_FOUND")
def _(scene: Scene) -> None:
    scene.client.access.DeleteGrant(pb.DeleteGrantRequest(id="none"))


@case("SECRET_SHOWN_ONCE")
def _(scene: Scene) -> None:
    for _ in range(2):
        request = pb.CreateTokenRequest(token=pb.Token(subject="alice"), request_id="one")
        scene.client.access.CreateToken(request)


@case("LAST_ADMIN")
def _(scene: Scene) -> None:
    _, admin = guarded(scene)
    (root,) = admin.access.ListGrants(pb.ListGrantsRequest()).grants
    admin.access.DeleteGrant(pb.DeleteGrantRequest(id=root.id))


@case("PERMISSIONS_CHANGED")
def _(scene: Scene) -> None:
    server, admin = guarded(scene)
    token = pb.CreateTokenRequest(token=pb.Token(subject="alice"))
    alice = come(scene, server, admin.access.CreateToken(token).secret)
    for model in ("churn", "fraud"):
        scope = pb.Scope(role=pb.ROLE_VIEWER, model=model)
        seen = pb.Grant(subject="alice", scope=scope)
        admin.access.CreateGrant(pb.CreateGrantRequest(grant=seen))
        if model == "churn":
            cursor = cursor_of(alice)
    resume(alice, cursor)


@pytest.fixture
def scene(sqlite_url: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with contextlib.ExitStack() as stack:
        yield Scene(sqlite_url, stack, request)


@pytest.mark.parametrize("reason", sorted(CASES))
def test_a_refusal_arrives_with_its_code_reason_and_details(scene: Scene, reason: str) -> None:
    with pytest.raises(errors.StagewireError) as caught:
        CASES[reason](scene)

    refusal = caught.value
    assert refusal.reason == reason, refusal.message
    assert refusal.code is getattr(grpc.StatusCode, CODES[reason])
    assert refusal.message
    assert_says_what_its_code_promises(refusal)


#: What the client's own cursor stands in the way of.
UNGATED = {"OTHER_LOG", "FILTER_CHANGED", "PERMISSIONS_CHANGED"}
WITHOUT_RETRY = {"QUOTA_EXCEEDED", "TRANSACTION_TOO_LARGE"}
POSITIONS = {"REVISION_AHEAD", "CURSOR_AHEAD", "LOG_DIVERGED", "COMPACTED", "OTHER_LOG"}
METADATA = {
    "REVISION_MISMATCH": {"current_revision"},
    "RENAMED": {"model"},
    "ALIAS_EXISTS": {"version"},
    "SECRET_SHOWN_ONCE": {"token_id"},
    "QUOTA_EXCEEDED": {"quota", "limit", "used", "namespace"},
    "RATE_LIMITED": {"quota", "limit", "subject"},
    "PERMISSION_DENIED": {"subject", "role", "namespace", "model", "stage", "alias"},
    **{
        reason: {"log_id", "head"}
        for reason in (*POSITIONS, "FILTER_CHANGED", "PERMISSIONS_CHANGED")
    },
}


def assert_says_what_its_code_promises(refusal: errors.StagewireError) -> None:
    code, reason = refusal.code.name, refusal.reason
    assert set(refusal.metadata) == METADATA.get(reason, set())
    assert bool(refusal.field_violations) == (code == "INVALID_ARGUMENT")
    about_a_resource = code in {"NOT_FOUND", "ALREADY_EXISTS"}
    assert refusal.resource is not None or not about_a_resource
    gated = code == "FAILED_PRECONDITION" and reason not in UNGATED
    assert bool(refusal.preconditions) == gated
    waits = {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}
    waiting_helps = (code in waits and reason not in WITHOUT_RETRY) or reason == "CONTENTION"
    assert (refusal.retry_after is not None) == waiting_helps


def test_every_reason_of_the_contract_is_provoked() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name, _ in pb.ErrorReason.items()}

    assert set(CASES) == reasons - {"UNSPECIFIED"}
