"""Following the log without a wire: what each message of a watch means for whoever resumes it.

One `Follower` lives as long as the watch and outlives its streams. It holds the position and
the cursor, puts snapshots together, and hands out an event only when it is whole and new:
between two snapshots revisions rise strictly, and nothing is handed out twice.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import tenacity

from stagewire import pb
from stagewire.client import errors

if TYPE_CHECKING:
    from stagewire.client.history import History

#: An idle stream says something this often, until its Hello says otherwise.
DEFAULT_BOOKMARK_SECONDS = 15.0
#: A stream that says nothing for this many bookmark intervals is broken.
SILENT_INTERVALS = 3
#: Longer than any stream lives: only a stream nobody ends runs into it.
STREAM_DEADLINE_SECONDS = 35 * 60.0
#: Full jitter: anything between now and a ceiling that doubles from 1 s to 120 s.
BACKOFF = tenacity.wait_random_exponential(multiplier=1, max=120)

# After these the same request may be answered elsewhere or later; any other refusal is about
# the request itself and would only be repeated.
_PASSING = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
_LOST = frozenset(
    {
        pb.SNAPSHOT_REASON_OTHER_LOG,
        pb.SNAPSHOT_REASON_CURSOR_AHEAD,
        pb.SNAPSHOT_REASON_LOG_DIVERGED,
    }
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole state that matches the filter: what it does not name is gone.

    It replaces whatever was known before, also when its revision is lower: then history was
    lost, and `reason` says how it was noticed. Of what the caller may not see, which `sight`
    says, it does not tell: ask `tells_of` where something gone and something hidden differ.
    """

    reason: pb.SnapshotReason.ValueType
    revision: int
    items: tuple[pb.SnapshotItem, ...]
    cursor: bytes
    sight: pb.Sight | None = None

    def tells_of(self, namespace: str, model: str) -> bool:
        """Whether a model of this name, where it is not named, is not there."""
        return self.sight is None or any(
            seen.namespace in ("*", namespace)
            and (
                model.startswith(seen.model[:-1])
                if seen.model.endswith("*")
                else model == seen.model
            )
            for seen in self.sight.models
        )


#: What a watch yields.
Event = Snapshot | pb.Transaction | pb.Bookmark


@dataclass(slots=True)
class _Assembly:
    reason: pb.SnapshotReason.ValueType
    revision: int
    sight: pb.Sight | None
    items: list[pb.SnapshotItem] = field(default_factory=list)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, chunk: pb.SnapshotChunk) -> None:
        for item in chunk.items:
            self.digest.update(item.SerializeToString(deterministic=True))
            self.items.append(item)

    def finish(self, end: pb.SnapshotEnd) -> Snapshot:
        if len(self.items) != end.count:
            message = f"the snapshot has {len(self.items)} items, its end says {end.count}"
            raise errors.SnapshotDamaged(message)
        if self.digest.digest() != end.digest:
            message = f"the snapshot of revision {self.revision} does not match its digest"
            raise errors.SnapshotDamaged(message)
        return Snapshot(self.reason, self.revision, tuple(self.items), end.cursor, self.sight)


