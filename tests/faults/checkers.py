"""The invariants of watch.md as checkers over recorded histories.

Each takes a history, answers how many things it checked, and raises `Violation` at the first one
that does not hold. `tests/faults/test_checkers.py` shows that each can fail.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.service import cursors
from tests.faults.fold import Fold, Knowledge, item_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.protobuf.message import Message

    from tests.faults.fold import Key
    from tests.faults.recordings import History, StreamRecord, WatcherRecord

RESETS = {
    pb.SNAPSHOT_REASON_OTHER_LOG,
    pb.SNAPSHOT_REASON_CURSOR_AHEAD,
    pb.SNAPSHOT_REASON_LOG_DIVERGED,
    pb.SNAPSHOT_REASON_COMPACTED,
    pb.SNAPSHOT_REASON_FILTER_CHANGED,
    pb.SNAPSHOT_REASON_PERMISSIONS_CHANGED,
}


class Violation(AssertionError):
    """An invariant does not hold; the text says which, and where."""


def require(claim: object, invariant: str, *where: object) -> None:
    """Raise a Violation unless the claim holds."""
    if not claim:
        raise Violation(f"{invariant}: " + " ".join(str(part) for part in where))


def check(history: History) -> Counter[str]:
    """Run every checker; answer how many things each one checked."""
    return Counter({name: checker(history) for name, checker in CHECKERS.items()})


@dataclass(frozen=True)
class Claim:
    """What a message says of a stretch of the log: that nothing in it but itself matches.

    A `revision` is told whole by a transaction or replaced by a snapshot; a bookmark tells none.
    """

    after: int
    until: int
    message: pb.WatchResponse
    resumed: bool


def claims(history: History, stream: StreamRecord) -> Iterator[Claim]:
    """Give what a stream claims, message by message."""
    position = base(history, stream)
    resumed = bool(stream.request.cursor)
    for heard in stream.heard:
        message = heard.message
        match message.WhichOneof("message"):
            case "transaction":
                until = message.transaction.revision
            case "bookmark":
                until = message.bookmark.revision
            case "snapshot_begin":
                until = message.snapshot_begin.revision
            case _:
                continue
        if position is not None:
            yield Claim(position, until, message, resumed)
        position, resumed = until, False


def base(history: History, stream: StreamRecord) -> int | None:
    """Say after which revision a stream begins; None when a snapshot will say."""
    if stream.request.cursor:
        return cursors.decode(stream.request.cursor).revision
    if stream.request.start == pb.WATCH_START_BEGINNING:
        return _mark_told(history, stream) or 0
    if stream.request.start == pb.WATCH_START_NOW and stream.heard:
        return stream.heard[0].message.hello.head_revision
    return None


def _mark_told(history: History, stream: StreamRecord) -> int | None:
    """Say at which mark of the log a stream said that it begins; None when it said nothing."""
    if stream.request.start != pb.WATCH_START_BEGINNING or len(stream.heard) < 2:
        return None
    heard = stream.heard[1]
    told = heard.message.bookmark.revision if heard.message.HasField("bookmark") else None
    possible = {m.revision for m in history.marks if m.time < heard.time}
    return told if told in possible and told >= history.least_mark(stream.opened) else None


def streams(history: History) -> Iterator[tuple[WatcherRecord, StreamRecord]]:
    """Give every stream with its watcher."""
    for watcher in history.watchers:
        for stream in watcher.streams:
            yield watcher, stream


def w1_ordered(history: History) -> int:
    """Revisions on a stream strictly increase between snapshots; Hello comes first."""
    count = 0
    for watcher, stream in streams(history):
        last = base(history, stream) or 0
        for index, heard in enumerate(stream.heard):
            message = heard.message
            require(
                message.HasField("hello") == (index == 0), "W1", watcher.name, "Hello, once, first"
            )
            if message.HasField("snapshot_end"):
                last = cursors.decode(message.snapshot_end.cursor).revision
            elif message.HasField("transaction"):
                revision = message.transaction.revision
                require(revision > last, "W1", watcher.name, revision, "after", last)
                last = revision
                count += 1
    return count


def w2_unique(history: History) -> int:
    """No watcher is handed a revision twice, over all its streams."""
    count = 0
    for watcher in history.watchers:
        seen: set[int] = set()
        for event in watcher.events:
            if isinstance(event, pb.Transaction):
                require(event.revision not in seen, "W2", watcher.name, "twice", event.revision)
                seen.add(event.revision)
                count += 1
    return count


def w3_atomic(history: History) -> int:
    """One message holds all matching changes of its revision, and nothing else."""
    count = 0
    log = {event.revision for event in history.log}
    judged: set[tuple[int, int]] = set()
    for watcher in history.watchers:
        telling = history.telling(watcher.filter)
        for stream in watcher.streams:
            for heard in stream.heard:
                if not heard.message.HasField("transaction"):
                    continue
                count += 1
                # Read from tapes, equal messages are one object, which is judged once a filter.
                if (case := (id(heard.message), id(telling))) in judged:
                    continue
                judged.add(case)
                found = heard.message.transaction
                require(found.revision in log, "W3", watcher.name, found.revision, "is no revision")
                wanted = telling.told.get(found.revision, [])
                where = (watcher.name, found.revision)
                require(wanted is not None, "W3", *where, "wants a snapshot")
                require(list(found.changes) == wanted, "W3", *where, "is not whole")
    return count


def w4_reliable(history: History) -> int:
    """Nothing that matches is missing between what a stream tells."""
    return sum(_nothing_missing(history, "W4", resumed=False))


def w5_resumable(history: History) -> int:
    """After a cursor comes the first matching change after it, or an announced snapshot."""
    return sum(_nothing_missing(history, "W5", resumed=True))


def _nothing_missing(history: History, invariant: str, *, resumed: bool) -> Iterator[int]:
    head = len(history.log)
    for watcher, stream in streams(history):
        telling = history.telling(watcher.filter)
        for claim in claims(history, stream):
            if claim.resumed is not resumed:
                continue
            entered = claim.message.HasField("snapshot_begin")
            if entered and claim.message.snapshot_begin.reason != pb.SNAPSHOT_REASON_MODEL_ENTERED:
                continue
            require(claim.until <= head, invariant, watcher.name, "is at", claim.until)
            first = telling.first(claim.after, claim.until)
            told = first == claim.until and claim.message.HasField("transaction")
            # A snapshot of what entered stands for everything from the revision where it did.
            right = first is None or told or (entered and telling.told[first] is None)
            require(right, invariant, watcher.name, "was not told of", first)
            yield 1


def w6_bookmarks(history: History) -> int:
    """Bookmarks never decrease, and nothing at or below one comes later."""
    count = 0
    for watcher, stream in streams(history):
        mark = 0
        for heard in stream.heard:
            message = heard.message
            if message.HasField("bookmark"):
                revision = message.bookmark.revision
                require(revision >= mark, "W6", watcher.name, "bookmark", revision, "after", mark)
                decoded = cursors.decode(message.bookmark.cursor).revision
                require(decoded == revision, "W6", watcher.name, "cursor of", decoded)
                mark = revision
                count += 1
            elif message.HasField("transaction"):
                revision = message.transaction.revision
                require(revision > mark, "W6", watcher.name, revision, "after bookmark", mark)
            elif message.HasField("goodbye"):
                decoded = cursors.decode(message.goodbye.cursor).revision
                require(decoded == mark, "W6", watcher.name, "Goodbye at", decoded, "not", mark)
    return count


def w7_live(history: History) -> int:
    """A stream says something every 1.5 bookmark intervals, and bookmarks are close to the head."""
    most = 1.5 * history.bookmark_seconds + history.slack_seconds
    acknowledged = sorted(
        (write.acknowledged, _revision(write.answers[0]))
        for write in history.writes
        if write.acknowledged is not None and write.answers
    )
    tops = list(itertools.accumulate((revision for _, revision in acknowledged), max))
    count = 0
    for watcher, stream in streams(history):
        if watcher.dawdles:
            continue
        for one, other in itertools.pairwise(stream.heard):
            silence = other.time - one.time
            require(silence <= most, "W7", watcher.name, "heard nothing for", silence, "s")
            count += 1
        index = 0
        for heard in stream.heard:
            if not heard.message.HasField("bookmark"):
                continue
            while index < len(acknowledged) and acknowledged[index][0] < heard.time - most:
                index += 1
            known = tops[index - 1] if index else 0
            revision = heard.message.bookmark.revision
            require(revision >= known, "W7", watcher.name, "at", revision, "long after", known)
            count += 1
    return count


def w8_committed(history: History) -> int:
    """What was delivered is in the log as it was delivered."""
    count = 0
    log = {event.revision: event for event in history.log}
    judged: set[int] = set()
    for watcher, stream in streams(history):
        for heard in stream.heard:
            if not heard.message.HasField("transaction"):
                continue
            count += 1
            if id(heard.message) in judged:
                continue
            judged.add(id(heard.message))
            found = heard.message.transaction
            event = log.get(found.revision)
            require(event is not None, "W8", watcher.name, found.revision, "vanished")
            assert event is not None
            payload = event.payload
            same = (
                (found.actor, found.request_id, found.reason)
                == (payload.actor, payload.request_id, payload.reason)
                and found.commit_time == event.commit_time
                and cursors.decode(found.cursor).chain == event.chain_hash[:8]
            )
            require(same, "W8", watcher.name, found.revision, "is another transaction now")
    return count


def w9_gapless(history: History) -> int:
    """The log holds every revision above its mark up to its head, once, and its chain verifies."""
    chain = hashlib.sha256(b"stagewire log").digest()
    last_time = 0
    for number, event in enumerate(history.log, start=1):
        require(event.revision == number, "W9", "revision", event.revision, "instead of", number)
        moment = event.commit_time.ToMicroseconds()
        require(moment >= last_time, "W9", "time runs backwards at", number)
        payload = hashlib.sha256(event.payload.SerializeToString(deterministic=True)).digest()
        chain = hashlib.sha256(chain + struct.pack(">qq", number, moment) + payload).digest()
        require(chain == event.chain_hash, "W9", "the chain breaks at", number)
        last_time = moment
    mark = history.head.compacted_revision
    require(history.first_listed == mark + 1, "W9", "lists from", history.first_listed, mark)
    require(mark == max((m.revision for m in history.marks), default=0), "W9", "the mark is", mark)
    require(history.head.revision == len(history.log), "W9", "the head is", history.head.revision)
    require(history.head.head_hash == chain, "W9", "the head's hash is another")
    require(history.verified.intact, "W9", history.verified.problem)
    return len(history.log)


def w10_real_time(history: History) -> int:
    """A write acknowledged before another was sent has the smaller revision."""
    written = {event.payload.request_id for event in history.log}
    done = [w for w in history.writes if w.acknowledged is not None and w.answers]
    by_end = sorted(done, key=lambda write: write.acknowledged or 0.0)
    by_start = sorted(done, key=lambda write: write.sent)
    top, index, count = 0, 0, 0
    for write in by_start:
        while (by_end[index].acknowledged or 0.0) < write.sent:
            top = max(top, _revision(by_end[index].answers[0]))
            index += 1
        revision = _revision(write.answers[0])
        # What changed nothing answers with the revision that it found.
        least = top + 1 if write.request_id in written else top
        require(revision >= least, "W10", write.request_id, "at", revision, "after", top)
        count += 1
    return count


def w11_state(history: History) -> int:
    """The present state equals the fold of the log."""
    fold = Fold()
    for event in history.log:
        fold.apply(event)
    wanted = fold.view(pb.WatchFilter(namespaces=["*"]))
    found: dict[tuple[object, ...], Message] = {}
    for item in (
        *(pb.SnapshotItem(namespace=namespace) for namespace in history.namespaces),
        *(pb.SnapshotItem(stage=stage) for stage in history.stages),
        *(pb.SnapshotItem(model=model) for model in history.models),
        *(pb.SnapshotItem(version=version) for version in history.versions),
    ):
        key = item_key(item)
        require(key not in found, "W11", key, "is listed twice")
        found[key] = getattr(item, str(key[0]))
    require(found.keys() == wanted.keys(), "W11", "differs in", found.keys() ^ wanted.keys())
    for key, state in found.items():
        item = wanted[key]
        for omitted in item.omitted_texts:
            text = getattr(state, omitted.path).encode()
            digest = hashlib.sha256(text).hexdigest()
            require(
                (digest, len(text)) == (omitted.sha256, omitted.size_bytes), "W11", key, omitted
            )
            state.ClearField(omitted.path)
        require(state == getattr(item, str(key[0])), "W11", key, state, "is not", item)
    return len(found)


def w12_announced(history: History) -> int:
    """No reset without loss, none unannounced, and always the same log."""
    count = 0
    for watcher, stream in streams(history):
        for heard in stream.heard:
            message = heard.message
            if message.HasField("hello"):
                require(message.hello.log_id == history.log_id, "W12", watcher.name, "another log")
                count += 1
            elif message.HasField("snapshot_begin"):
                reason = message.snapshot_begin.reason
                name = pb.SnapshotReason.Name(reason)
                lost = reason == pb.SNAPSHOT_REASON_COMPACTED and _was_compacted(
                    stream, history.most_mark(heard.time)
                )
                require(
                    lost or reason not in RESETS, "W12", watcher.name, name, "of what was not lost"
                )
                asked = not stream.request.cursor
                requested = reason == pb.SNAPSHOT_REASON_REQUESTED
                require(asked or not requested, "W12", watcher.name, "a snapshot nobody asked for")
                count += 1
        for claim in claims(history, stream):
            require(claim.until >= claim.after, "W12", watcher.name, "went back to", claim.until)
            count += 1
        count += _told_what_is_compacted(history, watcher, stream)
    return count


def _was_compacted(stream: StreamRecord, mark: int) -> bool:
    """Tell whether a stream's cursor lies below a mark."""
    cursor = stream.request.cursor
    return bool(cursor) and cursors.decode(cursor).revision < mark


