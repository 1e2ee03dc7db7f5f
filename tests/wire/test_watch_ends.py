"""How a watch stands still, ends and is resumed: bookmarks, Goodbyes, resets and refusals."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import sqlalchemy as sa
from modelregistry.v1.watch_service_pb2_grpc import WatchServiceStub

from stagewire import pb
from stagewire.client import Client, errors, statuses
from stagewire.server import interceptors
from stagewire.service import cursors
from stagewire.store import schema
from tests.servers import RunningServer
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BEGINNING = pb.WATCH_START_BEGINNING
DEADLINE_SECONDS = 15.0


def wait_until(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not claim():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


@pytest.fixture
def swift(database_url: str) -> Iterator[RunningServer]:
    """Run a server whose watches say where they stand ten times a second."""
    with RunningServer(database_url, bookmark_interval_seconds=0.1) as server:
        yield server


@pytest.fixture
def reader(swift: RunningServer) -> Iterator[Client]:
    with Client(swift.address) as client:
        yield client


def run(server: RunningServer, *statements: sa.Executable) -> None:
    """Change the database behind the server's back, in one transaction."""
    engine = sa.create_engine(server.settings.database_url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(statement)
    engine.dispose()


def last_cursor(client: Client, **fields: Any) -> bytes:
    """Give the cursor of the log's newest revision."""
    head = client.watches.GetHead(pb.GetHeadRequest()).revision
    with Stream(client, watch(BEGINNING, **fields)) as stream:
        stream.hello()
        found = stream.transaction()
        while found.revision < head:
            found = stream.transaction()
        return found.cursor


def changed(cursor: bytes, **values: Any) -> bytes:
    """Make the cursor that another history would have given."""
    decoded = cursors.decode(cursor)
    fields = {name: getattr(decoded, name) for name in decoded.__slots__}
    return cursors.Cursor(**{**fields, **values}).encode()


def test_an_idle_stream_says_where_it_stands(reader: Client) -> None:
    last = streams.versions(reader, 1)

    with Stream(reader, watch()) as stream:
        stream.hello()
        first, second = stream.bookmark(), stream.bookmark()

    assert (first.revision, second.revision) == (last, last)


def test_a_stream_past_which_all_goes_by_says_where_it_stands_too(reader: Client) -> None:
    # Every event wakes it, because Production may be held by any model.
    with Stream(reader, watch(stages=["Production"])) as stream:
        stream.hello()
        streams.model(reader)
        found: list[pb.Bookmark] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        halt = threading.Event()

        def write() -> None:
            count = 0
            while not halt.is_set():
                count += 1
                streams.tag(reader, n=str(count))

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while len(found) < 5 and time.monotonic() < deadline:
                found.append(stream.bookmark())
        finally:
            halt.set()
            writer.join()

    revisions = [bookmark.revision for bookmark in found]
    assert len(revisions) == 5
    assert revisions == sorted(revisions)
    assert revisions[-1] > revisions[0]


def test_a_bookmark_reaches_past_what_was_not_for_the_stream(reader: Client) -> None:
    with Stream(reader, watch(models=["churn"])) as stream:
        stream.hello()
        other = streams.versions(reader, 3, "other")
        bookmark = stream.bookmark(other)
        created = streams.model(reader).revision
        after = stream.transaction()

    assert bookmark.revision == other
    assert cursors.decode(bookmark.cursor).revision == other
    assert after.revision == created


def test_a_bookmarks_cursor_is_resumed(reader: Client) -> None:
    streams.versions(reader, 2)
    with Stream(reader, watch(models=["churn"])) as stream:
        stream.hello()
        other = streams.versions(reader, 3, "other")
        bookmark = stream.bookmark(other)
    created = streams.version(reader).revision

    with Stream(reader, watch(cursor=bookmark.cursor, models=["churn"])) as stream:
        stream.hello()
        found = stream.transaction()

    assert found.revision == created


def test_a_watch_from_now_can_be_resumed_before_its_first_change(client: Client) -> None:
    with Stream(client, watch()) as stream:
        head = stream.hello().head_revision
        bookmark = stream.next().bookmark
    streams.model(client, "made-between")

    with Stream(client, watch(cursor=bookmark.cursor)) as resumed:
        resumed.hello()
        change = resumed.next().transaction

    assert (bookmark.revision, change.revision) == (head, head + 1)


def test_a_stream_that_has_lived_its_time_ends_in_order(database_url: str) -> None:
    with (
        RunningServer(database_url, stream_lifetime_seconds=0.2) as server,
        Client(server.address) as client,
        Stream(client, watch()) as stream,
    ):
        stream.hello()
        assert stream.next().HasField("bookmark")
        bookmark, goodbye = stream.next().bookmark, stream.next().goodbye
        with pytest.raises(EOFError):
            stream.next()

    assert goodbye.reason == pb.GOODBYE_REASON_LIFETIME
    assert goodbye.cursor == bookmark.cursor
    assert bookmark.revision == 1


def test_a_server_that_stops_says_goodbye_to_every_stream(database_url: str) -> None:
    with RunningServer(database_url) as server, Client(server.address) as client:
        opened = [Stream(client, watch()) for _ in range(20)]
        for stream in opened:
            stream.hello()
            assert stream.next().HasField("bookmark")
        server.call(server.server.watches.end(0.1))
        ends: list[list[str | None]] = []
        reasons = set()
        for stream in opened:
            last = [stream.next(), stream.next()]
            ends.append([message.WhichOneof("message") for message in last])
            reasons.add(last[1].goodbye.reason)
            with pytest.raises(EOFError):
                stream.next()
        with Stream(client, watch()) as late, pytest.raises(errors.ShuttingDown):
            late.next()

    assert ends == [["bookmark", "goodbye"]] * 20
    assert reasons == {pb.GOODBYE_REASON_SHUTTING_DOWN}


def test_a_server_that_stops_does_not_wait_for_a_client_that_takes_nothing(
    sqlite_url: str,
) -> None:
    with (
        RunningServer(sqlite_url) as server,
        Client(server.address) as client,
        grpc.insecure_channel(server.address, options=[("grpc.http2.bdp_probe", 0)]) as channel,
    ):
        streams.model(client)
        big = pb.ModelVersion(params={f"p{i}": "x" * 1000 for i in range(200)})
        for _ in range(20):
            streams.version(client, version=big)
        stalled: Any = WatchServiceStub(channel).Watch(watch(BEGINNING), timeout=60)
        next(stalled)
        began = time.monotonic()
        server.call(server.server.watches.end(0.1))
        waited = time.monotonic() - began

    # The product's 30 s for slow consumers would outlast every supervisor's patience.
    assert waited < 10


def test_a_damaged_cursor_is_refused_even_with_snapshot_on_reset(client: Client) -> None:
    cursor = last_cursor(client)
    damaged = cursor[:-1] + bytes([cursor[-1] ^ 1])

    for bad in (damaged, cursor[:-1], b"x", cursor + b"x"):
        request = watch(cursor=bad, snapshot_on_reset=True)
        with Stream(client, request) as stream, pytest.raises(errors.InvalidCursor):
            stream.next()


def test_a_cursor_together_with_a_start_is_refused(client: Client) -> None:
    request = watch(cursor=last_cursor(client))
    request.start = pb.WATCH_START_NOW

    with Stream(client, request) as stream, pytest.raises(errors.InvalidField, match="start"):
        stream.next()


def expect_reset(
    client: Client,
    request: pb.WatchRequest,
    refusal: type[errors.StagewireError],
    reason: pb.SnapshotReason.ValueType,
) -> None:
    """Check both answers to a cursor that can't be resumed, and that the stream then lives."""
    with Stream(client, request) as stream, pytest.raises(refusal) as refused:
        stream.next()
    head = client.watches.GetHead(pb.GetHeadRequest())
    assert refused.value.metadata["log_id"] == head.log_id
    assert refused.value.metadata["head"] == str(head.revision)
    request.snapshot_on_reset = True
    with Stream(client, request) as stream:
        stream.hello()
        begin, _, _ = stream.snapshot()
        created = streams.model(client, f"after-{reason}").revision
        after = stream.transaction()
    assert (begin.reason, begin.revision) == (reason, head.revision)
    assert after.revision == created


def test_a_cursor_of_another_log_is_reset(client: Client) -> None:
    cursor = changed(last_cursor(client), log_id="12345678-1234-1234-1234-123456789abc")

    expect_reset(client, watch(cursor=cursor), errors.OtherLog, pb.SNAPSHOT_REASON_OTHER_LOG)


def test_a_cursor_ahead_of_the_log_is_reset(client: Client) -> None:
    cursor = changed(last_cursor(client), revision=1000)

    expect_reset(client, watch(cursor=cursor), errors.CursorAhead, pb.SNAPSHOT_REASON_CURSOR_AHEAD)


def test_a_cursor_whose_revision_is_another_now_is_reset(client: Client) -> None:
    streams.versions(client, 3)
    cursor = changed(last_cursor(client), chain=b"elsewise")

    expect_reset(client, watch(cursor=cursor), errors.LogDiverged, pb.SNAPSHOT_REASON_LOG_DIVERGED)


def test_a_cursor_whose_followers_were_compacted_is_reset(
    server: RunningServer, client: Client
) -> None:
    with Stream(client, watch(BEGINNING)) as stream:
        stream.hello()
        first = stream.transaction()
    last = streams.versions(client, 3)
    at = last - 1
    kept = sa.select(schema.Log.chain_hash).where(schema.Log.revision == at).scalar_subquery()
    run(
        server,
        sa.update(schema.LogHead).values(compacted_revision=at, compacted_hash=kept),
        sa.delete(schema.LogModel).where(schema.LogModel.revision <= at),
        sa.delete(schema.Log).where(schema.Log.revision <= at),
    )

    expect_reset(client, watch(cursor=first.cursor), errors.Compacted, pb.SNAPSHOT_REASON_COMPACTED)
    with Stream(client, watch(BEGINNING)) as stream:
        stream.hello()
        assert stream.transaction().revision == last


def test_a_cursor_made_under_another_filter_is_reset(client: Client) -> None:
    cursor = last_cursor(client)

    expect_reset(
        client,
        watch(cursor=cursor, model_prefix="after"),
        errors.FilterChanged,
        pb.SNAPSHOT_REASON_FILTER_CHANGED,
    )


def test_a_filter_spelled_otherwise_is_the_same_filter(client: Client) -> None:
    streams.versions(client, 1)
    streams.promote(client, 1)
    cursor = last_cursor(client, stages=["Production"], kinds=[17, 12], namespaces=["default"])

    with Stream(client, watch(cursor=cursor, stages=["PRODUCTION"], kinds=[12, 17, 12])) as stream:
        hello = stream.hello()

    assert hello.head_revision == cursors.decode(cursor).revision


def test_a_cursor_is_resumed_by_a_server_started_later(database_url: str) -> None:
    with RunningServer(database_url) as server, Client(server.address) as client:
        streams.versions(client, 2)
        cursor = last_cursor(client)
        created = streams.version(client).revision

    with (
        RunningServer(database_url) as server,
        Client(server.address) as client,
        Stream(client, watch(cursor=cursor)) as stream,
    ):
        stream.hello()
        found = stream.transaction()

    assert found.revision == created


@pytest.mark.parametrize("ring_bytes", [0, 4000])
def test_behind_the_ring_a_watch_pages_from_the_log_and_rejoins(
    database_url: str, ring_bytes: int
) -> None:
    with (
        RunningServer(database_url, ring_bytes=ring_bytes) as server,
        Client(server.address) as client,
    ):
        last = streams.versions(client, 20)
        with Stream(client, watch(BEGINNING)) as stream:
            stream.hello()
            old = [stream.transaction().revision for _ in range(last)]
            new = []
            for _ in range(10):
                streams.version(client)
                new.append(stream.transaction().revision)

    assert old == list(range(1, last + 1))
    assert new == list(range(last + 1, last + 11))


@pytest.mark.parametrize("abort_seconds", [5.0, 0.1])
def test_a_client_that_takes_nothing_is_let_go_and_resumes(
    database_url: str, abort_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The abort waits for the same reader; it is told whether or not the server waits with it.
    monkeypatch.setattr(interceptors, "_ABORT_SECONDS", abort_seconds)
    with (
        RunningServer(database_url, slow_consumer_seconds=0.5) as server,
        Client(server.address) as client,
        # Windows that don't grow, so that few bytes make the server wait.
        grpc.insecure_channel(server.address, options=[("grpc.http2.bdp_probe", 0)]) as channel,
    ):
        streams.model(client)
        big = pb.ModelVersion(params={f"p{i}": "x" * 1000 for i in range(200)})
        last = 0
        for _ in range(20):
            last = streams.version(client, version=big).revision
        call: Any = WatchServiceStub(channel).Watch(watch(BEGINNING), timeout=60)
        first = next(call)
        wait_until(lambda: server.server.watches.open == 0, "the slow reader kept its place")
        taken, told = read_out(call)
        with Stream(client, watch(cursor=taken[-1].transaction.cursor)) as stream:
            stream.hello()
            rest: list[int] = []
            while not rest or rest[-1] < last:
                rest.append(stream.transaction().revision)

    assert first.HasField("hello")
    assert isinstance(told, errors.SlowConsumer)
    assert [m.transaction.revision for m in taken] + rest == list(range(1, last + 1))


def test_a_client_that_takes_nothing_costs_the_others_nothing(database_url: str) -> None:
    with (
        RunningServer(database_url, ring_bytes=500_000) as server,
        Client(server.address) as client,
        grpc.insecure_channel(server.address, options=[("grpc.http2.bdp_probe", 0)]) as channel,
        Stream(client, watch(BEGINNING)) as other,
    ):
        revisions = [streams.model(client).revision]
        stalled: Any = WatchServiceStub(channel).Watch(watch(BEGINNING), timeout=60)
        next(stalled)
        other.hello()
        other.transaction()
        big = pb.ModelVersion(params={f"p{i}": "x" * 1000 for i in range(200)})
        found = [other.transaction().revision]
        for _ in range(20):
            revisions.append(streams.version(client, version=big).revision)
            found.append(other.transaction().revision)
        still_open = server.server.watches.open
        # Far behind the ring by now, it still gets everything.
        rest = [next(stalled).transaction.revision for _ in range(revisions[-1])]
        stalled.cancel()

    assert still_open == 2
    assert found == revisions
    assert rest == list(range(1, revisions[-1] + 1))


def read_out(call: Any) -> tuple[list[pb.WatchResponse], errors.StagewireError | None]:
    """Read what a stream still holds, and how it ended."""
    found: list[pb.WatchResponse] = []
    try:
        found.extend(call)
    except grpc.RpcError as error:
        return found, statuses.of(error)
    return found, None


def test_a_client_that_hangs_up_frees_its_place(server: RunningServer, client: Client) -> None:
    opened = [Stream(client, watch()) for _ in range(10)]
    for stream in opened:
        stream.hello()
    assert server.server.watches.open == 10

    for stream in opened:
        stream.cancel()

    wait_until(lambda: server.server.watches.open == 0, "places were not freed")


def test_more_watches_than_the_server_takes_are_refused(database_url: str) -> None:
    with RunningServer(database_url, max_watches=2) as server, Client(server.address) as client:
        with Stream(client, watch()) as one, Stream(client, watch()) as two:
            one.hello()
            two.hello()
            with Stream(client, watch()) as three, pytest.raises(errors.TooManyWatches) as refused:
                three.next()
        wait_until(lambda: server.server.watches.open == 0, "places were not freed")
        with Stream(client, watch()) as again:
            again.hello()

    assert refused.value.retry_after is not None


def rewind(server: RunningServer, revision: int) -> None:
    """Lose the log's tail, as a standby does that was promoted too early."""
    kept = sa.select(schema.Log.chain_hash).where(schema.Log.revision == revision)
    lost = sa.select(schema.Model.id).where(schema.Model.revision > revision)
    run(
        server,
        sa.update(schema.LogHead).values(revision=revision, head_hash=kept.scalar_subquery()),
        sa.delete(schema.LogModel).where(schema.LogModel.revision > revision),
        sa.delete(schema.Log).where(schema.Log.revision > revision),
        sa.update(schema.Name).where(schema.Name.model_id.in_(lost)).values(model_id=None),
        sa.delete(schema.NameRange).where(schema.NameRange.model_id.in_(lost)),
        sa.delete(schema.Model).where(schema.Model.revision > revision),
    )


@pytest.mark.parametrize("written_over", [False, True])
def test_when_history_is_lost_every_stream_ends_and_its_resume_says_so(
    database_url: str, written_over: bool
) -> None:
    settings = {"bookmark_interval_seconds": 0.1, "poll_interval_seconds": 0.1}
    with RunningServer(database_url, **settings) as server, Client(server.address) as client:
        for name in ("a", "b", "c"):
            streams.model(client, name)
        with (
            Stream(client, watch(BEGINNING)) as stream,
            Stream(client, watch(pb.WATCH_START_SNAPSHOT)) as other,
        ):
            stream.hello()
            seen = [stream.transaction() for _ in range(4)]
            other.hello()
            other.snapshot()
            rewind(server, 3)
            with pytest.raises(errors.Unavailable):
                stream.bookmark(at_least=5)
        with Client(server.address) as writer:
            after = [streams.model(writer, f"new-{i}").revision for i in range(written_over * 2)]
        wait_until(server.server.tail.healthy.is_set, "the tail did not recover")
        request = watch(cursor=seen[-1].cursor, snapshot_on_reset=True)
        # The same filter was asked for a snapshot before the loss: that one must not be shared.
        with Client(server.address) as fresh, Stream(fresh, request) as stream:
            stream.hello()
            begin, items, end = stream.snapshot()
            created = streams.model(fresh, "last").revision
            following = stream.transaction()

    reason = pb.SNAPSHOT_REASON_LOG_DIVERGED if written_over else pb.SNAPSHOT_REASON_CURSOR_AHEAD
    names = [item.model.name for item in items if item.HasField("model")]
    assert (begin.reason, begin.revision) == (reason, 3 + len(after))
    assert sorted(names) == sorted(["a", "b", *(f"new-{i}" for i in range(len(after)))])
    assert cursors.decode(end.cursor).revision == begin.revision
    assert following.revision == created
