"""Watchers whose grants come and go, and what each stream may have told them.

Every stream is judged by one sight: what its caller might see at some moment that is not before
the newest change it was sent. By that sight it must have told everything and nothing else.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from stagewire import pb
from stagewire.client import statuses
from stagewire.service import cursors
from tests.faults.fold import Fold, Knowledge, Sight, Telling, item_key, withholds
from tests.guarded import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

OVER = {"CREDENTIALS_INVALID", "CREDENTIALS_EXPIRED"}


@dataclass
class Record:
    """One stream: what was asked for, what came, and how it ended."""

    request: pb.WatchRequest
    #: What had been acknowledged to anybody when it was asked for.
    least: int
    heard: list[pb.WatchResponse] = field(default_factory=list)
    end: str = ""


class Watching:
    """One subject's watch, over all its streams and tokens."""

    def __init__(
        self,
        address: str,
        subject: str,
        filter_: pb.WatchFilter,
        acknowledged: Callable[[], int],
    ) -> None:
        self.subject = subject
        self.filter = filter_
        self.door = Door(address)
        self.records: list[Record] = []
        self.knowledge = Knowledge()
        self.cursor = b""
        self._acknowledged = acknowledged
        self._halt = threading.Event()
        self._call: Any = None
        self._items: list[pb.SnapshotItem] = []
        self._thread = threading.Thread(target=self._run, name=f"watching-{subject}")

    def start(self) -> None:
        self._thread.start()

    def cut(self) -> None:
        """Break the present stream."""
        if self._call is not None:
            self._call.cancel()

    def stop(self) -> None:
        self._halt.set()
        self.cut()
        self._thread.join()
        self.door.channel.close()

    @property
    def position(self) -> int:
        return cursors.decode(self.cursor).revision if self.cursor else 0

    def _run(self) -> None:
        while not self._halt.is_set():
            request = pb.WatchRequest(
                cursor=self.cursor, filter=self.filter, snapshot_on_reset=True
            )
            record = Record(request, self._acknowledged())
            self.records.append(record)
            try:
                self._call = self.door.stream("Watch", request)
                if self._halt.is_set():
                    self._call.cancel()
                for message in self._call:
                    record.heard.append(message)
                    self._learn(message)
                record.end = "OK"
            except grpc.RpcError as error:
                refusal = statuses.of(error)
                record.end = refusal.reason or refusal.code.name
                self._halt.wait(0.02)

    def _learn(self, message: pb.WatchResponse) -> None:
        match message.WhichOneof("message"):
            case "snapshot_begin":
                self._items = []
            case "snapshot_chunk":
                self._items += message.snapshot_chunk.items
            case "snapshot_end":
                self.knowledge.replace(self._items)
                self.cursor = message.snapshot_end.cursor
            case "transaction":
                self.knowledge.apply(message.transaction)
                self.cursor = message.transaction.cursor
            case "bookmark":
                self.cursor = message.bookmark.cursor


@dataclass(frozen=True)
class Era:
    """A stretch of the log in which a subject's grants were the same."""

    first: int
    last: int
    sight: Sight


def eras(log: Sequence[pb.Event], subject: str, within: str = "") -> list[Era]:
    """Fold the grants of a subject, and of everybody, through the log.

    `within` is the beginning of the only names that the subject's token lets it see.
    """
    held: dict[str, pb.Scope] = {}
    found = [Era(0, 0, Sight.of(()))]
    for event in log:
        for record in event.payload.records:
            change = record.change
            if change.kind == pb.CHANGE_KIND_GRANT_CREATED:
                if change.grant_state.subject in (subject, "*"):
                    held[change.access_id] = change.grant_state.scope
            elif change.kind == pb.CHANGE_KIND_GRANT_DELETED:
                held.pop(change.access_id, None)
        sight = Sight.of(_narrowed(held.values(), within) if within else held.values())
        if sight == found[-1].sight:
            found[-1] = Era(found[-1].first, event.revision, sight)
        else:
            found.append(Era(event.revision, event.revision, sight))
    return found


def _narrowed(scopes: Iterable[pb.Scope], within: str) -> Iterable[pb.Scope]:
    for scope in scopes:
        stem = scope.model.removesuffix("*")
        if stem.startswith(within):
            model = scope.model
        elif scope.model.endswith("*") and within.startswith(stem):
            model = f"{within}*"
        else:
            continue
        yield pb.Scope(role=pb.ROLE_VIEWER, namespace=scope.namespace, model=model)