class Follower:
    """Where one watch stands, over all its streams."""

    def __init__(
        self,
        history: History,
        first: pb.WatchRequest,
        *,
        backoff: tenacity.wait.wait_base = BACKOFF,
        is_renewed: bool = False,
    ) -> None:
        """Begin where the first request says; `is_renewed` is the token that streams begin with."""
        self._history = history
        self._first = first
        self._backoff = backoff
        self._is_renewed = is_renewed
        self._failures = 0
        self._position = 0
        self._era = history.mark.era
        self._assembly: _Assembly | None = None
        self._goodbye: pb.Goodbye | None = None
        self._progressed = False
        self.cursor = first.cursor
        self.log_id = ""
        self.session = 0
        self.head_revision = 0
        self.bookmark_seconds = DEFAULT_BOOKMARK_SECONDS

    @property
    def silence_seconds(self) -> float:
        """How long a stream may say nothing before it counts as broken."""
        return SILENT_INTERVALS * self.bookmark_seconds

    def request(self) -> pb.WatchRequest:
        """Return the request for the next stream: the first one, or one that resumes."""
        self._assembly = None
        self._goodbye = None
        self._progressed = False
        request = pb.WatchRequest()
        request.CopyFrom(self._first)
        if self.cursor:
            request.cursor = self.cursor
            request.ClearField("start")
        return request

    def receive(self, message: pb.WatchResponse) -> Event | None:
        """Take one message; return the event it completes, if any.

        Refuses with `SnapshotDamaged` a snapshot that is not what its end says.
        """
        match message.WhichOneof("message"):
            case "hello":
                self._hello(message.hello)
            case "snapshot_begin":
                begin = message.snapshot_begin
                sight = begin.sight if begin.HasField("sight") else None
                self._assembly = _Assembly(begin.reason, begin.revision, sight)
            case "snapshot_chunk":
                self._assembled().add(message.snapshot_chunk)
            case "snapshot_end":
                return self._snapshot(self._assembled().finish(message.snapshot_end))
            case "transaction":
                return self._transaction(message.transaction)
            case "bookmark":
                return self._bookmark(message.bookmark)
            case "goodbye":
                self._goodbye = message.goodbye
                self.cursor = message.goodbye.cursor or self.cursor
        # What a newer server says besides is not for this release.
        return None

    def pause(self, failure: errors.StagewireError | None) -> float:
        """Return how many seconds to wait before the next stream; raise what waiting can't mend."""
        if failure is not None and not self._passes(failure):
            raise failure
        asked = (failure.retry_after if failure is not None else None) or 0.0
        if failure is None and self._goodbye is not None:
            asked = self._goodbye.reconnect_after.ToNanoseconds() / 1e9
            # A stream that ended in order and brought us on is no failure. One that brought
            # nothing is, or a server that says goodbye at once would be asked without end.
            if self._progressed:
                return asked
        self._failures += 1
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        state.attempt_number = self._failures
        return asked + self._backoff(state)

    def _passes(self, failure: errors.StagewireError) -> bool:
        """Tell whether waiting may help."""
        if failure.code is grpc.StatusCode.UNAUTHENTICATED:
            # Whoever was let in once and has a token that is renewed will be again: the renewed
            # one is late. Whoever never was has the wrong one.
            return self._is_renewed and bool(self.log_id)
        return failure.code in _PASSING

    def _hello(self, hello: pb.Hello) -> None:
        if hello.log_id != self.log_id:
            self._position = 0
        self.log_id = hello.log_id
        self.session = hello.session
        self.head_revision = hello.head_revision
        self.bookmark_seconds = (
            hello.bookmark_interval.ToNanoseconds() / 1e9 or DEFAULT_BOOKMARK_SECONDS
        )
        self._era = self._history.follow(hello.log_id)

    def _assembled(self) -> _Assembly:
        if self._assembly is None:
            message = "part of a snapshot came without its beginning"
            raise errors.SnapshotDamaged(message)
        return self._assembly

    def _snapshot(self, snapshot: Snapshot) -> Snapshot:
        self._assembly = None
        if snapshot.reason in _LOST:
            self._era = self._history.replace(snapshot.revision, log_id=self.log_id)
        self._advance(snapshot.revision, snapshot.cursor)
        return snapshot

    def _transaction(self, transaction: pb.Transaction) -> pb.Transaction | None:
        if transaction.revision <= self._position:
            return None
        self._advance(transaction.revision, transaction.cursor)
        for change in transaction.changes:
            _date(change, transaction)
        return transaction

    def _bookmark(self, bookmark: pb.Bookmark) -> pb.Bookmark | None:
        if bookmark.revision < self._position:
            return None
        self._advance(bookmark.revision, bookmark.cursor)
        return bookmark

    def _advance(self, revision: int, cursor: bytes) -> None:
        self._position = revision
        self.cursor = cursor
        self._failures = 0
        self._progressed = True
        self._history.learn(revision, era=self._era, log_id=self.log_id)


def _date(change: pb.Change, transaction: pb.Transaction) -> None:
    """Fill what a state leaves unset, which means "this transaction's"."""
    resource = change.WhichOneof("resource")
    if resource is None:
        return
    state = getattr(change, resource)
    if not state.revision:
        state.revision = transaction.revision
    for name in ("create_time", "update_time", "activity_time"):
        if name in state.DESCRIPTOR.fields_by_name and not state.HasField(name):
            getattr(state, name).CopyFrom(transaction.commit_time)
