"""The tail: one reader of the log per process, a ring of recent events, and who wants them.

A watcher is a place in the log, not a queue: the tail tells it that something concerns it, and
it takes the ready-made slices from the ring, or pages through the log when it has fallen behind
the ring. Everything here runs on the event loop, but for the reads themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import sqlalchemy as sa
import structlog

from stagewire import errors, failpoints, names, pb
from stagewire.store import events, schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor

    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

T = TypeVar("T")
log = structlog.get_logger("stagewire.tail")

# Rows read at once, and what they may weigh: a transaction's payload is mostly a kilobyte, but may
# be a thousand, and several readers hold a page each.
_PAGE = 200
PAGE_BYTES = 4 * 1024 * 1024
_FEW = 4
MOST_IN_RING = 100_000
# Read back at start: all agents of a server that was killed resume from just before its end, and
# each would read and unpack the same pages of the log by itself.
_READ_BACK = 1000
# Watchers that fell behind the ring read the log themselves, so few at a time.
CATCH_UP_READERS = 4
#: Kinds by which a model comes, with all that it holds, where it was not before.
ENTERING = (pb.CHANGE_KIND_MODEL_RENAMED, pb.CHANGE_KIND_MODEL_UNDELETED)

_HEAD = sa.select(schema.LogHead)
_AFTER = (
    sa.select(schema.Log)
    .where(schema.Log.revision > sa.bindparam("after"))
    .order_by(schema.Log.revision)
    .limit(sa.bindparam("size"))
)


def _page_by_weight() -> sa.Select[Any]:
    """Select as many rows as `size` and `most_bytes` allow, and always one."""
    weights = (
        sa.select(schema.Log.revision, sa.func.length(schema.Log.payload).label("bytes"))
        .where(schema.Log.revision > sa.bindparam("after"))
        .order_by(schema.Log.revision)
        .limit(sa.bindparam("size"))
        .subquery()
    )
    sums = sa.select(
        weights.c.revision,
        (sa.func.sum(weights.c.bytes).over(order_by=weights.c.revision) - weights.c.bytes).label(
            "before"
        ),
    ).subquery()
    return (
        sa.select(schema.Log)
        .join(sums, sums.c.revision == schema.Log.revision)
        .where(sums.c.before < sa.bindparam("most_bytes"))
        .order_by(schema.Log.revision)
    )


_PAGE_AFTER = _page_by_weight()


@dataclass(frozen=True, slots=True)
class Keys:
    """What a change is found by on one side."""

    namespace: str
    models: tuple[str, ...]
    stages: frozenset[str]


@dataclass(frozen=True, slots=True)
class Slice:
    """One change, ready to be sent: whole, or as LEFT."""

    kind: int
    model_id: str
    before: Keys | None
    after: Keys | None
    full: bytes
    left: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision of the log, ready to be sent to anybody.

    `before` and `chain` begin the chain hashes of the revision before it and of its own: whoever
    goes on from a place elsewhere proves by them that both mean the same history. `bare` is the
    header for whoever may not see all of it: it does not say who did it, and why.
    """

    revision: int
    before: bytes
    chain: bytes
    header: bytes
    bare: bytes
    slices: tuple[Slice, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Filter:
    """What a watcher asked for, canonically."""

    namespaces: frozenset[str]
    models: frozenset[str]
    prefix: str
    stages: frozenset[str]
    kinds: frozenset[int]
    digest: bytes

    @classmethod
    def of(cls, message: pb.WatchFilter) -> Filter:
        """Read a request's filter. Refuses models together with a prefix."""
        if message.models and message.model_prefix:
            raise errors.invalid(
                "filter.model_prefix", "give either models or model_prefix, not both"
            )
        canonical = pb.WatchFilter(
            namespaces=sorted(set(message.namespaces or ["default"])),
            models=sorted({names.lookup_model(name) for name in message.models}),
            model_prefix=names.lookup_model(message.model_prefix),
            stages=sorted({names.stage_key(stage) for stage in message.stages}),
            kinds=sorted(set(message.kinds)),
        )
        digest = hashlib.sha256(canonical.SerializeToString(deterministic=True)).digest()[:8]
        return cls(
            frozenset(canonical.namespaces),
            frozenset(canonical.models),
            canonical.model_prefix,
            frozenset(canonical.stages),
            frozenset(canonical.kinds),
            digest,
        )

    def matches(self, keys: Keys | None) -> bool:
        """Tell whether one side of a change is what was asked for."""
        if keys is None:
            return False
        if "*" not in self.namespaces and keys.namespace not in self.namespaces:
            return False
        if self.models and self.models.isdisjoint(keys.models):
            return False
        if self.prefix and not any(name.startswith(self.prefix) for name in keys.models):
            return False
        return not self.stages or not self.stages.isdisjoint(keys.stages)

    def select(self, entry: Entry) -> tuple[list[bytes], bool]:
        """Pick what to send of a revision, and say whether a model entered whole.

        For who may see everything; `views.select` picks for others.
        """
        chosen: list[bytes] = []
        for slice_ in entry.slices:
            if self.kinds and slice_.kind not in self.kinds:
                continue
            if self.matches(slice_.after):
                if slice_.kind in ENTERING and not self.matches(slice_.before):
                    return [], True
                chosen.append(slice_.full)
            elif self.matches(slice_.before):
                chosen.append(slice_.left)
        return chosen, False


@dataclass(frozen=True, slots=True)
class TailPace:
    """How often the log is looked at, and how long nobody may have, in seconds."""

    poll: float = 1.0
    #: Where commits of other processes are not told of.
    poll_unheard: float = 0.2
    #: Without a look for so long, what the tail knows may be old.
    freshness: float = 5.0


class Watcher:
    """A place in the log and a filter: `position` is the last revision dealt with."""

    __slots__ = ("chain", "filter", "idle", "position", "wake")

    def __init__(self, filter_: Filter, position: int, chain: bytes) -> None:
        """Begin after `position`, whose chain hash begins with `chain`."""
        self.filter = filter_
        self.position = position
        self.chain = chain
        self.idle = False
        self.wake = asyncio.Event()


class Index:
    """Watchers by what they watch, so that an event wakes those it concerns and no others."""

    def __init__(self) -> None:
        """Start empty."""
        self._exact: defaultdict[str, dict[Watcher, None]] = defaultdict(dict)
        self._broad: dict[Watcher, None] = {}

    def add(self, watcher: Watcher) -> None:
        """Index a watcher by its exact names, or among those that may want any."""
        for name in watcher.filter.models:
            self._exact[name][watcher] = None
        if not watcher.filter.models:
            self._broad[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Forget a watcher."""
        for name in watcher.filter.models:
            self._exact[name].pop(watcher, None)
            if not self._exact[name]:
                del self._exact[name]
        self._broad.pop(watcher, None)

    def concerned(self, entry: Entry) -> Iterator[Watcher]:
        """Find who may want something of an event."""
        found = {name for s in entry.slices for k in (s.before, s.after) if k for name in k.models}
        for name in found:
            yield from self._exact.get(name, ())
        yield from self._broad

    def __iter__(self) -> Iterator[Watcher]:
        """Give every watcher, one with several names several times."""
        for watchers in self._exact.values():
            yield from watchers
        yield from self._broad


class Tail:
    """Follows the log of one database for every watcher of this process."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        *,
        pace: TailPace | None = None,
        ring_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        """Prepare; `run` and `guard` do the work."""
        self.database = database
        self.executor = executor
        self.pace = pace or TailPace()
        self.ring_bytes = ring_bytes
        self.log_id = ""
        self.last = 0
        self.chain = b""
        #: Counts the times that the log's history changed.
        self.generation = 0
        #: Counts the times that freshness could not be proved.
        self.lapses = 0
        self.healthy = asyncio.Event()
        self.on_health: Callable[[bool], None] = lambda _healthy: None
        #: Each is told of every revision, in order.
        self.listeners: list[Callable[[Entry], None]] = []
        #: Each is called when what is known of the log may be of a history that was lost.
        self.on_break: list[Callable[[], None]] = []
        # One of its own: readers that have fallen behind must not hold it up.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="tail")
        self._proven = 0.0
        self._reading_since: float | None = None
        self._committed = 0
        self._committed_lock = threading.Lock()
        self._ring: deque[Entry] = deque()
        self._size = 0
        self._lost = False
        self._index = Index()
        self._wake = asyncio.Event()
        self._catch_up = asyncio.Semaphore(CATCH_UP_READERS)

    async def start(self) -> None:
        """Take up position at the log's head and have commits wake the tail."""
        loop = asyncio.get_running_loop()
        await self._take_position()
        await self._read_back()

        def wake() -> None:
            # A thread of the database's may outlive the loop by a moment.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._wake.set)

        def committed(revision: int) -> None:
            with self._committed_lock:
                self._committed = max(self._committed, revision)
            if not failpoints.hit("wake"):
                wake()

        self.database.on_commit(committed)
        self.database.on_hint(wake)

    def close(self) -> None:
        """Let go of the thread that reads, once it has ended."""
        if not self.is_fresh:
            # It may be waiting for a database that is silent.
            self.database.break_off()
        self._reader.shutdown(wait=True, cancel_futures=True)

    async def run(self) -> None:
        """Read new events as they come, for ever; a poll makes up for every lost wake."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds()):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._lost:
                    await self._take_position()
                await self._read_new()
            except BrokenLog as error:
                self._start_over(error)
            except Exception as error:
                # Whatever it was, it is tried again: without the tail every watch would be mute.
                # Whether it lasts is for `guard` to say: a database may restart in the meantime.
                log.exception("the log can't be read", reason=getattr(error, "reason", "INTERNAL"))
                await asyncio.sleep(self.pace.poll_unheard)
                self._wake.set()
            else:
                self._report(healthy=True)

    async def guard(self) -> None:
        """Say so, for ever, whenever freshness could not be proved for too long.

        Every stream is then ended in order, for its client to go on where freshness can be proved.
        """
        limit = self.pace.freshness
        given_up: float | None = None
        while True:
            left = self._proven + limit - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
                continue
            if self.healthy.is_set():
                log.error("freshness can't be proved", seconds=limit)
                self.lapses += 1
                self._report(healthy=False)
                self._wake_all()
            since = self._reading_since
            if since is not None and time.monotonic() - since > limit:
                # The database is neither answering nor refusing: frozen, or its cable is cut.
                # It might be elsewhere by now, and threads that wait for it would wait for ever.
                # While this read connects anew others may have found it, and are left alone.
                cut = self.database.break_off(limit if since == given_up else 0.0)
                if cut:
                    log.error("the database is silent; its connections are given up", count=cut)
                given_up = since
            await asyncio.sleep(limit / 5)

    def _poll_seconds(self) -> float:
        return self.pace.poll if self.database.hears_others else self.pace.poll_unheard

    async def _read(self, work: Callable[..., T], *values: Any) -> T:
        """Read on the tail's own thread; a read that ends well proves what was so at its start."""
        began = self._reading_since = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._reader, work, *values)
        finally:
            self._reading_since = None
        self._proven = began
        return found

    @property
    def is_fresh(self) -> bool:
        """Whether the log has been looked at lately enough."""
        return time.monotonic() - self._proven <= self.pace.freshness

    @property
    def has_read_own_commits(self) -> bool:
        """Whether the tail has come by everything that this process has answered for."""
        return self.last >= self._committed

    def since(self, revision: int, *, most: int) -> list[Entry] | None:
        """Give what was read after a revision, or None where that is too much or too long ago."""
        missing = self.last - revision
        if missing <= 0:
            return []
        if missing > min(most, len(self._ring)):
            return None
        return [self._ring[-number] for number in range(missing, 0, -1)]

    def register(self, watcher: Watcher) -> None:
        """Have a watcher woken by what concerns it."""
        self._index.add(watcher)

    def unregister(self, watcher: Watcher) -> None:
        """Leave a watcher alone from now on."""
        self._index.remove(watcher)

    def recent(self, after: int, chain: bytes) -> list[Entry] | None:
        """Give some of the events after a place, or None when the ring no longer has them.

        Refuses DATABASE_UNAVAILABLE for a place of another history than the tail's.
        """
        if after >= self.last:
            if after == self.last and chain != self.chain[:8]:
                raise history_changed()
            return []
        if not self._ring or after < self._ring[0].revision - 1:
            return None
        first = after + 1 - self._ring[0].revision
        # Indexing a deque is cheap near its ends; walking there from its start is not.
        found = [self._ring[i] for i in range(first, min(first + _PAGE, len(self._ring)))]
        if found[0].before != chain:
            raise history_changed()
        return found

    async def page(self, after: int, chain: bytes) -> list[Entry]:
        """Read events after a place from the log itself, a page at most.

        Refuses DATABASE_UNAVAILABLE when the log does not go on from there: it was compacted
        meanwhile, or its history is another one.
        """
        async with self._catch_up:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.executor, self._page, after, chain)

    def _page(self, after: int, chain: bytes) -> list[Entry]:
        def work(tx: Tx) -> list[Entry]:
            found = events.hash_at(tx, after)
            if found is None or found[:8] != chain:
                raise history_changed()
            return _chained(_rows(tx, after), after, found)[0]

        try:
            entries = self.database.read(work)
        except BrokenLog as error:
            raise history_changed() from error
        if not entries:
            raise history_changed()
        return entries

    async def _take_position(self) -> None:
        def work(tx: Tx) -> tuple[str, int, bytes]:
            return tx.log_id, tx.head, tx.head_hash

        self.log_id, self.last, self.chain = await self._read(self.database.read, work)
        self._ring.clear()
        self._size = 0
        self._lost = False
        with self._committed_lock:
            # After a loss of history the numbers begin lower.
            self._committed = min(self._committed, self.last)
        for listener in self.on_break:
            listener()
        self._report(healthy=True)

    async def _read_back(self) -> None:
        """Fill the ring with the newest part of the log."""
        after = max(self.last - _READ_BACK, 0)
        try:
            while after < self.last:
                entries = await self._read(self._up_to_position, after)
                if not entries:
                    return
                for old in entries:
                    self._keep(old)
                after = entries[-1].revision
        except BrokenLog:
            # Whoever resumes there is told by its own read of the log; others are served.
            log.exception("the end of the log does not hash onto what is before it")
            self._ring.clear()
            self._size = 0

    def _up_to_position(self, after: int) -> list[Entry]:
        def work(tx: Tx) -> list[Entry]:
            first = max(after, tx.rows(_HEAD)[0].compacted_revision)
            chain = events.hash_at(tx, first)
            if chain is None:
                return []
            entries, _ = _chained(_rows(tx, first), first, chain)
            return [old for old in entries if old.revision <= self.last]

        return self.database.read(work)

    async def _read_new(self) -> None:
        while True:
            after, chain = self.last, self.chain
            entries, head, chain = await self._read(self._new, after, chain)
            for new in entries:
                self._publish(new)
            self.chain = chain
            if self.last >= head:
                return

    def _new(self, after: int, chain: bytes) -> tuple[list[Entry], int, bytes]:
        failpoints.hit("tail.read")

        def work(tx: Tx) -> tuple[list[Entry], int, bytes]:
            if tx.log_id != self.log_id or tx.head < after:
                text = f"log {tx.log_id} ends at {tx.head}, expected {self.log_id} from {after}"
                raise BrokenLog(text)
            if tx.head == after:
                if tx.head_hash != chain:
                    text = f"revision {after} is another transaction now"
                    raise BrokenLog(text)
                return [], tx.head, chain
            entries, chain_after = _chained(_rows(tx, after), after, chain)
            if not entries:
                text = f"revision {after + 1} was compacted before it was read"
                raise BrokenLog(text)
            return entries, tx.head, chain_after

        return self.database.read(work)

    def _keep(self, new: Entry) -> None:
        self._ring.append(new)
        self._size += new.size
        while self._ring and (self._size > self.ring_bytes or len(self._ring) > MOST_IN_RING):
            self._size -= self._ring.popleft().size

    def _publish(self, new: Entry) -> None:
        self._keep(new)
        self.last, self.chain = new.revision, new.chain
        for listener in self.listeners:
            listener(new)
        for watcher in self._index.concerned(new):
            if watcher.idle:
                # Nothing up to here concerned it, or it would have been woken before.
                watcher.idle = False
                watcher.position, watcher.chain = new.revision - 1, new.before
            watcher.wake.set()

    def _start_over(self, error: BrokenLog) -> None:
        """End every stream: each resumes with its cursor, and is told what became of it."""
        log.error("the log's history changed under the tail", problem=str(error))
        self._report(healthy=False)
        self._lost = True
        self.generation += 1
        for listener in self.on_break:
            listener()
        self._wake_all()
        self._wake.set()

    def _wake_all(self) -> None:
        for watcher in self._index:
            watcher.wake.set()

    def _report(self, *, healthy: bool) -> None:
        if healthy != self.healthy.is_set():
            (self.healthy.set if healthy else self.healthy.clear)()
            self.on_health(healthy)


