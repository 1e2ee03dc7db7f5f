"""The check of two histories passes a true restore and fails doctored ones."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.store import upgrades
from tests.faults import checkers, divergence
from tests.faults.checkers import Violation
from tests.faults.processes import free_port
from tests.faults.recordings import History, Recorder, WatcherRecord, take_stock
from tests.faults.replicas import until
from tests.faults.scenes import AT_ONCE, impatient
from tests.servers import RunningServer
from tests.wire import streams

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.recordings import Heard, StreamRecord

BOOKMARK_SECONDS = 0.1
#: What was recorded before the loss, and everything.
Histories = tuple[History, History]


@pytest.fixture(scope="module")
def recorded(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Histories:
    """Record two watchers over a restore: one knew what was lost, one had left before."""
    path = tmp_path_factory.mktemp("restored") / "stagewire.db"
    backup = path.with_name("backup.db")
    shutil.copy(sqlite_template, path)
    url, address = f"sqlite:///{path}", f"127.0.0.1:{free_port()}"
    ways: dict[str, Any] = {
        "grpc_address": address,
        "bookmark_interval_seconds": BOOKMARK_SECONDS,
    }
    history = History(bookmark_seconds=BOOKMARK_SECONDS)
    with impatient():
        client = Client(address)
    recorders = []
    for name in ("stayed", "left"):
        history.watchers.append(WatcherRecord(name, pb.WatchFilter()))
        recorder = Recorder(client, history.watchers[-1], start="snapshot", backoff=AT_ONCE)
        recorders.append(recorder)
    stayed, left = recorders
    with client:
        with RunningServer(url, **ways):
            stayed.start()
            left.start()
            hear(recorders, streams.versions(client, 3))
            left.leave()
            until(left.away.is_set, "it leaves")
            upgrades.backup(url, backup)
            for _ in range(3):
                lost = streams.version(client).revision
            hear([stayed], lost)
            before = divergence.at_this_moment(history, {"left"})
            take_stock(client, before)
            stayed.leave()
            until(stayed.away.is_set, "it leaves")
        for rest in path.parent.glob("stagewire.db*"):
            rest.unlink()
        backup.rename(path)
        with RunningServer(url, **ways):
            for _ in range(5):
                last = streams.version(client).revision
            for recorder in recorders:
                recorder.come_back()
            hear(recorders, last)
            for recorder in recorders:
                recorder.stop()
            take_stock(client, history)
    return before, history


def hear(recorders: list[Recorder], revision: int) -> None:
    """Wait until watchers have a bookmark at a revision."""
    for recorder in recorders:
        until(partial(_marked, recorder, revision), f"{recorder.record.name} hears of {revision}")


def _marked(recorder: Recorder, revision: int) -> bool:
    last = recorder.record.events[-1:]
    return any(isinstance(event, pb.Bookmark) and event.revision == revision for event in last)


@pytest.fixture
def histories(recorded: Histories) -> Histories:
    """Give a copy of the true histories, to be doctored."""
    return copy.deepcopy(recorded)


def those(history: History, name: str, kind: str) -> list[tuple[StreamRecord, Heard]]:
    (watcher,) = [watcher for watcher in history.watchers if watcher.name == name]
    return [
        (stream, heard)
        for stream in watcher.streams
        for heard in stream.heard
        if heard.message.WhichOneof("message") == kind
    ]


def the_reset(history: History) -> tuple[StreamRecord, Heard]:
    (found,) = [
        (stream, heard)
        for stream, heard in those(history, "stayed", "snapshot_begin")
        if heard.message.snapshot_begin.reason in divergence.LOST
    ]
    return found


def reset_without_a_word(_before: History, after: History) -> None:
    _, heard = the_reset(after)
    heard.message.snapshot_begin.reason = pb.SNAPSHOT_REASON_REQUESTED


def went_on_in_silence(_before: History, after: History) -> None:
    stream, heard = the_reset(after)
    stream.heard.remove(heard)


def reset_for_another_reason(_before: History, after: History) -> None:
    _, heard = the_reset(after)
    heard.message.snapshot_begin.reason = pb.SNAPSHOT_REASON_CURSOR_AHEAD


def reset_who_lost_nothing(_before: History, after: History) -> None:
    _, reset = the_reset(after)
    stream, heard = those(after, "left", "transaction")[-1]
    stream.heard.insert(stream.heard.index(heard), reset)


def told_again_of_what_is_lost(before: History, after: History) -> None:
    stream, _ = the_reset(after)
    _, old = those(before, "stayed", "transaction")[-1]
    stream.heard.append(old)


def reset_to_what_is_lost(_before: History, after: History) -> None:
    stream, _ = the_reset(after)
    (end,) = [h for h in stream.heard if h.message.HasField("snapshot_end")]
    end.message.snapshot_end.cursor = stream.request.cursor


def never_reset(_before: History, after: History) -> None:
    stream, _ = the_reset(after)
    (watcher,) = [watcher for watcher in after.watchers if stream in watcher.streams]
    watcher.streams.remove(stream)


def a_history_of_its_own(before: History, _after: History) -> None:
    before.log[-1].chain_hash = bytes(32)


def nothing_lost(before: History, after: History) -> None:
    before.log = after.log[: divergence.common(before, after)]


def test_a_true_restore_passes(histories: Histories) -> None:
    before, after = histories

    counts = divergence.check(before, after)

    assert counts == {"LOG_DIVERGED": 1, "went back": 1, "went on": 1}
    checkers.check(before)
    checkers.check(divergence.since(after))


@pytest.mark.parametrize(
    "doctor",
    [
        reset_without_a_word,
        went_on_in_silence,
        reset_for_another_reason,
        reset_who_lost_nothing,
        told_again_of_what_is_lost,
        reset_to_what_is_lost,
        never_reset,
        a_history_of_its_own,
        nothing_lost,
    ],
)
def test_a_doctored_restore_fails(
    histories: Histories, doctor: Callable[[History, History], None]
) -> None:
    doctor(*histories)

    with pytest.raises(Violation, match=r"^D: "):
        divergence.check(*histories)


def test_the_part_since_the_reset_fails_the_checkers_of_one_history(histories: Histories) -> None:
    _, after = histories
    stream, _ = the_reset(after)
    told = [h for h in stream.heard if h.message.HasField("snapshot_chunk")]
    del told[0].message.snapshot_chunk.items[-1]

    with pytest.raises(Violation, match=r"^W13: "):
        checkers.check(divergence.since(after))