def judge(watching: Watching, log: Sequence[pb.Event], found: Sequence[Era]) -> int:
    """Check every stream of a watch; answers how many messages there were."""
    for record in watching.records:
        newest = max((m.transaction.revision for m in record.heard), default=0)
        problems = _problems(record, watching.filter, log, found, max(record.least, newest))
        assert "" in problems, (watching.subject, problems)
        _check_announcement(record)
        if record.end in OVER and record.heard:
            kinds = {m.WhichOneof("message") for m in record.heard[-1:]}
            assert kinds <= {"bookmark", "hello", "snapshot_begin", "snapshot_chunk"}, kinds
    return sum(len(record.heard) for record in watching.records)


def _problems(
    record: Record,
    filter_: pb.WatchFilter,
    log: Sequence[pb.Event],
    found: Sequence[Era],
    least: int,
) -> list[str]:
    """Say by the sight of each era that is not over before `least` what is wrong; "" if nothing."""
    sights = [era.sight for era in found if era.last >= least or era is found[-1]]
    return [_problem(record, filter_, log, sight) for sight in sights]


def _check_announcement(record: Record) -> None:
    """Check that a resume under another sight says so, and under the same one doesn't."""
    carrying = [
        getattr(m, m.WhichOneof("message") or "").cursor
        for m in record.heard
        if m.WhichOneof("message") in ("snapshot_end", "transaction", "bookmark")
    ]
    if not carrying:
        return
    found = {cursors.decode(cursor).epoch for cursor in carrying}
    assert len(found) == 1, "one stream, one sight"
    (epoch,) = found
    resumed = record.request.cursor
    if resumed:
        announced = [
            m
            for m in record.heard
            if m.snapshot_begin.reason == pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED
        ]
        assert bool(announced) == (cursors.decode(resumed).epoch != epoch)
        assert not announced or announced == record.heard[1:2]


def _problem(record: Record, filter_: pb.WatchFilter, log: Sequence[pb.Event], sight: Sight) -> str:
    """Say what a stream told that this sight does not show, or did not tell that it does."""
    reading = _Reading(record, filter_, log, sight)
    for message in record.heard:
        kind = message.WhichOneof("message")
        assert kind is not None
        problem: str = getattr(reading, kind)(getattr(message, kind))
        if problem:
            return problem
    return ""


class _Reading:
    """A stream read by one sight: each message says "" or what is wrong with it."""

    def __init__(
        self, record: Record, filter_: pb.WatchFilter, log: Sequence[pb.Event], sight: Sight
    ) -> None:
        self.cursor = record.request.cursor
        self.filter = filter_
        self.log = log
        self.sight = sight
        self.telling = Telling(filter_, log, sight)
        self.position = cursors.decode(self.cursor).revision if self.cursor else -1
        self.items: list[pb.SnapshotItem] = []
        self.shown = 0

    def hello(self, _hello: pb.Hello) -> str:
        return ""

    def snapshot_begin(self, begin: pb.SnapshotBegin) -> str:
        self.items, self.shown = [], begin.revision
        if begin.reason == pb.SNAPSHOT_REASON_MODEL_ENTERED:
            first = self.telling.first(self.position, self.shown)
            if first is None or self.telling.told[first] is not None:
                return f"{first} comes before what entered until {self.shown}"
        elif (begin.reason == pb.SNAPSHOT_REASON_REQUESTED) == bool(self.cursor):
            return f"{begin.reason} is no reason"
        return ""

    def snapshot_chunk(self, chunk: pb.SnapshotChunk) -> str:
        self.items += chunk.items
        return ""

    def snapshot_end(self, _end: pb.SnapshotEnd) -> str:
        fold = Fold()
        for event in self.log[: self.shown]:
            fold.apply(event)
        self.position = self.shown
        found = {item_key(item): item for item in self.items}
        same = found == fold.view(self.filter, self.sight)
        return "" if same else f"the snapshot of {self.shown} is another"

    def transaction(self, told: pb.Transaction) -> str:
        first = self.telling.first(self.position, told.revision)
        if first != told.revision or self.telling.told[first] != list(told.changes):
            return f"{told.revision} is not {first}"
        self.position = told.revision
        event = self.log[told.revision - 1]
        payload = event.payload
        who = (payload.actor, payload.request_id, payload.reason)
        if withholds(event, self.sight):
            who = ("", "", "")
        if (told.actor, told.request_id, told.reason) != who:
            return f"{told.revision} says who did it, or does not"
        return ""

    def bookmark(self, bookmark: pb.Bookmark) -> str:
        first = self.telling.first(self.position, bookmark.revision)
        if first is not None or bookmark.revision < self.position:
            return f"{first} is missing before {bookmark.revision}"
        self.position = bookmark.revision
        return ""

    def goodbye(self, goodbye: pb.Goodbye) -> str:
        if goodbye.cursor == self.cursor:
            return ""
        same = cursors.decode(goodbye.cursor).revision == self.position
        return "" if same else "goodbye is somewhere else"