def _told_what_is_compacted(history: History, watcher: WatcherRecord, stream: StreamRecord) -> bool:
    """Check that a stream which can't have what it asked for says so before anything else."""
    mark = history.least_mark(stream.opened)
    if not mark or len(stream.heard) < 2:
        return False
    first = stream.heard[1].message
    if _was_compacted(stream, mark):
        reset = first.snapshot_begin.reason == pb.SNAPSHOT_REASON_COMPACTED
        require(reset, "W12", watcher.name, "resumed from below the mark", mark)
        return True
    if stream.request.start == pb.WATCH_START_BEGINNING and not stream.request.cursor:
        require(
            _mark_told(history, stream), "W12", watcher.name, "began without a word above", mark
        )
        return True
    return False


def w13_snapshots(history: History) -> int:
    """A snapshot equals the fold up to its revision, and has the count and digest it says."""
    shown = sorted(
        ((shot, watcher) for watcher, stream in streams(history) for shot in _snapshots(stream)),
        key=lambda found: found[0][0].snapshot_begin.revision,
    )
    fold, events = Fold(), iter(history.log)
    judged: set[tuple[object, ...]] = set()
    views: dict[bytes, dict[Key, pb.SnapshotItem]] = {}
    for shot, watcher in shown:
        revision = shot[0].snapshot_begin.revision
        asked = watcher.filter.SerializeToString(deterministic=True)
        # As in W3: equal messages from tapes are one object.
        if (case := (asked, *map(id, shot))) in judged:
            continue
        judged.add(case)
        while fold.revision < revision:
            fold.apply(next(events))
            views.clear()
        if asked not in views:
            views[asked] = fold.view(watcher.filter)
        _is_shown(shot, views[asked], watcher.name, "at", revision)
    return len(shown)