def history_changed() -> errors.RegistryError:
    """Build the refusal that ends a stream whose place is not, or no longer, in the log."""
    return errors.RegistryError(
        "DATABASE_UNAVAILABLE",
        "the log's history changed; resume from the last cursor to learn how",
        retry_after_seconds=1.0,
    )


def not_fresh() -> errors.RegistryError:
    """Build the refusal of a watch by a server that can't tell whether it is up to date."""
    return errors.RegistryError(
        "DATABASE_UNAVAILABLE",
        "this server can't reach the log just now; another one may, or try again",
        retry_after_seconds=1.0,
    )


class BrokenLog(Exception):
    """What follows in the log does not follow from what was read before."""


def _rows(tx: Tx, after: int) -> Any:
    if tx.head - after <= _FEW:
        return tx.rows(_AFTER, after=after, size=_FEW)
    return tx.rows(_PAGE_AFTER, after=after, size=_PAGE, most_bytes=PAGE_BYTES)


def _chained(rows: Any, after: int, chain: bytes) -> tuple[list[Entry], bytes]:
    """Make entries of rows, checking that each follows from the one before."""
    entries = []
    for row in rows:
        if row.revision != after + 1:
            text = f"revision {after + 1} is missing"
            raise BrokenLog(text)
        if events.chain(chain, row.revision, row.commit_time, row.payload) != row.chain_hash:
            text = f"revision {row.revision} does not hash onto the one before it"
            raise BrokenLog(text)
        entries.append(entry(row, chain))
        after, chain = row.revision, row.chain_hash
    return entries, chain


