"""What a watch shows whom, and how it ends when that becomes something else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import Client, Snapshot, errors
from stagewire.server import streams as server_streams
from stagewire.service import cursors
from tests.factories import eventually
from tests.guarded import Door, GuardedServer, grant, make_token
from tests.wire import streams
from tests.wire.streams import Stream, watch
from tests.wire.test_watch import identities

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEGINNING, SNAPSHOT = pb.WATCH_START_BEGINNING, pb.WATCH_START_SNAPSHOT
PERMISSIONS_CHANGED = pb.GOODBYE_REASON_PERMISSIONS_CHANGED


@pytest.fixture(autouse=True)
def _ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_streams, "PERMISSIONS_SPREAD_SECONDS", 0.05)


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[GuardedServer]:
    with GuardedServer(database_url, tmp_path, bookmark_interval_seconds=0.5) as started:
        yield started


@pytest.fixture
def admin(server: GuardedServer) -> Iterator[Client]:
    with Client(server.address, token=server.secret) as made:
        yield made


@pytest.fixture
def door(server: GuardedServer) -> Iterator[Door]:
    with server.door() as made:
        yield made


@pytest.fixture
def someone(server: GuardedServer, door: Door) -> Iterator[Callable[..., Client]]:
    """Make clients of subjects, each with a token and viewer's grants on these models."""
    made: list[Client] = []

    def make(subject: str, *models: str, scopes: tuple[pb.Scope, ...] = (), **token: Any) -> Client:
        for name in models:
            grant(door, subject, "viewer", model=name)
        _, secret = make_token(door, subject, *scopes, **token)
        made.append(Client(server.address, token=secret))
        return made[-1]

    yield make
    for client in made:
        client.close()


def named(items: list[pb.SnapshotItem]) -> list[str]:
    """Name a snapshot's items: their kind, and their model or stage."""
    found = []
    for item in items:
        kind = item.WhichOneof("resource")
        assert kind is not None
        state = getattr(item, kind)
        found.append(f"{kind} {getattr(state, 'model', '') or state.name}")
    return found


def models_of(items: list[pb.SnapshotItem]) -> set[str]:
    return {item.model.name for item in items if item.HasField("model")}


def goodbye(stream: Stream) -> pb.Goodbye:
    """Give the goodbye that comes next, after a bookmark at its very cursor, and then OK."""
    *_, bookmark, end = stream.until("goodbye")
    assert bookmark.bookmark.cursor == end.goodbye.cursor
    with pytest.raises(EOFError):
        stream.next()
    return end.goodbye


def until_refused(stream: Stream, refusal: type[errors.StagewireError]) -> list[pb.WatchResponse]:
    """Give everything up to a refusal."""
    said = []
    while True:
        try:
            said.append(stream.next())
        except refusal:
            return said


def test_whoever_sees_nothing_is_told_nothing(
    admin: Client, someone: Callable[..., Client]
) -> None:
    nobody = someone("ann")
    last = streams.versions(admin, 2)

    with Stream(nobody, watch(BEGINNING, namespaces=["*"])) as stream:
        stream.hello()
        assert stream.bookmark(last).revision == last
    with Stream(nobody, watch(SNAPSHOT, namespaces=["*"])) as stream:
        stream.hello()
        begin, items, end = stream.snapshot()
    with Stream(nobody, watch(BEGINNING)) as stream, pytest.raises(errors.NamespaceNotFound):
        stream.next()

    assert (items, end.count) == ([], 0)
    assert begin.HasField("sight")
    assert not begin.sight.models


