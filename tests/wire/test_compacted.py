"""A compacted log over the wire: whoever is behind its mark is told so; nobody skips silently."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from stagewire import pb
from stagewire.client import Client, errors, statuses
from stagewire.client.follower import Snapshot
from stagewire.service import cursors
from stagewire.store import compaction
from tests.servers import RunningServer
from tests.wire import streams
from tests.wire.streams import Stream, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGINNING = pb.WATCH_START_BEGINNING
COMPACTED = pb.SNAPSHOT_REASON_COMPACTED
# More than what gRPC takes in advance from a stream that its client does not read.
MANY = 600
LONG = "x" * 1000
DEADLINE_SECONDS = 30.0


def compact(server: RunningServer, until: int) -> None:
    """Compact through the server's own database: a SQLite file lets nobody else in."""
    database = server.server.database
    assert database is not None
    assert list(compaction.compact(database, until))[-1] == until


def cursors_of(client: Client, count: int) -> list[bytes]:
    """Give the cursors of the first revisions."""
    with Stream(client, watch(BEGINNING)) as stream:
        stream.hello()
        return [stream.transaction().cursor for _ in range(count)]


def head(client: Client) -> pb.GetHeadResponse:
    return client.watches.GetHead(pb.GetHeadRequest())


def test_a_cursor_below_the_mark_is_refused_and_says_where_the_log_stands(
    server: RunningServer, client: Client
) -> None:
    last = streams.versions(client, 4)
    cursor = cursors_of(client, 2)[1]
    compact(server, 3)

    with Stream(client, watch(cursor=cursor)) as stream, pytest.raises(errors.Compacted) as told:
        stream.next()

    assert (told.value.reason, told.value.code.name) == ("COMPACTED", "OUT_OF_RANGE")
    assert told.value.metadata == {"log_id": head(client).log_id, "head": str(last)}


def test_a_cursor_below_the_mark_is_answered_with_a_snapshot_that_says_so(
    server: RunningServer, client: Client
) -> None:
    last = streams.versions(client, 4)
    cursor = cursors_of(client, 2)[1]
    compact(server, last)

    with Stream(client, watch(cursor=cursor, snapshot_on_reset=True)) as stream:
        stream.hello()
        begin, items, end = stream.snapshot()
        created = streams.version(client).revision
        after = stream.transaction()

    assert (begin.reason, begin.revision) == (COMPACTED, last)
    assert sum(item.HasField("version") for item in items) == 4
    assert cursors.decode(end.cursor).revision == last
    assert after.revision == created


@pytest.mark.parametrize("everything", [False, True])
def test_a_cursor_at_the_mark_is_resumed(
    server: RunningServer, client: Client, *, everything: bool
) -> None:
    last = streams.versions(client, 4)
    mark = last if everything else 3
    found = cursors_of(client, last)
    compact(server, mark)

    with Stream(client, watch(cursor=found[mark - 1])) as stream:
        stream.hello()
        created = streams.version(client).revision
        told = [stream.transaction().revision for _ in range(created - mark)]

    assert told == list(range(mark + 1, created + 1))


def test_the_beginning_of_a_compacted_log_is_its_mark_and_the_stream_says_so(
    server: RunningServer, client: Client
) -> None:
    last = streams.versions(client, 4)
    compact(server, 3)

    with Stream(client, watch(BEGINNING)) as stream:
        stream.hello()
        begins = stream.next().bookmark
        told = [stream.transaction().revision for _ in range(last - 3)]
    with Stream(client, watch(cursor=begins.cursor)) as stream:
        stream.hello()
        resumed = stream.transaction().revision

    assert begins.revision == 3
    assert told == list(range(4, last + 1))
    assert resumed == 4