def entry(row: Any, before: bytes) -> Entry:
    """Make what is sent of a log row, once for every watcher of the process.

    `before` is the chain hash of the revision before it.
    """
    payload = pb.EventPayload()
    payload.ParseFromString(row.payload)
    header = pb.Transaction(revision=row.revision)
    header.commit_time.FromMicroseconds(row.commit_time)
    bare = header.SerializeToString()
    header.actor, header.request_id = payload.actor, payload.request_id
    header.reason = payload.reason
    whole = header.SerializeToString()
    slices = tuple(_slice(record) for record in payload.records)
    size = sum(len(s.full) + len(s.left) + 200 for s in slices) + 600
    return Entry(row.revision, before[:8], row.chain_hash[:8], whole, bare, slices, size)


def _slice(record: pb.ChangeRecord) -> Slice:
    change = record.change
    before = record.before if record.HasField("before") else None
    gone = b""
    if before is not None:
        gone = pb.Transaction(changes=[left(change, before)]).SerializeToString()
    return Slice(
        change.kind,
        change.model_id,
        _keys(before),
        _keys(record.after if record.HasField("after") else None),
        pb.Transaction(changes=[change]).SerializeToString(),
        gone,
    )


def left(change: pb.Change, before: pb.MatchKeys) -> pb.Change:
    """Say of a change only that what it was before is no more."""
    return pb.Change(
        kind=change.kind,
        delivery=pb.CHANGE_DELIVERY_LEFT,
        namespace=before.namespace,
        model=before.models[0] if before.models else change.model,
        model_id=change.model_id,
        version=change.version,
        stage=change.stage,
        webhook_id=change.webhook_id,
        access_id=change.access_id,
        left_stages=before.stages,
    )


def _keys(keys: pb.MatchKeys | None) -> Keys | None:
    if keys is None:
        return None
    stages = frozenset(names.stage_key(stage) for stage in keys.stages)
    return Keys(keys.namespace, tuple(keys.models), stages)


def transaction(header: bytes, cursor: bytes, slices: list[bytes]) -> bytes:
    """Join header, cursor and slices into one WatchResponse; serialised messages concatenate."""
    body = b"".join((header, _CURSOR_TAG, _varint(len(cursor)), cursor, *slices))
    return b"".join((_TRANSACTION_TAG, _varint(len(body)), body))


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:  # noqa: PLR2004  # seven bits a byte
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def _tag(message: type[Any], field: str) -> bytes:
    """Give the bytes that announce a length-delimited field."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


_CURSOR_TAG = _tag(pb.Transaction, "cursor")
_TRANSACTION_TAG = _tag(pb.WatchResponse, "transaction")