def _is_shown(
    shot: list[pb.WatchResponse], wanted: dict[Key, pb.SnapshotItem], *where: object
) -> None:
    items = [item for message in shot[1:-1] for item in message.snapshot_chunk.items]
    end = shot[-1].snapshot_end
    found = {item_key(item): item for item in items}
    require(len(found) == len(items) == end.count, "W13", *where, "has another count")
    digest = hashlib.sha256()
    for item in items:
        digest.update(item.SerializeToString(deterministic=True))
    require(digest.digest() == end.digest, "W13", *where, "has another digest")
    decoded = cursors.decode(end.cursor).revision
    begun = shot[0].snapshot_begin.revision
    require(decoded == begun, "W13", *where, "has a cursor of", decoded)
    require(found.keys() == wanted.keys(), "W13", *where, found.keys() ^ wanted.keys())
    for key, item in found.items():
        require(item == wanted[key], "W13", *where, item, "is not", wanted[key])


def _snapshots(stream: StreamRecord) -> Iterator[list[pb.WatchResponse]]:
    """Give the messages of each whole snapshot, from its beginning to its end."""
    shot: list[pb.WatchResponse] = []
    for heard in stream.heard:
        match heard.message.WhichOneof("message"):
            case "snapshot_begin":
                shot = [heard.message]
            case "snapshot_chunk":
                shot.append(heard.message)
            case "snapshot_end":
                yield [*shot, heard.message]