def test_the_log_lists_and_verifies_from_its_mark(server: RunningServer, client: Client) -> None:
    last = streams.versions(client, 4)
    compact(server, 3)

    everything = client.audit.ListEvents(pb.ListEventsRequest())
    of_model = client.audit.ListEvents(pb.ListEventsRequest(model="churn", after_revision=1))
    verified = client.audit.VerifyLog(pb.VerifyLogRequest(from_revision=1))

    assert [event.revision for event in everything.events] == [6, 5, 4]
    assert of_model.events == everything.events
    assert verified.intact
    assert (verified.first_revision, verified.last_revision) == (4, last)


@pytest.fixture
def forgetful(database_url: str) -> Iterator[RunningServer]:
    """Run a server that keeps no changes in memory: every stream pages through the log."""
    with RunningServer(database_url, ring_bytes=0) as server:
        yield server


def test_a_stream_that_pages_while_its_place_goes_ends_and_its_cursor_is_reset(
    forgetful: RunningServer,
) -> None:
    with Client(forgetful.address) as client, Client(forgetful.address) as reader:
        streams.model(client)
        for _ in range(MANY):
            last = streams.version(client, version=pb.ModelVersion(description=LONG)).revision
        call = reader.watches.Watch(watch(BEGINNING), timeout=DEADLINE_SECONDS)
        messages = iter(call)
        next(messages)
        told = [next(messages).transaction]
        compact(forgetful, last)

        with pytest.raises(errors.Unavailable) as ended:
            told.extend(_rest(messages))
        with pytest.raises(errors.Compacted), Stream(client, watch(cursor=told[-1].cursor)) as s:
            s.next()

    assert ended.value.reason == "DATABASE_UNAVAILABLE"
    assert [one.revision for one in told] == list(range(1, len(told) + 1))
    assert len(told) < last


def _rest(messages: Iterator[pb.WatchResponse]) -> Iterator[pb.Transaction]:
    try:
        for message in messages:
            if message.HasField("transaction"):
                yield message.transaction
    except grpc.RpcError as error:
        raise statuses.of(error) from error


def test_the_sdk_is_reset_when_its_place_goes(forgetful: RunningServer) -> None:
    with Client(forgetful.address) as client, Client(forgetful.address) as reader:
        streams.model(client)
        for _ in range(MANY):
            last = streams.version(client, version=pb.ModelVersion(description=LONG)).revision
        with reader.watch(start="beginning") as events:
            told = [next(events).revision]
            compact(forgetful, last)
            while not isinstance(event := next(events), Snapshot):
                told.append(event.revision)

    assert event.reason == COMPACTED
    assert event.revision == last
    assert told == list(range(1, len(told) + 1))


@pytest.mark.parametrize("written_after", [0, 1])
def test_a_server_whose_own_place_goes_says_so_to_its_streams(
    postgres_url: str, written_after: int
) -> None:
    never = {"poll_interval_seconds": 600, "poll_interval_unheard_seconds": 600}
    with (
        RunningServer(postgres_url, listen=False, freshness_seconds=600, **never) as behind,
        RunningServer(postgres_url) as other,
        Client(behind.address) as reader,
        Client(other.address) as writer,
        Stream(reader, watch(BEGINNING)) as stream,
    ):
        stream.hello()
        cursor = stream.transaction().cursor
        last = streams.versions(writer, 4)
        compact(other, last)
        for _ in range(written_after):
            streams.version(writer)
        behind.call(_wake(behind))

        with pytest.raises(errors.Unavailable):
            stream.next()
        _until_caught_up(behind, last + written_after)
        with Stream(reader, watch(cursor=cursor, snapshot_on_reset=True)) as resumed:
            resumed.hello()
            begin, _, _ = resumed.snapshot()

    assert (begin.reason, begin.revision) == (COMPACTED, last + written_after)


async def _wake(server: RunningServer) -> None:
    server.server.tail._wake.set()


def _until_caught_up(server: RunningServer, revision: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while server.server.tail.last < revision:
        assert time.monotonic() < deadline, server.server.tail.last
        threading.Event().wait(0.01)
