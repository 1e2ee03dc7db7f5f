"""Two histories with a common beginning, as a failover or a restore makes them, and who knew which.

A revision is *lost* when its number means another transaction afterwards, or none. Whoever held
a lost revision must be told so before anything else; whoever did not must not notice.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.client.follower import Snapshot
from stagewire.service import cursors
from tests.faults.checkers import require
from tests.faults.recordings import Heard, History, StreamRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stagewire.client import Event
    from tests.faults.recordings import WatcherRecord

LOST = {pb.SNAPSHOT_REASON_CURSOR_AHEAD, pb.SNAPSHOT_REASON_LOG_DIVERGED}


class Side(enum.Enum):
    """Whose revision a place is."""

    COMMON = "the common beginning"
    OLD = "the lost history"
    NEW = "the new history"


def at_this_moment(history: History, absent: set[str]) -> History:
    """Copy what has been recorded so far of watchers that go on, save those named."""
    watchers = [
        replace(
            watcher,
            streams=[StreamRecord(s.request, s.opened, list(s.heard)) for s in watcher.streams],
            events=list(watcher.events),
        )
        for watcher in history.watchers
        if watcher.name not in absent
    ]
    return History(
        watchers=watchers,
        writes=list(history.writes),
        bookmark_seconds=history.bookmark_seconds,
        slack_seconds=history.slack_seconds,
    )


def common(before: History, after: History) -> int:
    """Give the last revision that means the same in both."""
    return sum(
        one.chain_hash == other.chain_hash
        for one, other in zip(before.log, after.log, strict=False)
    )


def check(before: History, after: History) -> Counter[str]:
    """Require that all who held a lost revision were reset, saying so, and nobody else.

    `after` holds its watchers over both histories. Answers how many were reset, and for which
    reason, and how many went on.
    """
    sides = _Sides(before, after)
    counts: Counter[str] = Counter()
    for watcher in after.watchers:
        resets = list(_resets(watcher, sides))
        counts.update(
            pb.SnapshotReason.Name(reason).removeprefix("SNAPSHOT_REASON_") for reason in resets
        )
        counts["went back" if resets else "went on"] += 1
    return counts


def since(after: History) -> History:
    """Give the part of each watcher that is of the new history, for the checkers of one history.

    The stream that began with a reset becomes one that asked for a snapshot.
    """
    return replace(after, watchers=[_since(watcher) for watcher in after.watchers])


class _Sides:
    """Tells whose a place is."""

    def __init__(self, before: History, after: History) -> None:
        self._common = common(before, after)
        self._old = {e.revision: e.chain_hash[:8] for e in before.log}
        self._new = {e.revision: e.chain_hash[:8] for e in after.log}
        require(self._common < len(before.log), "D", "nothing was lost")

    def of(self, data: bytes, watcher: WatcherRecord) -> Side:
        cursor = cursors.decode(data)
        if cursor.revision <= self._common:
            known = self._new.get(cursor.revision, cursor.chain)
            require(cursor.chain == known, "D", watcher.name, "invented", cursor.revision)
            return Side.COMMON
        if cursor.chain == self._old.get(cursor.revision):
            return Side.OLD
        known = self._new.get(cursor.revision, b"")
        require(cursor.chain == known, "D", watcher.name, cursor.revision, "is of neither history")
        return Side.NEW


def _resets(watcher: WatcherRecord, sides: _Sides) -> Iterator[pb.SnapshotReason.ValueType]:
    """Follow one watcher through both histories, and give the resets that it had to be given."""
    held = Side.COMMON
    for stream in watcher.streams:
        if stream.request.cursor:
            held = sides.of(stream.request.cursor, watcher)
        announced, head = not stream.request.cursor, 0
        for heard in stream.heard:
            message = heard.message
            if message.HasField("hello"):
                head = message.hello.head_revision
            if message.HasField("snapshot_begin"):
                reason = message.snapshot_begin.reason
                if reason in LOST:
                    require(held is Side.OLD, "D", watcher.name, "was reset, but lost nothing")
                    right = _reason(stream.request, head)
                    require(reason == right, "D", watcher.name, "was told", reason, "for", right)
                    announced = True
                    yield reason
            for cursor in _cursors(message):
                told = sides.of(cursor, watcher)
                silent = held is Side.OLD and told is not Side.OLD and not announced
                require(not silent, "D", watcher.name, "came to", told.value, "in silence")
                back = told is Side.OLD and (held is Side.NEW or (announced and held is Side.OLD))
                require(not back, "D", watcher.name, "was told again of", told.value)
                held, announced = told, False
    require(held is not Side.OLD, "D", watcher.name, "still holds", held.value)


def _reason(request: pb.WatchRequest, head: int) -> pb.SnapshotReason.ValueType:
    ahead = cursors.decode(request.cursor).revision > head
    return pb.SNAPSHOT_REASON_CURSOR_AHEAD if ahead else pb.SNAPSHOT_REASON_LOG_DIVERGED


def _cursors(message: pb.WatchResponse) -> Iterator[bytes]:
    kind = message.WhichOneof("message")
    if kind in ("transaction", "bookmark", "snapshot_end", "goodbye"):
        yield getattr(message, kind).cursor


def _since(watcher: WatcherRecord) -> WatcherRecord:
    for index, stream in enumerate(watcher.streams):
        begins = [h for h in stream.heard if _is_reset(h.message)]
        if begins:
            request = pb.WatchRequest()
            request.CopyFrom(stream.request)
            request.ClearField("cursor")
            streams = [StreamRecord(request, stream.opened, [_asked_for(h) for h in stream.heard])]
            streams += watcher.streams[index + 1 :]
            return replace(watcher, streams=streams, events=_events_since(watcher))
    return watcher


def _events_since(watcher: WatcherRecord) -> list[Event]:
    resets = [
        index
        for index, event in enumerate(watcher.events)
        if isinstance(event, Snapshot) and event.reason in LOST
    ]
    return watcher.events[resets[0] :] if resets else []


def _is_reset(message: pb.WatchResponse) -> bool:
    return message.HasField("snapshot_begin") and message.snapshot_begin.reason in LOST


def _asked_for(heard: Heard) -> Heard:
    if not _is_reset(heard.message):
        return heard
    message = pb.WatchResponse()
    message.CopyFrom(heard.message)
    message.snapshot_begin.reason = pb.SNAPSHOT_REASON_REQUESTED
    return Heard(heard.time, message)