def test_only_changes_of_what_may_be_seen_come(
    admin: Client, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn", "fraud-*")

    with Stream(ann, watch(namespaces=["*"])) as stream:
        stream.hello()
        streams.model(admin, "secret")
        streams.model(admin, "churn")
        streams.model(admin, "fraud-eu")
        streams.model(admin, "frau")
        last = streams.version(admin, "churn").revision
        found = [stream.transaction() for _ in range(3)]

    assert [t.changes[0].model for t in found] == ["churn", "fraud-eu", "churn"]
    assert found[-1].revision == last


def test_a_snapshot_holds_only_what_may_be_seen(
    admin: Client, someone: Callable[..., Client]
) -> None:
    streams.namespace(admin, "risk")
    for name in ("churn", "churner", "fraud-eu", "secret"):
        streams.versions(admin, 1, name)
    admin.registry.CreateModel(
        pb.CreateModelRequest(namespace="risk", model=pb.Model(name="churn"))
    )
    ann = someone("ann", "churn", "fraud-*")

    with Stream(ann, watch(SNAPSHOT, namespaces=["*"])) as stream:
        stream.hello()
        begin, items, end = stream.snapshot()

    assert named(items) == [
        "namespace default",
        *(f"stage {name}" for name in ("Staging", "Production", "Archived")),
        *sorted(["model churn", "model fraud-eu"], key=lambda n: named(items).index(n)),
        *(n for n in named(items) if n.startswith("version")),
    ]
    assert {n for n in named(items) if n.startswith("version")} == {
        "version churn",
        "version fraud-eu",
    }
    assert end.count == len(items)
    assert [(m.namespace, m.model) for m in begin.sight.models] == [
        ("default", "churn"),
        ("default", "fraud-*"),
    ]


def test_whoever_may_see_everything_is_shown_everything_without_a_sight(admin: Client) -> None:
    streams.versions(admin, 1)

    with Stream(admin, watch(SNAPSHOT, namespaces=["*"])) as stream:
        stream.hello()
        begin, items, _ = stream.snapshot()

    assert "model churn" in named(items)
    assert not begin.HasField("sight")


def test_snapshots_are_shared_by_those_who_see_the_same_and_no_others(
    admin: Client, someone: Callable[..., Client]
) -> None:
    streams.model(admin, "churn")
    streams.model(admin, "secret")
    found = []
    for client in (admin, someone("ann", "churn"), someone("bob", "secret"), admin):
        with Stream(client, watch(SNAPSHOT)) as stream:
            stream.hello()
            found.append(models_of(stream.snapshot()[1]))

    assert found == [{"churn", "secret"}, {"churn"}, {"secret"}, {"churn", "secret"}]


def test_a_model_renamed_out_of_sight_leaves_and_its_new_name_is_not_told(
    admin: Client, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    streams.versions(admin, 1)

    with Stream(ann, watch()) as stream:
        stream.hello()
        streams.rename(admin, "churn", "secret")
        found = stream.transaction()

    assert identities(found) == [("MODEL_RENAMED", "LEFT", "churn", 0)]
    assert (found.actor, found.reason) == ("", "")
    assert b"secret" not in found.SerializeToString()


def test_a_model_renamed_into_sight_comes_as_a_snapshot(
    admin: Client, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    streams.versions(admin, 2, "secret")

    with Stream(ann, watch()) as stream:
        stream.hello()
        renamed = streams.rename(admin, "secret", "churn").revision
        begin, items, _ = stream.snapshot()
        tagged = streams.tag(admin, team="risk").revision
        after = stream.transaction()

    assert (begin.reason, begin.revision) == (pb.SNAPSHOT_REASON_MODEL_ENTERED, renamed)
    assert models_of(items) == {"churn"}
    assert [n for n in named(items) if n.startswith("version")] == ["version churn"] * 2
    assert after.revision == tagged


def test_who_did_it_is_withheld_where_a_part_is(
    admin: Client, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    for name in ("churn", "secret"):
        streams.versions(admin, 1, name)
    moves = [
        pb.Transition(model=name, version=1, stage="Production") for name in ("churn", "secret")
    ]

    with Stream(ann, watch()) as mine, Stream(admin, watch()) as whole:
        mine.hello()
        whole.hello()
        admin.stages.BatchTransitionStages(
            pb.BatchTransitionStagesRequest(
                transitions=moves, request_id="r-1", reason="a deal with the secret's owner"
            )
        )
        part, both = mine.transaction(), whole.transaction()
        streams.promote(admin, 1, "Staging", request_id="r-2", reason="a test")
        alone = mine.transaction()

    assert [c.model for c in part.changes] == ["churn"]
    assert (part.actor, part.request_id, part.reason) == ("", "", "")
    assert part.commit_time == both.commit_time
    assert {c.model for c in both.changes} == {"churn", "secret"}
    assert (both.actor, both.request_id) == ("admin", "r-1")
    assert (alone.actor, alone.request_id, alone.reason) == ("admin", "r-2", "a test")


def test_what_a_filter_leaves_out_withholds_nothing(
    admin: Client, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn", "fraud")
    for name in ("churn", "fraud"):
        streams.versions(admin, 1, name)
    moves = [pb.Transition(model=name, version=1, stage="Staging") for name in ("churn", "fraud")]

    with Stream(ann, watch(models=["churn"])) as stream:
        stream.hello()
        admin.stages.BatchTransitionStages(pb.BatchTransitionStagesRequest(transitions=moves))
        found = stream.transaction()

    assert [c.model for c in found.changes] == ["churn"]
    assert found.actor == "admin"


def test_webhooks_grants_and_tokens_are_shown_to_who_administers_them(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    viewer = someone("ann", "*")
    runner = someone("bob")
    grant(door, "bob", "admin")

    with (
        Stream(viewer, watch(namespaces=["*"])) as seen,
        Stream(runner, watch(namespaces=["*"])) as run,
        Stream(admin, watch(namespaces=["*"])) as whole,
    ):
        for stream in (seen, run, whole):
            stream.hello()
        make_token(door, "eve")
        grant(door, "eve", "viewer")
        grant(door, "eve", "viewer", namespace="*")
        streams.model(admin, "churn")
        kinds = [
            [identities(stream.transaction())[0][0] for _ in range(count)]
            for stream, count in ((seen, 1), (run, 2), (whole, 4))
        ]

    assert kinds == [
        ["MODEL_CREATED"],
        ["GRANT_CREATED", "MODEL_CREATED"],
        ["TOKEN_CREATED", "GRANT_CREATED", "GRANT_CREATED", "MODEL_CREATED"],
    ]


def test_a_deleted_grant_leaves_by_its_identity(admin: Client, door: Door) -> None:
    with Stream(admin, watch(namespaces=["*"])) as stream:
        stream.hello()
        id_ = grant(door, "eve", "viewer", namespace="*")
        door("DeleteGrant", pb.DeleteGrantRequest(id=id_))
        made, gone = stream.transaction(), stream.transaction()

    assert made.changes[0].access_id == id_
    assert (gone.changes[0].delivery, gone.changes[0].access_id) == (
        pb.CHANGE_DELIVERY_LEFT,
        id_,
    )


def test_a_stream_whose_grants_show_less_ends_in_order_and_shows_nothing_of_it_any_more(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    doomed = grant(door, "ann", "viewer", model="secret")
    streams.model(admin, "churn")
    before = streams.model(admin, "secret").revision

    with Stream(ann, watch(BEGINNING)) as stream:
        stream.hello()
        # The namespace and two models.
        while stream.transaction().revision < before:
            pass
        door("DeleteGrant", pb.DeleteGrantRequest(id=doomed))
        streams.tag(admin, "secret", of="silence")
        said = stream.until("goodbye")

    assert all(m.HasField("bookmark") for m in said[:-1])
    end = said[-1].goodbye
    assert end.reason == PERMISSIONS_CHANGED
    assert end.reconnect_after.ToNanoseconds() == 0
    with Stream(ann, watch(cursor=end.cursor)) as stream:
        with pytest.raises(errors.PermissionsChanged) as refused:
            stream.next()
        assert refused.value.metadata["log_id"]
    with Stream(ann, watch(cursor=end.cursor, snapshot_on_reset=True)) as stream:
        stream.hello()
        begin, items, _ = stream.snapshot()
        streams.tag(admin, "secret", of="more silence")
        tagged = streams.tag(admin, "churn", of="noise").revision
        after = stream.transaction()
    assert begin.reason == pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED
    assert models_of(items) == {"churn"}
    assert after.revision == tagged


def test_a_stream_whose_grants_show_more_ends_in_order_and_its_resume_shows_it(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    streams.model(admin, "churn")
    streams.model(admin, "secret")

    with Stream(ann, watch()) as stream:
        stream.hello()
        grant(door, "ann", "viewer", model="secret")
        end = goodbye(stream)
    with Stream(ann, watch(cursor=end.cursor, snapshot_on_reset=True)) as stream:
        stream.hello()
        begin, items, _ = stream.snapshot()

    assert end.reason == PERMISSIONS_CHANGED
    assert begin.reason == pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED
    assert models_of(items) == {"churn", "secret"}


def test_grants_that_show_no_more_and_no_less_leave_a_stream_and_its_cursors_alone(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn*")

    with Stream(ann, watch()) as stream:
        stream.hello()
        grant(door, "bob", "viewer")
        grant(door, "ann", "editor", model="churn")
        make_token(door, "ann")
        created = streams.model(admin, "churner").revision
        found = stream.transaction()
    again = someone("ann")
    tagged = streams.tag(admin, "churner", of="noise").revision
    with Stream(again, watch(cursor=found.cursor)) as stream:
        stream.hello()
        assert stream.transaction().revision == tagged

    assert found.revision == created


def test_a_subjects_groups_and_everybodys_grants_count_too(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")

    with Stream(ann, watch()) as stream:
        stream.hello()
        grant(door, "*", "viewer", model="public-*")
        end = goodbye(stream)
    with Stream(ann, watch(cursor=end.cursor, snapshot_on_reset=True)) as stream:
        stream.hello()
        stream.snapshot()
        streams.model(admin, "secret")
        streams.model(admin, "public-1")
        assert stream.transaction().changes[0].model == "public-1"


def test_when_a_namespace_may_not_be_seen_any_more_the_resume_finds_none(
    door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann")
    doomed = grant(door, "ann", "viewer")

    with Stream(ann, watch()) as stream:
        stream.hello()
        door("DeleteGrant", pb.DeleteGrantRequest(id=doomed))
        end = goodbye(stream)
    request = watch(cursor=end.cursor, snapshot_on_reset=True)
    with Stream(ann, request) as stream, pytest.raises(errors.NamespaceNotFound):
        stream.next()


def test_a_revoked_token_hears_where_to_resume_and_is_refused(
    server: GuardedServer, admin: Client, door: Door
) -> None:
    grant(door, "ann", "viewer")
    id_, secret = make_token(door, "ann")

    with Client(server.address, token=secret) as ann, Stream(ann, watch()) as stream:
        stream.hello()
        stream.bookmark()
        began = time.monotonic()
        door("RevokeToken", pb.RevokeTokenRequest(id=id_))
        last = streams.model(admin, "churn").revision
        said = until_refused(stream, errors.CredentialsInvalid)
        assert time.monotonic() - began < 5
    assert all(message.HasField("bookmark") for message in said)
    cursor = said[-1].bookmark.cursor
    _, secret = make_token(door, "ann")
    with (
        Client(server.address, token=secret) as ann,
        Stream(ann, watch(cursor=cursor)) as stream,
    ):
        stream.hello()
        assert stream.transaction().revision == last


def test_a_token_that_is_over_ends_its_streams_when_it_said_it_would(
    server: GuardedServer, door: Door
) -> None:
    grant(door, "ann", "viewer")
    over = Timestamp()
    over.FromNanoseconds(int((time.time() + 2) * 1e9))
    _, secret = make_token(door, "ann", expire_time=over)

    with Client(server.address, token=secret) as ann, Stream(ann, watch()) as stream:
        lifetime = stream.hello().stream_lifetime.ToNanoseconds() / 1e9
        said = until_refused(stream, errors.CredentialsExpired)

    assert lifetime < 3
    assert said[-1].HasField("bookmark")
    assert 0 <= time.time() - over.ToNanoseconds() / 1e9 < 5


def test_of_several_reasons_to_reset_the_logs_come_first_and_rights_last(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    streams.model(admin, "churn")
    with Stream(ann, watch(BEGINNING)) as stream:
        stream.hello()
        cursor = cursors.decode(stream.transaction().cursor)
    grant(door, "ann", "viewer", model="other")

    def reason(**values: Any) -> pb.SnapshotReason.ValueType:
        fields = {name: getattr(cursor, name) for name in cursor.__slots__}
        changed = cursors.Cursor(**{**fields, **values}).encode()
        with Stream(ann, watch(cursor=changed, snapshot_on_reset=True)) as stream:
            stream.hello()
            return stream.snapshot()[0].reason

    other = "12345678-1234-1234-1234-123456789abc"
    assert reason() == pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED
    assert reason(filter_digest=b"otherone") == pb.SNAPSHOT_REASON_FILTER_CHANGED
    assert reason(chain=b"otherone") == pb.SNAPSHOT_REASON_LOG_DIVERGED
    assert reason(revision=1000) == pb.SNAPSHOT_REASON_CURSOR_AHEAD
    assert reason(log_id=other) == pb.SNAPSHOT_REASON_OTHER_LOG


def test_a_snapshot_that_may_not_be_seen_any_more_is_broken_off_and_begun_again(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    streams.model(admin, "churn")
    tags = {f"t{number}": "x" * 1000 for number in range(100)}
    for _ in range(100):
        streams.version(admin, version=pb.ModelVersion(tags=tags))
    doomed = grant(door, "ann", "viewer", model="secret")

    call = ann.watches.Watch(watch(SNAPSHOT), timeout=60)
    assert next(call).HasField("hello")
    assert next(call).HasField("snapshot_begin")
    # More than fits into what lies between: the server waits to be read.
    door("DeleteGrant", pb.DeleteGrantRequest(id=doomed))
    *chunks, end = call

    assert {message.WhichOneof("message") for message in chunks} == {"snapshot_chunk"}
    assert (end.goodbye.reason, end.goodbye.cursor) == (PERMISSIONS_CHANGED, b"")
    with ann.watch() as again:
        snapshot = next(again)
    assert isinstance(snapshot, Snapshot)
    assert len(snapshot.items) == 105


def test_what_waits_to_be_taken_when_a_grant_ends_is_not_sent(
    server: GuardedServer, admin: Client, door: Door
) -> None:
    grant(door, "ann", "viewer", model="churn")
    doomed = grant(door, "ann", "viewer", model="secret")
    streams.model(admin, "secret")
    tags = {f"t{number}": "x" * 1000 for number in range(100)}
    # What lies between, sockets included, takes ten megabytes at most.
    for _ in range(300):
        last = streams.version(admin, "secret", version=pb.ModelVersion(tags=tags)).revision

    _, secret = make_token(door, "ann")
    # The window between stays small, or gRPC would widen it until everything fits.
    narrow = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.address, options=narrow) as channel:
        stub = WatchServiceStub(channel)
        call: Any = stub.Watch(watch(BEGINNING), metadata=door.metadata(token=secret), timeout=60)
        assert next(call).HasField("hello")
        assert next(call).HasField("transaction")
        # The server waits to be read.
        door("DeleteGrant", pb.DeleteGrantRequest(id=doomed))
        *said, bookmark, end = call

    assert end.goodbye.reason == PERMISSIONS_CHANGED
    assert bookmark.bookmark.revision < last
    assert bookmark.bookmark.revision == said[-1].transaction.revision


def test_the_sdks_watch_goes_on_with_what_may_be_seen_now(
    admin: Client, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    doomed = grant(door, "ann", "viewer", model="secret")
    streams.model(admin, "churn")
    streams.model(admin, "secret")

    with ann.watch() as events:
        first = next(events)
        door("DeleteGrant", pb.DeleteGrantRequest(id=doomed))
        second = next(event for event in events if isinstance(event, Snapshot))
        tagged = streams.tag(admin, of="noise").revision
        third = next(event for event in events if isinstance(event, pb.Transaction))

    assert isinstance(first, Snapshot)
    assert models_of(list(first.items)) == {"churn", "secret"}
    assert second.reason == pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED
    assert models_of(list(second.items)) == {"churn"}
    assert [second.tells_of("default", name) for name in ("churn", "secret")] == [True, False]
    assert third.revision == tagged


def test_an_export_is_the_admins_alone(admin: Client, someone: Callable[..., Client]) -> None:
    ann = someone("ann", "*")
    request = pb.ExportRegistryRequest(namespaces=["default"])

    with pytest.raises(Exception, match="may not administer"):
        list(ann.configuration.ExportRegistry(request))

    assert list(admin.configuration.ExportRegistry(request))


def test_many_streams_that_end_by_one_grant_end_soon(
    server: GuardedServer, door: Door, someone: Callable[..., Client]
) -> None:
    ann = someone("ann", "churn")
    opened = [Stream(ann, watch()) for _ in range(100)]
    try:
        for stream in opened:
            stream.hello()
        grant(door, "ann", "viewer", model="other")
        for stream in opened:
            assert goodbye(stream).reason == PERMISSIONS_CHANGED
        eventually(lambda: server.server.watches.open == 0)
    finally:
        for stream in opened:
            stream.cancel()