def w16_once(history: History) -> int:
    """A request_id has one revision, and every repetition of it the same answer."""
    places: dict[str, list[int]] = {}
    for event in history.log:
        if event.payload.request_id:
            places.setdefault(event.payload.request_id, []).append(event.revision)
    count = 0
    for write in history.writes:
        found = places.get(write.request_id, [])
        require(len(found) <= 1, "W16", write.request_id, "was done at", found)
        if write.refusal:
            require(not found, "W16", write.request_id, "was refused and done at", found)
        for answer in write.answers:
            require(answer == write.answers[0], "W16", write.request_id, "answers differ")
            require(
                not found or _revision(answer) == found[0], "W16", write.request_id, "elsewhere"
            )
            count += 1
    return count


def w19_convergence(history: History) -> int:
    """When all has been told, every watcher knows what the registry holds under its filter."""
    fold = Fold()
    for event in history.log:
        fold.apply(event)
    count = 0
    log = {event.revision for event in history.log}
    views: dict[bytes, dict[Key, pb.SnapshotItem]] = {}
    for watcher in history.watchers:
        first = watcher.streams[0].request
        if watcher.filter.kinds or first.start == pb.WATCH_START_NOW or first.cursor:
            continue
        if _mark_told(history, watcher.streams[0]):
            # It was told from a mark on, and knows nothing of what has not changed since.
            continue
        require(not _told(watcher) - log, "W19", watcher.name, "was told of what is not")
        asked = watcher.filter.SerializeToString(deterministic=True)
        if asked not in views:
            views[asked] = fold.view(watcher.filter)
        known, wanted = _knowledge(watcher), views[asked]
        # Under a filter of stages models come only with what happens to them whole.
        stages = {stage.casefold() for stage in watcher.filter.stages}
        kinds = ("version", "stage") if stages else ("version", "stage", "model")
        found = {key: state for key, state in known.states.items() if key[0] in kinds}
        right = {key: item for key, item in wanted.items() if key[0] in kinds}
        require(found.keys() == right.keys(), "W19", watcher.name, found.keys() ^ right.keys())
        for key, state in found.items():
            item = right[key]
            require(
                _unordered(state) == _unordered(getattr(item, str(key[0]))),
                *("W19", watcher.name, state, "is not", item),
            )
            for primary in item.primaries:
                if stages and primary.stage.casefold() not in stages:
                    continue
                told = known.primaries.get((key[1], primary.stage))
                require(told == primary.version, "W19", watcher.name, key, told, primary)
            count += 1
    return count


