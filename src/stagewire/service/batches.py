"""Batched operations: callers that wait at the same time share one transaction.

Nobody has a thread for it. Whoever comes first writes for all who wait, and then has the next
one in line write for those who came meanwhile; so a batch grows with the load, and nobody waits
for it to grow. One caller's refusal never is another's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import structlog

from stagewire import errors
from stagewire.service.operations import Answer, Operation, Request, Served
from stagewire.store.database import deadline_passed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stagewire.callers import Caller
    from stagewire.rights import Permission
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

log = structlog.get_logger()

Item = TypeVar("Item")
Asked_contra = TypeVar("Asked_contra", contravariant=True)
Answered_co = TypeVar("Answered_co", covariant=True)

#: Past some hundreds a commit shared by more saves nothing, and the last one waits for the first.
MOST_TOGETHER = 256
#: What they weigh together: a batch must end well before the database's statement timeout.
MOST_WEIGHT = 5000


class Intake(Protocol[Asked_contra, Item, Answered_co]):
    """A use case for many requests at once; each database has one of its own."""

    def prepare(self, request: Asked_contra, caller: Caller) -> Item:
        """Check all that can be checked of one request alone, outside the transaction."""

    def weigh(self, item: Item) -> int:
        """Say how many rows it writes."""

    def write(self, tx: Tx, items: Sequence[Item]) -> Sequence[Answered_co | errors.RegistryError]:
        """Answer or refuse each; may be run again. What it raises refuses all of them."""

    def spent(self, items: int, seconds: float) -> None:
        """Hear how long a batch took."""


class Batch(Operation[Request, Answer], Generic[Request, Item, Answer]):
    """Writes what is too frequent for transactions of its own and repeatable by its own keys."""

    def __init__(self, make_intake: Callable[[], Intake[Request, Item, Answer]]) -> None:
        """Serve each database with an intake of its own."""
        # Of many requests at once: there is no work of one.
        self.name = ""
        self._make_intake = make_intake
        self._queues: WeakKeyDictionary[Database, _Queue[Item, Answer]] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def run(self, registry: Served, request: Request, caller: Caller, needs: Permission) -> Answer:
        """Wait for the batch that this request falls into."""
        with self._lock:
            queue = self._queues.get(registry.database)
            if queue is None:
                queue = _Queue(self._make_intake())
                self._queues[registry.database] = queue
        del needs  # what is reported is judged by its names
        item = queue.intake.prepare(request, caller)
        return queue.run(registry.database, item, caller.deadline)


class _Entry(Generic[Item, Answer]):
    """One who waits."""

    __slots__ = ("answer", "deadline", "error", "item", "leads", "turn")

    def __init__(self, item: Item, deadline: float | None) -> None:
        self.item = item
        self.deadline = deadline
        self.turn = threading.Event()
        self.leads = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None


class _Queue(Generic[Item, Answer]):
    """Those who wait for one database."""

    def __init__(self, intake: Intake[Any, Item, Answer]) -> None:
        self.intake = intake
        self._lock = threading.Lock()
        self._waiting: deque[_Entry[Item, Answer]] = deque()
        self._is_led = False

    def run(self, database: Database, item: Item, deadline: float | None) -> Answer:
        """Get in line, write if this caller is to lead, and answer."""
        entry: _Entry[Item, Answer] = _Entry(item, deadline)
        with self._lock:
            self._waiting.append(entry)
            if not self._is_led:
                self._is_led = entry.leads = True
        if not entry.leads:
            # Every leader ends: what it asks of the database has timeouts.
            entry.turn.wait()
        if entry.leads:
            self._lead(database)
        if entry.error is not None:
            raise entry.error
        return cast("Answer", entry.answer)

    def _lead(self, database: Database) -> None:
        """Write for the first in line, oneself, and as many behind as fit; then hand over."""
        batch = self._take()
        try:
            self._write(database, batch)
        except BaseException as error:
            for entry in batch:
                entry.error = error
            raise
        finally:
            for entry in batch[1:]:
                entry.turn.set()
            with self._lock:
                if self._waiting:
                    self._waiting[0].leads = True
                    self._waiting[0].turn.set()
                else:
                    self._is_led = False

    def _take(self) -> list[_Entry[Item, Answer]]:
        with self._lock:
            batch = [self._waiting.popleft()]
            weight = self.intake.weigh(batch[0].item)
            while self._waiting and len(batch) < MOST_TOGETHER:
                weight += self.intake.weigh(self._waiting[0].item)
                if weight > MOST_WEIGHT:
                    break
                batch.append(self._waiting.popleft())
        return batch

    def _write(self, database: Database, batch: Sequence[_Entry[Item, Answer]]) -> None:
        now = time.monotonic()
        living = []
        for entry in batch:
            if entry.deadline is not None and now > entry.deadline:
                entry.error = deadline_passed()
            else:
                living.append(entry)
        try:
            self._commit(database, living)
        except Exception as error:  # noqa: BLE001  # it goes to the callers
            foreseen = isinstance(error, errors.RegistryError) and error.reason != "INTERNAL"
            if foreseen or len(living) == 1:
                for entry in living:
                    entry.error = error
                return
            # Something in one of them that nobody thought of: the others must not suffer for it.
            log.warning("batch failed; each is written alone", requests=len(living), error=error)
            for entry in living:
                try:
                    self._commit(database, [entry])
                except Exception as alone:  # noqa: BLE001  # as above
                    entry.error = alone

    def _commit(self, database: Database, entries: Sequence[_Entry[Item, Answer]]) -> None:
        if not entries:
            return
        items = [entry.item for entry in entries]
        began = time.monotonic()
        outcomes = database.write(lambda tx: self.intake.write(tx, items))
        self.intake.spent(len(items), time.monotonic() - began)
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, errors.RegistryError):
                entry.error = outcome
            else:
                entry.answer = outcome
