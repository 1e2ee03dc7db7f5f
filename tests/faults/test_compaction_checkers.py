"""The checkers on a log that was compacted: a true history passes, and each doctored one fails."""

from __future__ import annotations

import copy
import shutil
import time
from itertools import islice
from typing import TYPE_CHECKING

import pytest

from stagewire import pb
from stagewire.client import Client
from stagewire.store import compaction
from tests.faults import checkers
from tests.faults.checkers import CHECKERS, Violation
from tests.faults.recordings import (
    History,
    Mark,
    StreamRecord,
    WatcherRecord,
    read_log,
    take_stock,
    tap,
)
from tests.servers import RunningServer
from tests.wire import streams

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAST = 6
MARKS = (3, 4)


def follow(
    client: Client, history: History, name: str, *, count: int, cursor: bytes = b""
) -> bytes:
    """Take so many events from the beginning or a cursor, and answer where to go on."""
    record = next((w for w in history.watchers if w.name == name), None)
    if record is None:
        record = WatcherRecord(name, pb.WatchFilter())
        history.watchers.append(record)
    with tap(client.watch(cursor=cursor, start="beginning"), record) as watch:
        record.events.extend(islice(watch, count))
        return watch.cursor


@pytest.fixture(scope="module")
def recorded(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Record a watcher that falls below the mark, and one that begins at it."""
    path = tmp_path_factory.mktemp("history") / "stagewire.db"
    shutil.copy(sqlite_template, path)
    history = History()
    with RunningServer(f"sqlite:///{path}") as server, Client(server.address) as client:
        assert streams.versions(client, LAST - 2) == LAST
        cursor = follow(client, history, "behind", count=2)
        archived = read_log(client)
        database = server.server.database
        assert database is not None
        for mark in MARKS:
            history.marks.append(Mark(time.monotonic(), mark))
            list(compaction.compact(database, mark))
        follow(client, history, "behind", count=1, cursor=cursor)
        follow(client, history, "late", count=1 + LAST - MARKS[-1])
        take_stock(client, history)
    history.log = [*archived[: MARKS[-1]], *history.log]
    return history


@pytest.fixture
def history(recorded: History) -> History:
    """Give a copy of the true history, to be doctored."""
    return copy.deepcopy(recorded)


def stream_of(history: History, name: str) -> StreamRecord:
    (watcher,) = [watcher for watcher in history.watchers if watcher.name == name]
    return watcher.streams[-1]


def reset_above_the_mark(history: History) -> None:
    history.marks = [Mark(mark.time, mark.revision - 2) for mark in history.marks]


def reset_before_the_mark(history: History) -> None:
    later = stream_of(history, "behind").heard[-1].time + 1
    history.marks = [Mark(later, mark.revision) for mark in history.marks]


def resumed_from_below_the_mark(history: History) -> None:
    del stream_of(history, "behind").heard[1:-1]


def began_without_a_word(history: History) -> None:
    del stream_of(history, "late").heard[1]


def began_above_the_mark(history: History) -> None:
    stream_of(history, "late").heard[1].message.bookmark.revision = LAST


def missing_above_the_mark(history: History) -> None:
    del stream_of(history, "late").heard[2]


def listed_from_elsewhere(history: History) -> None:
    history.first_listed += 1


def a_mark_that_nobody_moved(history: History) -> None:
    history.head.compacted_revision += 1
    history.first_listed += 1


def test_a_true_history_of_a_compacted_log_passes_every_checker(history: History) -> None:
    counts = checkers.check(history)

    assert counts["W9"] == LAST
    assert {"W1", "W3", "W4", "W8", "W12", "W13", "W19"} <= {n for n, c in counts.items() if c}


@pytest.mark.parametrize(
    ("invariant", "doctor"),
    [
        ("W12", reset_above_the_mark),
        ("W12", reset_before_the_mark),
        ("W12", resumed_from_below_the_mark),
        ("W12", began_without_a_word),
        ("W12", began_above_the_mark),
        ("W4", missing_above_the_mark),
        ("W9", listed_from_elsewhere),
        ("W9", a_mark_that_nobody_moved),
    ],
)
def test_a_doctored_history_of_a_compacted_log_fails_its_checker(
    history: History, invariant: str, doctor: Callable[[History], None]
) -> None:
    doctor(history)

    with pytest.raises(Violation, match=f"^{invariant}: "):
        CHECKERS[invariant](history)