def _told(watcher: WatcherRecord) -> set[int]:
    return {e.revision for e in watcher.events if isinstance(e, pb.Transaction)}


def _knowledge(watcher: WatcherRecord) -> Knowledge:
    known = Knowledge()
    for event in watcher.events:
        if isinstance(event, pb.Transaction):
            known.apply(event)
        elif not isinstance(event, pb.Bookmark):
            known.replace(event.items)
    return known


def _unordered(state: Message) -> Message:
    """Forget the order of stages, which changes with their definitions alone."""
    if isinstance(state, pb.ModelVersion):
        copy = pb.ModelVersion()
        copy.CopyFrom(state)
        del copy.stages[:]
        copy.stages.extend(sorted(state.stages))
        return copy
    return state


def _revision(answer: Message) -> int:
    revision: int = answer.revision  # type: ignore[attr-defined]  # every write's answer has one
    return revision


CHECKERS: dict[str, Callable[[History], int]] = {
    "W1": w1_ordered,
    "W2": w2_unique,
    "W3": w3_atomic,
    "W4": w4_reliable,
    "W5": w5_resumable,
    "W6": w6_bookmarks,
    "W7": w7_live,
    "W8": w8_committed,
    "W9": w9_gapless,
    "W10": w10_real_time,
    "W11": w11_state,
    "W12": w12_announced,
    "W13": w13_snapshots,
    "W16": w16_once,
    "W19": w19_convergence,
}
