"""Each checker passes a true history and fails a doctored one."""

from __future__ import annotations

import copy
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.client import Client
from tests.faults import checkers
from tests.faults.checkers import CHECKERS, Violation
from tests.faults.recordings import History, Recorder, WatcherRecord, WriteRecord, take_stock
from tests.faults.scenes import AT_ONCE
from tests.servers import RunningServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.recordings import Heard, StreamRecord

BOOKMARK_SECONDS = 0.1
WATCHERS: tuple[tuple[str, dict[str, Any], str, int], ...] = (
    ("all", {}, "snapshot", 0),
    ("from-1", {}, "beginning", 3),
    ("production", {"stages": ["Production"]}, "beginning", 0),
    ("b", {"models": ["b"]}, "snapshot", 0),
)


@pytest.fixture(scope="module")
def recorded(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Record a small history with moves, a displacement, a rename and a watcher that resumes."""
    path = tmp_path_factory.mktemp("history") / "stagewire.db"
    shutil.copy(sqlite_template, path)
    history = History(bookmark_seconds=BOOKMARK_SECONDS)
    settings = {"bookmark_interval_seconds": BOOKMARK_SECONDS}
    recorders = []
    with RunningServer(f"sqlite:///{path}", **settings) as server, Client(server.address) as client:
        for name, fields, start, reconnect_after in WATCHERS:
            record = WatcherRecord(name, pb.WatchFilter(**fields))
            history.watchers.append(record)
            ways: dict[str, Any] = {"backoff": AT_ONCE, "reconnect_after": reconnect_after}
            recorders.append(Recorder(client, record, start=start, **ways))
            recorders[-1].start()
        _wait_for_bookmarks(recorders, 1)
        _wait_for_bookmarks(recorders, _write(client, history))
        for recorder in recorders:
            recorder.stop()
        take_stock(client, history)
    return history


def _wait_for_bookmarks(recorders: list[Recorder], revision: int) -> None:
    deadline = time.monotonic() + 15
    behind = recorders
    while behind:
        assert time.monotonic() < deadline, [r.record.position for r in behind]
        behind = [
            r
            for r in behind
            if not r.record.events
            or not isinstance(r.record.events[-1], pb.Bookmark)
            or r.record.position < revision
        ]
        threading.Event().wait(0.01)


def _write(client: Client, history: History) -> int:
    registry, stages = client.registry, client.stages
    transition = pb.TransitionStageRequest
    wanted: tuple[tuple[Any, Any], ...] = (
        (registry.CreateModel, pb.CreateModelRequest(model=pb.Model(name="a"))),
        (registry.CreateModelVersion, pb.CreateModelVersionRequest(model="a")),
        (registry.CreateModelVersion, pb.CreateModelVersionRequest(model="a")),
        (stages.TransitionStage, transition(model="a", version=1, stage="Production")),
        (stages.TransitionStage, transition(model="a", version=2, stage="Production")),
        (registry.SetModelTags, pb.SetModelTagsRequest(model="a", tags={"t": "1"})),
        (registry.RenameModel, pb.RenameModelRequest(model="a", new_name="b")),
        (registry.SetModelTags, pb.SetModelTagsRequest(model="b", tags={"t": "2"})),
        (registry.CreateModelVersion, pb.CreateModelVersionRequest(model="b")),
    )
    last = 0
    for number, (call, request) in enumerate(wanted):
        request.request_id = f"w{number}"
        write = WriteRecord(request.request_id, time.monotonic(), attempts=1)
        answer = call(request)
        write.acknowledged = time.monotonic()
        write.answers = [answer, call(request)]
        history.writes.append(write)
        last = answer.revision
    return last


@pytest.fixture
def history(recorded: History) -> History:
    """Give a copy of the true history, to be doctored."""
    return copy.deepcopy(recorded)


def stream_of(history: History, name: str, index: int = 0) -> StreamRecord:
    (watcher,) = [watcher for watcher in history.watchers if watcher.name == name]
    return watcher.streams[index]


def those(stream: StreamRecord, kind: str) -> list[Heard]:
    return [heard for heard in stream.heard if heard.message.HasField(kind)]  # type: ignore[arg-type]


def transactions(history: History, name: str, index: int = 0) -> list[Heard]:
    return those(stream_of(history, name, index), "transaction")


def swapped_order(history: History) -> None:
    one, other = transactions(history, "all")[2:4]
    one.message, other.message = other.message, one.message


def said_hello_twice(history: History) -> None:
    stream = stream_of(history, "all")
    stream.heard.insert(3, stream.heard[0])


def handed_out_twice(history: History) -> None:
    events = history.watchers[0].events
    events.append(next(e for e in events if isinstance(e, pb.Transaction)))


def torn(history: History) -> None:
    found = next(h for h in transactions(history, "all") if len(h.message.transaction.changes) > 1)
    del found.message.transaction.changes[0]


def whole_instead_of_left(history: History) -> None:
    for heard in transactions(history, "production"):
        for change in heard.message.transaction.changes:
            change.delivery = pb.CHANGE_DELIVERY_FULL


def missing(history: History) -> None:
    stream = stream_of(history, "all")
    stream.heard.remove(transactions(history, "all")[3])


def missing_its_leaving(history: History) -> None:
    stream = stream_of(history, "production")
    stream.heard.remove(transactions(history, "production")[1])


def missing_the_snapshot_of_what_entered(history: History) -> None:
    stream = stream_of(history, "b")
    begin = those(stream, "snapshot_begin")[1]
    at = stream.heard.index(begin)
    while not stream.heard[at].message.HasField("snapshot_end"):
        del stream.heard[at]
    del stream.heard[at]


def missing_after_the_resume(history: History) -> None:
    for stream in (s for w in history.watchers for s in w.streams):
        found = those(stream, "transaction")
        # What a bookmark comes before is missing after that, not after the cursor.
        if stream.request.cursor and len(found) > 1 and stream.heard[1] is found[0]:
            stream.heard.remove(found[0])
            return
    raise AssertionError(history)


def told_below_a_bookmark(history: History) -> None:
    stream = stream_of(history, "all")
    bookmarks = those(stream, "bookmark")
    stream.heard.append(transactions(history, "all")[0])
    assert bookmarks


def a_bookmark_that_goes_back(history: History) -> None:
    those(stream_of(history, "all"), "bookmark")[-1].message.bookmark.revision -= 1


def silent(history: History) -> None:
    stream_of(history, "all").heard[-1].time += 60


def stale_bookmarks(history: History) -> None:
    for heard in those(stream_of(history, "all"), "bookmark"):
        heard.message.bookmark.revision = 1
        heard.time += 60
    stream_of(history, "all").heard[:] = those(stream_of(history, "all"), "bookmark")[-1:]


def another_actor(history: History) -> None:
    transactions(history, "all")[0].message.transaction.actor = "mallory"


def vanished(history: History) -> None:
    del history.log[-1]


def a_hole_in_the_log(history: History) -> None:
    del history.log[3]


def an_altered_payload(history: History) -> None:
    history.log[3].payload.reason = "another"


def a_clock_that_runs_back(history: History) -> None:
    history.log[3].commit_time.seconds -= 3600


def a_later_write_with_the_smaller_revision(history: History) -> None:
    one, other = history.writes[2], history.writes[3]
    one.answers, other.answers = other.answers, one.answers


def a_state_that_no_event_tells(history: History) -> None:
    history.models[0].tags["t"] = "3"


def a_version_too_few(history: History) -> None:
    del history.versions[0]


def a_reset_without_loss(history: History) -> None:
    stream = stream_of(history, "all")
    reason = pb.SNAPSHOT_REASON_LOG_DIVERGED
    those(stream, "snapshot_begin")[0].message.snapshot_begin.reason = reason


def another_log(history: History) -> None:
    stream_of(history, "production").heard[0].message.hello.log_id = "another"


def backwards_in_silence(history: History) -> None:
    stream = stream_of(history, "all")
    stream.heard.append(transactions(history, "all")[0])


def a_wrong_item(history: History) -> None:
    stream = stream_of(history, "b")
    chunk = those(stream, "snapshot_chunk")[-1].message.snapshot_chunk
    chunk.items[0].model.tags["t"] = "9"


def a_missing_item(history: History) -> None:
    stream = stream_of(history, "b")
    del those(stream, "snapshot_chunk")[-1].message.snapshot_chunk.items[-1]


def done_twice(history: History) -> None:
    history.log[4].payload.request_id = history.log[5].payload.request_id


def answered_differently(history: History) -> None:
    history.writes[0].answers[1].revision += 1  # type: ignore[attr-defined]  # as above


def refused_and_done(history: History) -> None:
    history.writes[0].refusal = "FAILED_PRECONDITION"


def never_heard_of_its_leaving(history: History) -> None:
    (watcher,) = [watcher for watcher in history.watchers if watcher.name == "production"]
    for event in watcher.events:
        if isinstance(event, pb.Transaction):
            kept = [c for c in event.changes if c.delivery != pb.CHANGE_DELIVERY_LEFT]
            del event.changes[:]
            event.changes.extend(kept)


def test_a_true_history_passes_every_checker(history: History) -> None:
    counts = checkers.check(history)

    assert all(counts[name] > 0 for name in CHECKERS), counts


@pytest.mark.parametrize(
    ("invariant", "doctor"),
    [
        ("W1", swapped_order),
        ("W1", said_hello_twice),
        ("W2", handed_out_twice),
        ("W3", torn),
        ("W3", whole_instead_of_left),
        ("W4", missing),
        ("W4", missing_its_leaving),
        ("W4", missing_the_snapshot_of_what_entered),
        ("W5", missing_after_the_resume),
        ("W6", told_below_a_bookmark),
        ("W6", a_bookmark_that_goes_back),
        ("W7", silent),
        ("W7", stale_bookmarks),
        ("W8", another_actor),
        ("W8", vanished),
        ("W9", a_hole_in_the_log),
        ("W9", an_altered_payload),
        ("W9", a_clock_that_runs_back),
        ("W9", vanished),
        ("W10", a_later_write_with_the_smaller_revision),
        ("W11", a_state_that_no_event_tells),
        ("W11", a_version_too_few),
        ("W12", a_reset_without_loss),
        ("W12", another_log),
        ("W12", backwards_in_silence),
        ("W13", a_wrong_item),
        ("W13", a_missing_item),
        ("W16", done_twice),
        ("W16", answered_differently),
        ("W16", refused_and_done),
        ("W19", never_heard_of_its_leaving),
    ],
)
def test_a_doctored_history_fails_its_checker(
    history: History, invariant: str, doctor: Callable[[History], None]
) -> None:
    doctor(history)

    with pytest.raises(Violation, match=f"^{invariant}: "):
        CHECKERS[invariant](history)


def test_every_checker_has_a_history_that_fails_it() -> None:
    marks = test_a_doctored_history_fails_its_checker.pytestmark  # type: ignore[attr-defined]
    doctored = {invariant for invariant, _ in marks[0].args[1]}

    assert doctored == set(CHECKERS)
