"""What a watch sends: where it starts, what its filter lets through, and where it stands."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.client import errors
from stagewire.service import cursors
from tests.servers import RunningServer
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.client import Client

BEGINNING = pb.WATCH_START_BEGINNING
SNAPSHOT = pb.WATCH_START_SNAPSHOT


def followed(client: Client, **fields: Any) -> Stream:
    """Open a stream that shows what comes from here on."""
    stream = Stream(client, watch(**fields))
    stream.hello()
    return stream


def identity(change: pb.Change) -> tuple[str, str, str, int]:
    kind = pb.ChangeKind.Name(change.kind).removeprefix("CHANGE_KIND_")
    delivery = pb.ChangeDelivery.Name(change.delivery).removeprefix("CHANGE_DELIVERY_")
    return kind, delivery, change.model, change.version


def identities(transaction: pb.Transaction) -> list[tuple[str, str, str, int]]:
    return [identity(change) for change in transaction.changes]


def test_hello_comes_first_and_says_where_the_log_stands(client: Client) -> None:
    head = client.watches.GetHead(pb.GetHeadRequest())

    with Stream(client) as first:
        hello = first.hello()
        with Stream(client) as second:
            later = second.hello()

    assert (hello.log_id, hello.head_revision) == (head.log_id, head.revision)
    assert hello.bookmark_interval.seconds == 15
    assert 300 <= hello.stream_lifetime.seconds + 1 <= 601
    assert 0 < hello.session < later.session


def test_a_snapshot_is_whole_and_the_tail_goes_on_from_it(client: Client) -> None:
    streams.versions(client, 2)
    revision = streams.promote(client, 1).revision

    with Stream(client) as stream:
        stream.hello()
        begin, items, end = stream.snapshot()
        tagged = streams.tag(client, team="risk").revision
        after = stream.transaction()

    digest = hashlib.sha256()
    for item in items:
        digest.update(item.SerializeToString(deterministic=True))
    kinds = [item.WhichOneof("resource") for item in items]
    assert (begin.reason, begin.revision) == (pb.SNAPSHOT_REASON_REQUESTED, revision)
    assert (end.count, end.digest) == (len(items), digest.digest())
    assert kinds == ["namespace", "stage", "stage", "stage", "model", "version", "version"]
    held = items[5]
    assert list(held.version.stages) == ["Production"]
    assert list(held.primaries) == [pb.StagePrimary(stage="Production", version=1)]
    assert cursors.decode(end.cursor).revision == revision
    assert after.revision == tagged


def test_from_the_beginning_comes_the_whole_log(client: Client) -> None:
    last = streams.versions(client, 3)

    with Stream(client, watch(BEGINNING)) as stream:
        stream.hello()
        found = [stream.transaction() for _ in range(last)]

    assert [t.revision for t in found] == list(range(1, last + 1))
    assert [identities(t)[0][0] for t in found] == [
        "NAMESPACE_CREATED",
        "MODEL_CREATED",
        *["VERSION_CREATED"] * 3,
    ]
    times = [t.commit_time.ToNanoseconds() for t in found]
    assert times == sorted(times)


def test_from_now_comes_only_what_is_new(client: Client) -> None:
    streams.versions(client, 2)

    with followed(client) as stream:
        created = streams.version(client).revision
        first = stream.transaction()

    assert first.revision == created


def test_from_a_cursor_comes_what_followed_it(client: Client) -> None:
    last = streams.versions(client, 3)
    with Stream(client, watch(BEGINNING)) as stream:
        stream.hello()
        third = [stream.transaction() for _ in range(3)][-1]

    with Stream(client, watch(cursor=third.cursor)) as stream:
        stream.hello()
        rest = [stream.transaction().revision for _ in range(last - 3)]

    assert rest == list(range(4, last + 1))


def test_a_change_carries_who_did_it_when_why_and_the_state_after_it(client: Client) -> None:
    with followed(client) as stream:
        request = {"request_id": "r-1", "reason": "a first try"}
        answer = streams.model(client, **request)
        found = stream.transaction()

    (change,) = found.changes
    assert (found.actor, found.request_id, found.reason) == ("anonymous", "r-1", "a first try")
    assert (change.model, change.model_id) == ("churn", answer.model.id)
    # Unset means "this transaction's": only the head's statement knows them.
    assert (change.model_state.revision, change.model_state.HasField("create_time")) == (0, False)
    assert found.revision == answer.model.revision
    assert found.commit_time == answer.model.create_time


def test_one_revision_holds_all_its_changes(client: Client) -> None:
    streams.versions(client, 2)
    streams.promote(client, 1)

    with followed(client) as stream:
        answer = streams.promote(client, 2)
        found = stream.transaction()

    assert found.revision == answer.revision
    assert identities(found) == [
        ("STAGES_CHANGED", "FULL", "churn", 1),
        ("STAGES_CHANGED", "FULL", "churn", 2),
    ]
    assert list(found.changes[0].entered_stages) == ["Archived"]
    assert list(found.changes[0].left_stages) == ["Production"]
    assert pb.StagePrimary(stage="Production", version=2) in found.changes[0].primaries


def test_a_namespace_is_watched_alone_and_the_star_means_all(client: Client) -> None:
    streams.namespace(client, "risk")
    create = pb.CreateModelRequest(namespace="risk", model=pb.Model(name="fraud"))

    with (
        followed(client) as of_default,
        followed(client, namespaces=["risk"]) as of_risk,
        followed(client, namespaces=["*"]) as of_all,
    ):
        there = client.registry.CreateModel(create).revision
        here = streams.model(client).revision
        found = [of_default.transaction(), of_risk.transaction(), of_all.transaction()]
        second = of_all.transaction()

    assert [t.revision for t in found] == [here, there, there]
    assert second.revision == here


def test_an_unknown_namespace_is_refused(client: Client) -> None:
    with (
        Stream(client, watch(namespaces=["nowhere"])) as stream,
        pytest.raises(errors.NamespaceNotFound),
    ):
        stream.next()


def test_exact_models_are_watched(client: Client) -> None:
    with followed(client, models=["churn", "fraud"]) as stream:
        for name in ("churn", "churning", "fraud"):
            streams.model(client, name)
        found = [stream.transaction(), stream.transaction()]

    assert [t.changes[0].model for t in found] == ["churn", "fraud"]


def test_a_model_is_watched_in_any_spelling_of_its_name(client: Client) -> None:
    decomposed, composed = "cafe\u0301", "caf\u00e9"

    with followed(client, models=[decomposed]) as stream:
        streams.model(client, composed)
        found = stream.transaction()

    assert found.changes[0].model == composed


def test_a_prefix_is_watched(client: Client) -> None:
    with followed(client, model_prefix="risk-") as stream:
        for name in ("risk", "risk-a", "a-risk-", "risk-b"):
            streams.model(client, name)
        found = [stream.transaction(), stream.transaction()]

    assert [t.changes[0].model for t in found] == ["risk-a", "risk-b"]


def test_models_together_with_a_prefix_are_refused_and_take_no_place(
    server: RunningServer, client: Client
) -> None:
    with (
        Stream(client, watch(models=["a"], model_prefix="b")) as stream,
        pytest.raises(errors.InvalidField, match="either models or model_prefix"),
    ):
        stream.next()

    assert server.server.watches.open == 0


@pytest.mark.parametrize("spelling", ["production", "PRODUCTION"])
def test_stages_are_watched_in_any_letter_case(client: Client, spelling: str) -> None:
    streams.versions(client, 2)

    with followed(client, stages=[spelling]) as stream:
        streams.promote(client, 1, "Staging")
        moved = streams.promote(client, 1).revision
        found = stream.transaction()

    assert (found.revision, identities(found)) == (
        moved,
        [("STAGES_CHANGED", "FULL", "churn", 1)],
    )


def test_only_the_kinds_asked_for_come(client: Client) -> None:
    with followed(client, kinds=[pb.CHANGE_KIND_VERSION_CREATED]) as stream:
        last = streams.versions(client, 1)
        streams.promote(client, 1)
        found = stream.transaction()
        streams.version(client)
        second = stream.transaction()

    assert found.revision == last
    assert second.changes[0].version == 2


@pytest.fixture
def in_production(client: Client) -> Iterator[Stream]:
    """Watch Production, which version 1 of churn holds."""
    streams.versions(client, 2)
    streams.promote(client, 1)
    with followed(client, stages=["Production"]) as stream:
        yield stream


def test_a_version_that_is_displaced_leaves_the_filter(
    client: Client, in_production: Stream
) -> None:
    streams.promote(client, 2)

    found = in_production.transaction()

    assert identities(found) == [
        ("STAGES_CHANGED", "LEFT", "churn", 1),
        ("STAGES_CHANGED", "FULL", "churn", 2),
    ]
    left = found.changes[0]
    assert (left.WhichOneof("resource"), list(left.left_stages)) == (None, ["Production"])


def test_a_version_that_moves_to_archived_leaves_the_filter(
    client: Client, in_production: Stream
) -> None:
    streams.promote(client, 1, "Archived", leave_other_stages=True)

    assert identities(in_production.transaction()) == [("STAGES_CHANGED", "LEFT", "churn", 1)]


def test_a_deleted_version_leaves_the_filter(client: Client, in_production: Stream) -> None:
    client.registry.DeleteModelVersion(
        pb.DeleteModelVersionRequest(model="churn", version=1, force=True)
    )

    assert identities(in_production.transaction()) == [("VERSION_DELETED", "LEFT", "churn", 1)]


def test_a_deleted_model_leaves_the_filter(client: Client, in_production: Stream) -> None:
    client.registry.DeleteModel(pb.DeleteModelRequest(model="churn", force=True))

    found = in_production.transaction()

    assert identities(found) == [("MODEL_DELETED", "LEFT", "churn", 0)]
    assert list(found.changes[0].left_stages) == ["Production"]


def test_a_model_renamed_away_leaves_the_filter(client: Client) -> None:
    streams.versions(client, 1)

    with followed(client, models=["churn"]) as stream:
        streams.rename(client, "churn", "attrition")
        found = stream.transaction()
        streams.version(client, "attrition")
        streams.model(client, "churn")
        after = stream.transaction()

    assert identities(found) == [("MODEL_RENAMED", "LEFT", "churn", 0)]
    assert identities(after) == [("MODEL_CREATED", "FULL", "churn", 0)]


def test_a_model_renamed_within_the_filter_stays(client: Client) -> None:
    streams.model(client, "risk-a")

    with followed(client, model_prefix="risk-") as stream:
        streams.rename(client, "risk-a", "risk-b")
        found = stream.transaction()

    assert identities(found) == [("MODEL_RENAMED", "FULL", "risk-b", 0)]
    assert found.changes[0].previous_model == "risk-a"


def test_a_model_renamed_into_the_filter_comes_as_a_snapshot(client: Client) -> None:
    streams.versions(client, 2, "attrition")

    with followed(client, models=["churn"]) as stream:
        renamed = streams.rename(client, "attrition", "churn").revision
        begin, items, _ = stream.snapshot()
        created = streams.version(client, "churn").revision
        after = stream.transaction()

    assert (begin.reason, begin.revision) == (pb.SNAPSHOT_REASON_MODEL_ENTERED, renamed)
    assert [(i.WhichOneof("resource")) for i in items] == ["model", "version", "version"]
    assert [i.version.model for i in items[1:]] == ["churn", "churn"]
    assert after.revision == created


def test_an_undeleted_model_comes_as_a_snapshot(client: Client) -> None:
    streams.versions(client, 1)
    streams.promote(client, 1)
    request = pb.DeleteModelRequest(model="churn", force=True)
    deleted = client.registry.DeleteModel(request).model

    with followed(client, stages=["Production"]) as stream:
        client.registry.UndeleteModel(pb.UndeleteModelRequest(model_id=deleted.id))
        begin, items, _ = stream.snapshot()

    assert begin.reason == pb.SNAPSHOT_REASON_MODEL_ENTERED
    assert [i.WhichOneof("resource") for i in items] == ["stage", "version"]
    assert (items[1].version.model, items[1].version.version) == ("churn", 1)


def test_when_the_primary_is_removed_the_next_one_is_named(client: Client) -> None:
    streams.versions(client, 3)
    streams.promote(client, 1)
    streams.promote(client, 2, displace=pb.DISPLACEMENT_KEEP)

    with followed(client, stages=["Production"]) as stream:
        streams.remove(client, 2)
        found = stream.transaction()
        streams.remove(client, 1)
        emptied = stream.transaction()

    assert identities(found) == [
        ("STAGES_CHANGED", "LEFT", "churn", 2),
        ("STAGE_PRIMARY_CHANGED", "FULL", "churn", 1),
    ]
    assert list(found.changes[1].primaries) == [pb.StagePrimary(stage="Production", version=1)]
    assert identities(emptied) == [("STAGES_CHANGED", "LEFT", "churn", 1)]


def test_when_the_stage_is_emptied_the_whole_watch_hears_that_nobody_is_primary(
    client: Client,
) -> None:
    streams.versions(client, 1)
    streams.promote(client, 1)

    with followed(client) as stream:
        streams.remove(client, 1)
        found = stream.transaction()

    assert list(found.changes[0].primaries) == [pb.StagePrimary(stage="Production", version=0)]


def test_long_texts_are_named_instead_of_carried(client: Client) -> None:
    text = "é" * 2000

    with followed(client) as stream:
        client.registry.CreateModel(
            pb.CreateModelRequest(model=pb.Model(name="long", description=text))
        )
        found = stream.transaction()
    with Stream(client) as second:
        second.hello()
        _, items, _ = second.snapshot()

    digest = hashlib.sha256(text.encode()).hexdigest()
    expected = [pb.OmittedText(path="description", sha256=digest, size_bytes=4000)]
    assert found.changes[0].model_state.description == ""
    assert list(found.changes[0].omitted_texts) == expected
    (shown,) = [item for item in items if item.HasField("model")]
    assert (shown.model.description, list(shown.omitted_texts)) == ("", expected)


def test_a_snapshot_of_many_versions_comes_in_several_chunks(client: Client) -> None:
    streams.model(client)
    params = {f"p{i}": "x" * 1000 for i in range(20)}
    for _ in range(60):
        streams.version(client, version=pb.ModelVersion(params=params))

    with Stream(client, watch(SNAPSHOT, models=["churn"])) as stream:
        stream.hello()
        messages = stream.until("snapshot_end")

    chunks = [m for m in messages if m.HasField("snapshot_chunk")]
    assert len(chunks) > 1
    assert all(chunk.ByteSize() <= 1024 * 1024 for chunk in chunks)
    items = [item for chunk in chunks for item in chunk.snapshot_chunk.items]
    assert [i.version.version for i in items[1:]] == list(range(1, 61))
    assert messages[-1].snapshot_end.count == 61
