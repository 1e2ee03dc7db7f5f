"""Following the log on either client: ordered, whole, once, over any number of streams."""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
import tenacity
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from stagewire import pb
from stagewire.client import Client, Snapshot, errors
from stagewire.client.follower import Follower
from stagewire.client.history import History
from tests.client.scripted import (
    Hang,
    Refusal,
    Registry,
    bookmark,
    goodbye,
    hello,
    snapshot,
    transaction,
)

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = tenacity.wait_none()
UNAVAILABLE = Refusal("UNAVAILABLE", "SHUTTING_DOWN")
ITEM = pb.SnapshotItem(
    version=pb.ModelVersion(model="iris", version=3, tags={"b": "2", "a": "1"}),
    primaries=[pb.StagePrimary(stage="Production", version=3)],
)


def revisions(events: list[Any]) -> list[int]:
    return [event.revision for event in events]


def take(watch: Any, count: int) -> list[Any]:
    return [next(watch) for _ in range(count)]


def test_a_snapshot_comes_whole_and_then_the_changes(registry: Registry, client: Any) -> None:
    registry.streams = [[hello(), *snapshot(5, ITEM, ITEM), transaction(6), bookmark(9), Hang()]]

    watch = client.watch()
    first, second, third = take(watch, 3)

    assert isinstance(first, Snapshot)
    assert (first.revision, first.items, first.cursor) == (5, (ITEM, ITEM), b"c5")
    assert first.reason == pb.SNAPSHOT_REASON_REQUESTED
    assert isinstance(second, pb.Transaction)
    assert isinstance(third, pb.Bookmark)
    assert (watch.cursor, watch.log_id, watch.session) == (b"c9", "log-a", 1)
    watch.close()


def test_a_broken_stream_is_resumed_from_the_last_cursor(registry: Registry, client: Any) -> None:
    registry.streams = [
        [hello(), *snapshot(5), transaction(6), UNAVAILABLE],
        [hello(session=2), transaction(7), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 3)

    first, second = registry.requests("Watch")
    assert revisions(events) == [5, 6, 7]
    assert (first.cursor, first.start) == (b"", pb.WATCH_START_SNAPSHOT)
    assert (second.cursor, second.start) == (b"c6", pb.WATCH_START_UNSPECIFIED)
    assert watch.session == 2
    watch.close()


def test_what_was_handed_out_is_not_repeated(registry: Registry, client: Any) -> None:
    registry.streams = [
        [hello(), transaction(6), transaction(6), transaction(5), bookmark(4), UNAVAILABLE],
        [hello(), transaction(5), transaction(6), transaction(7), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 2)

    assert revisions(events) == [6, 7]
    watch.close()


def test_a_snapshot_moves_the_position_backwards_too(registry: Registry, client: Any) -> None:
    lost = snapshot(3, ITEM, reason=pb.SNAPSHOT_REASON_LOG_DIVERGED)
    registry.streams = [
        [hello(), transaction(8), UNAVAILABLE],
        [hello(), *lost, transaction(4), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 3)

    assert revisions(events) == [8, 3, 4]
    assert watch.cursor == b"c4"
    assert client.last_seen_revision == 4
    watch.close()


def test_another_log_begins_from_its_own_position(registry: Registry, client: Any) -> None:
    registry.streams = [
        [hello(), transaction(8), UNAVAILABLE],
        [hello(log_id="log-b"), *snapshot(2, reason=pb.SNAPSHOT_REASON_OTHER_LOG), transaction(3)],
    ]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 3)

    assert revisions(events) == [8, 2, 3]
    assert watch.log_id == "log-b"
    assert client.last_seen_revision == 3
    watch.close()


@pytest.mark.parametrize(
    "damaged",
    [
        snapshot(5, ITEM, digest=b"x" * 32),
        snapshot(5, ITEM, count=2),
        snapshot(5, ITEM)[1:],
        snapshot(5, ITEM)[:-1],
    ],
    ids=["digest", "count", "no beginning", "no end"],
)
def test_a_damaged_snapshot_is_never_handed_out(
    registry: Registry, client: Any, damaged: list[pb.WatchResponse]
) -> None:
    registry.streams = [[hello(), *damaged], [hello(), *snapshot(6, ITEM), Hang()]]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 1)

    assert revisions(events) == [6]
    watch.close()


def test_half_a_snapshot_is_forgotten_with_its_stream(registry: Registry, client: Any) -> None:
    registry.streams = [
        [hello(), *snapshot(5, ITEM, ITEM)[:2], UNAVAILABLE],
        [hello(), *snapshot(5, ITEM), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)
    (event,) = take(watch, 1)

    assert event.items == (ITEM,)
    watch.close()


def test_after_goodbye_it_waits_as_long_as_it_was_asked_to(registry: Registry, client: Any) -> None:
    never = tenacity.wait_fixed(600)
    registry.streams = [
        [hello(), bookmark(5), goodbye(5, reconnect_after_seconds=0.01)],
        [hello(), transaction(6), Hang()],
    ]

    watch = client.watch(backoff=never)
    events = take(watch, 2)

    assert revisions(events) == [5, 6]
    assert registry.requests("Watch")[1].cursor == b"c5"
    watch.close()


def test_when_what_may_be_seen_has_changed_it_goes_on_at_once_with_a_snapshot_of_it(
    registry: Registry, client: Any
) -> None:
    never = tenacity.wait_fixed(600)
    changed = pb.GOODBYE_REASON_PERMISSIONS_CHANGED
    sight = pb.Sight(models=[pb.SeenModels(namespace="default", model="ir*")])
    first, *rest = snapshot(7, ITEM, reason=pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED)
    first.snapshot_begin.sight.CopyFrom(sight)
    registry.streams = [
        [hello(), *snapshot(5, ITEM, ITEM), bookmark(6), goodbye(6, reason=changed)],
        [hello(), first, *rest, transaction(8), Hang()],
    ]

    watch = client.watch(backoff=never)
    before, _, after, last = take(watch, 4)

    assert (len(before.items), len(after.items), last.revision) == (2, 1, 8)
    assert registry.requests("Watch")[1].cursor == b"c6"
    assert after.sight == sight
    names = ("iris", "ir", "lily")
    assert [after.tells_of("default", name) for name in names] == [True, True, False]
    assert not after.tells_of("risk", "iris")
    assert before.tells_of("anywhere", "anything")
    assert client.last_seen_revision == 8
    watch.close()


def test_a_goodbye_without_a_place_leaves_it_where_it_was(registry: Registry, client: Any) -> None:
    changed = goodbye(0, reason=pb.GOODBYE_REASON_PERMISSIONS_CHANGED)
    changed.goodbye.cursor = b""
    registry.streams = [
        [hello(), *snapshot(5, ITEM)[:2], changed],
        [hello(), *snapshot(6, ITEM), UNAVAILABLE],
        [hello(), *snapshot(7, ITEM)[:2], changed],
        [hello(), transaction(7), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 2)

    assert revisions(events) == [6, 7]
    cursors = [request.cursor for request in registry.requests("Watch")]
    assert cursors == [b"", b"", b"c6", b"c6"]
    watch.close()


def test_a_silent_stream_is_broken(registry: Registry, client: Any) -> None:
    registry.streams = [
        [hello(interval_seconds=0.05), transaction(1), Hang()],
        [hello(), transaction(2), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)
    events = take(watch, 2)

    assert revisions(events) == [1, 2]
    assert registry.ended_watches.acquire(timeout=10)
    watch.close()


def test_a_slow_reader_is_not_taken_for_a_silent_stream(registry: Registry) -> None:
    drawn = threading.Event()
    registry.streams = [
        [hello(interval_seconds=0.02), transaction(1), lambda: drawn.wait(10), transaction(2)]
    ]

    with Client(registry.address) as client, client.watch(backoff=AT_ONCE) as watch:
        next(watch)
        guard = next(one for one in threading.enumerate() if one.name == "stagewire-watch-silence")
        guard.join(0.3)  # the guard would end with a stream that it broke
        drawn.set()
        event = next(watch)

        assert isinstance(event, pb.Transaction)
        assert event.revision == 2
        assert len(registry.calls) == 1


def test_a_refusal_that_waiting_cannot_mend_is_raised(registry: Registry, client: Any) -> None:
    registry.streams = [[Refusal("OUT_OF_RANGE", "COMPACTED")]]

    watch = client.watch(cursor=b"old", snapshot_on_reset=False)

    with pytest.raises(errors.Compacted):
        next(watch)
    assert not registry.requests("Watch")[0].snapshot_on_reset


def test_without_reconnect_a_stream_is_all_there_is(registry: Registry, client: Any) -> None:
    registry.streams = [[hello(), transaction(1), goodbye(1)], [hello(), UNAVAILABLE]]

    assert revisions(list(client.watch(reconnect=False))) == [1]
    with pytest.raises(errors.ShuttingDown):
        list(client.watch(reconnect=False))


def test_closing_ends_the_iteration_from_any_thread(registry: Registry, client: Any) -> None:
    handed_out = threading.Event()
    registry.streams = [[hello(), transaction(1), lambda: handed_out.wait(10), Hang()]]

    watch = client.watch()
    next(watch)
    closer = threading.Thread(target=lambda: (handed_out.wait(10), watch.close()))
    closer.start()
    handed_out.set()
    rest = list(watch)

    closer.join(10)
    assert rest == []
    assert registry.ended_watches.acquire(timeout=10)


def test_closing_ends_the_wait_before_a_resume(registry: Registry) -> None:
    registry.streams = [[hello(), transaction(1), UNAVAILABLE]]

    with Client(registry.address) as client:
        watch = client.watch(backoff=tenacity.wait_fixed(600))
        next(watch)
        rest = threading.Thread(target=lambda: list(watch))
        rest.start()
        assert registry.ended_watches.acquire(timeout=10)
        watch.close()
        rest.join(10)

        assert not rest.is_alive()


def test_closing_the_client_ends_its_watches(registry: Registry, client: Any) -> None:
    registry.streams = [[hello(), transaction(1), Hang()]]
    watch = client.watch(backoff=tenacity.wait_none())
    next(watch)
    closer = threading.Thread(target=client.close)

    closer.start()
    rest = list(watch)

    closer.join(10)
    assert rest == []


def test_a_forgotten_watch_ends_its_stream(registry: Registry) -> None:
    registry.streams = [[hello(), transaction(1), Hang()]]

    with Client(registry.address) as client:
        watch = client.watch()
        next(watch)
        del watch
        gc.collect()

        assert registry.ended_watches.acquire(timeout=10)


def test_a_stream_has_a_deadline_no_living_one_reaches(registry: Registry, client: Any) -> None:
    registry.streams = [[]]

    list(client.watch(reconnect=False))

    assert 33 * 60 < (registry.calls[0].seconds_left or 0) < 36 * 60


def test_unset_revisions_and_times_mean_the_transactions(registry: Registry, client: Any) -> None:
    version = pb.ModelVersion(model="iris", version=1)
    older = pb.Model(name="iris", revision=2)
    older.create_time.FromSeconds(5)
    changes = [
        pb.Change(version_state=version),
        pb.Change(model_state=older),
        pb.Change(namespace_state=pb.Namespace(name="risk")),
        pb.Change(delivery=pb.CHANGE_DELIVERY_LEFT, model="gone"),
    ]
    registry.streams = [[hello(), transaction(6, *changes)]]

    (event,) = list(client.watch(reconnect=False))

    made, kept, namespace, left = event.changes
    at = event.commit_time
    assert made.version_state.revision == 6
    assert made.version_state.create_time == made.version_state.update_time == at
    assert kept.model_state.revision == 2
    assert kept.model_state.create_time.seconds == 5
    assert kept.model_state.update_time == at
    assert (namespace.namespace_state.revision, namespace.namespace_state.create_time) == (6, at)
    assert left.WhichOneof("resource") is None


def test_reads_after_a_watch_answer_with_no_less(registry: Registry, client: Any) -> None:
    registry.streams = [[hello(), transaction(6)]]
    registry.on("GetModel", pb.GetModelResponse(revision=6))

    list(client.watch(reconnect=False))
    client.registry.GetModel(pb.GetModelRequest(model="churn"))

    assert registry.requests("GetModel")[0].min_revision == 6


def test_the_filter_is_sent_as_asked_in_the_clients_namespace(
    registry: Registry, connect: Callable[..., Any]
) -> None:
    client = connect(namespace="risk")
    registry.streams = [[], []]

    list(
        client.watch(
            models=["iris"], stages=["Production"], kinds=["stages_changed"], reconnect=False
        )
    )
    list(
        client.watch(
            pb.WatchFilter(model_prefix="ir", namespaces=["*"]), start="beginning", reconnect=False
        )
    )

    by_names, by_message = registry.requests("Watch")
    assert by_names.filter == pb.WatchFilter(
        namespaces=["risk"],
        models=["iris"],
        stages=["Production"],
        kinds=[pb.CHANGE_KIND_STAGES_CHANGED],
    )
    assert by_names.snapshot_on_reset
    assert by_message.filter == pb.WatchFilter(namespaces=["*"], model_prefix="ir")
    assert by_message.start == pb.WATCH_START_BEGINNING


def test_a_start_that_does_not_exist_is_refused_before_anything_is_sent(client: Any) -> None:
    with pytest.raises(ValueError, match="snapshot, beginning, now"):
        client.watch(start="yesterday")


def follower() -> Follower:
    return Follower(History(), pb.WatchRequest(), backoff=tenacity.wait_exponential(multiplier=1))


def test_pauses_grow_until_there_is_progress() -> None:
    follow = follower()
    failure = errors.Unavailable("gone")

    growing = [follow.pause(failure) for _ in range(3)]
    follow.request()
    follow.receive(hello())
    still_growing = follow.pause(failure)
    follow.receive(bookmark(1))
    afresh = follow.pause(failure)

    assert growing == [1, 2, 4]
    assert still_growing == 8
    assert afresh == 1


def test_a_server_that_says_goodbye_at_once_is_not_asked_without_end() -> None:
    follow = follower()

    pauses = []
    for _ in range(3):
        follow.request()
        follow.receive(hello())
        follow.receive(goodbye(1, reconnect_after_seconds=3))
        pauses.append(follow.pause(None))

    assert pauses == [4, 5, 7]


def test_whoever_is_told_to_wait_waits_at_least_so_long(registry: Registry) -> None:
    follow = follower()

    pause = follow.pause(errors.TooManyWatches("full", retry_after=30))

    assert pause == 31


def test_retry_info_of_a_refused_watch_is_read(registry: Registry, client: Any) -> None:
    wait = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=1_000_000))
    registry.streams = [
        [Refusal("RESOURCE_EXHAUSTED", "TOO_MANY_WATCHES", details=[wait])],
        [hello(), transaction(1), Hang()],
    ]

    watch = client.watch(backoff=AT_ONCE)

    assert revisions(take(watch, 1)) == [1]
    watch.close()
