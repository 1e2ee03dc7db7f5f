"""What makes a service function an RPC: `read` and `write` open the transaction around it.

The transaction boundary is here and nowhere else. A use case is `(tx, request) -> answer`; the
wrapper checks the request's limits, looks for a stored answer, runs the use case as often as the
database asks for it, stores the answer, appends the event and lets `Database` commit.
"""

from __future__ import annotations

import abc
import hashlib
import time
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

import sqlalchemy as sa
from google.protobuf.message import Message

from stagewire import errors, failpoints, pb
from stagewire.service import limits, messages, rules
from stagewire.store import events, schema
from stagewire.store.database import deadline_passed

if TYPE_CHECKING:
    from collections.abc import Callable

    from stagewire.callers import Caller
    from stagewire.hooks import HookRules
    from stagewire.rights import Permission
    from stagewire.service.deliveries import Letter, Outcome
    from stagewire.sources import Sources
    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

Request = TypeVar("Request", bound=Message)
Answer = TypeVar("Answer", bound=Message)

REQUEST_KEPT_SECONDS = 24 * 3600

_STORED = sa.select(schema.Request).where(
    schema.Request.caller == sa.bindparam("caller"),
    schema.Request.request_id == sa.bindparam("request_id"),
)
_EXPIRED = sa.delete(schema.Request).where(schema.Request.time < sa.bindparam("before"))
_HEAD = sa.select(schema.LogHead.revision, schema.LogHead.commit_time)


class Served(Protocol):
    """What operations run on: a registry has a database, and rules for sources and webhooks."""

    database: Database
    sources: Sources
    hooks: HookRules
    post: Callable[[Letter], Outcome]


class _Answered(Exception):
    """The use case is over, and what it wrote must not stay."""

    def __init__(self, answer: Message) -> None:
        super().__init__()
        self.answer = answer


class Operation(abc.ABC, Generic[Request, Answer]):
    """One RPC of the table of contents: call it with a request and a caller."""

    def __init__(self, work: Callable[[Tx, Request], Answer]) -> None:
        self.work = work
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, registry: None, owner: type) -> Operation[Request, Answer]: ...
    @overload
    def __get__(self, registry: Served, owner: type) -> Callable[[Request, Caller], Answer]: ...
    def __get__(
        self, registry: Served | None, owner: type
    ) -> Operation[Request, Answer] | Callable[[Request, Caller], Answer]:
        if registry is None:
            return self

        def call(request: Request, caller: Caller) -> Answer:
            limits.check(request)
            if caller.deadline is not None and time.monotonic() > caller.deadline:
                raise deadline_passed()
            needs = rules.authorise(self.name, caller, request)
            return self.run(registry, request, caller, needs)

        return call

    @abc.abstractmethod
    def run(self, registry: Served, request: Request, caller: Caller, needs: Permission) -> Answer:
        """Do it; `needs` is what the caller has to have on whatever is found by an id."""


class Read(Operation[Request, Answer]):
    """Answers from one consistent view, not older than the request's `min_revision`."""

    def run(self, registry: Served, request: Request, caller: Caller, needs: Permission) -> Answer:
        """Run the use case on a read-only view and mark the answer with its revision."""

        def work(tx: Tx) -> Answer:
            tx.begin(caller, needs)
            answer = self.work(tx, request)
            if "revision" in answer.DESCRIPTOR.fields_by_name and not _revision(answer):
                _set_revision(answer, tx.head)
            return answer

        return registry.database.read(work, min_revision=getattr(request, "min_revision", 0))


class Write(Operation[Request, Answer]):
    """Changes the registry: one use case, one transaction, at most one revision.

    `check` refuses what is to be held against the world outside, where no transaction waits.
    """

    def __init__(
        self,
        work: Callable[[Tx, Request], Answer],
        check: Callable[[HookRules, Request], None] | None = None,
    ) -> None:
        super().__init__(work)
        self.check = check

    def run(self, registry: Served, request: Request, caller: Caller, needs: Permission) -> Answer:
        """Run the use case to its commit, or answer from the stored one."""
        if self.check is not None:
            self.check(registry.hooks, request)
        request_id: str = getattr(request, "request_id", "")
        digest = _digest(request) if request_id else b""

        def stored(tx: Tx) -> None:
            row = tx.row(_STORED, caller=caller.name, request_id=request_id)
            if row is None:
                return
            if row.time < time.time_ns() // 1000 - REQUEST_KEPT_SECONDS * 1_000_000:
                tx.delete(schema.Request, caller=caller.name, request_id=request_id)
                return
            if row.method != self.name or row.request_hash != digest:
                raise errors.invalid(
                    "request_id",
                    f"was used for another {row.method} request; give each request its own",
                    reason="REQUEST_ID_REUSED",
                )
            raise _Answered(self._replayed(request, row, caller))

        def work(tx: Tx) -> tuple[Answer, int, int]:
            tx.begin(caller, needs)
            tx.reason = getattr(request, "reason", "")
            tx.sources = registry.sources
            tx.hooks = registry.hooks
            if request_id:
                stored(tx)
                if tx.postgresql:
                    tx.locked = lambda: stored(tx)
            answer = self.work(tx, request)
            if getattr(request, "validate_only", False):
                raise _Answered(answer)
            return self._finish(tx, answer, caller, request_id, digest)

        try:
            answer, revision, commit_time = registry.database.write(work, deadline=caller.deadline)
        except _Answered as early:
            return early.answer  # type: ignore[return-value]  # made by this operation
        failpoints.hit("wake.sent")
        _complete(answer, revision, commit_time)
        return answer

    def _finish(
        self, tx: Tx, answer: Answer, caller: Caller, request_id: str, digest: bytes
    ) -> tuple[Answer, int, int]:
        """Store the answer and append the event, which is the last statement."""
        revision, commit_time = tx.revision, tx.time
        if not tx.records and "revision" in answer.DESCRIPTOR.fields_by_name:
            head = tx.connection.execute(_HEAD).one()
            revision, commit_time = head.revision, head.commit_time
        if request_id:
            tx.insert(
                schema.Request,
                caller=caller.name,
                request_id=request_id,
                method=self.name,
                request_hash=digest,
                answer=self._kept(answer),
                revision=revision,
                time=tx.time if tx.records else time.time_ns() // 1000,
            )
        if tx.records:
            failpoints.hit("work.done")
            revision = events.append(tx, request_id=request_id, method=self.name)
            commit_time = tx.commit_time
            failpoints.hit("head.taken")
        return answer, revision, commit_time

    def _kept(self, answer: Answer) -> bytes:
        """Give what is kept of an answer for a repeated call."""
        return answer.SerializeToString()

    def _replayed(self, request: Request, row: sa.Row[Any], caller: Caller) -> Message:
        answer: Message = answer_class(request)()
        answer.ParseFromString(row.answer)
        rules.authorise_answer(caller, answer)
        _complete(answer, row.revision, row.time)
        return answer


class Secret(Write[Request, Answer]):
    """A write whose answer holds a secret: that is neither kept nor answered again."""

    def __init__(
        self,
        work: Callable[[Tx, Request], Answer],
        field: str,
        refusal: Callable[[Answer], errors.RegistryError],
    ) -> None:
        super().__init__(work)
        self.field = field
        self.refusal = refusal

    def _kept(self, answer: Answer) -> bytes:
        bare = type(answer)()
        bare.CopyFrom(answer)
        bare.ClearField(self.field)
        return bare.SerializeToString()

    def _replayed(self, request: Request, row: sa.Row[Any], caller: Caller) -> Message:
        raise self.refusal(cast("Answer", super()._replayed(request, row, caller)))


class Visit(Operation[Request, Answer], Generic[Request, Answer]):
    """Sends something that was read to somebody outside, and answers how that went."""

    def __init__(
        self,
        write: Callable[[Tx, Request], Letter],
        answer: Callable[[Outcome], Answer],
    ) -> None:
        self.write = write
        self.answer = answer
        self.name = ""

    def run(self, registry: Served, request: Request, caller: Caller, needs: Permission) -> Answer:
        """Read what to send, send it with no transaction open, and answer."""

        def work(tx: Tx) -> Letter:
            tx.begin(caller, needs)
            return self.write(tx, request)

        letter = registry.database.read(work)
        return self.answer(registry.post(letter))


class Note(Operation[Request, Answer]):
    """Writes what is too frequent for the log and repeatable by its own keys."""

    def run(self, registry: Served, request: Request, caller: Caller, needs: Permission) -> Answer:
        """Run the use case in a transaction that takes no revision."""

        def work(tx: Tx) -> Answer:
            tx.begin(caller, needs)
            return self.work(tx, request)

        return registry.database.write(work, deadline=caller.deadline)


def forget_old_requests(tx: Tx) -> int:
    """Delete stored answers that are no longer promised; answers how many."""
    return tx.run(_EXPIRED, {"before": time.time_ns() // 1000 - REQUEST_KEPT_SECONDS * 1_000_000})


def answer_class(request: Message) -> type[Any]:
    """Find the message that answers `request`, by the contract's naming rule."""
    found: type[Any] = getattr(pb, type(request).__name__.removesuffix("Request") + "Response")
    return found


def _digest(request: Message) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


def _complete(answer: Message, revision: int, commit_time: int) -> None:
    messages.fill(answer, revision, commit_time)
    if "revision" in answer.DESCRIPTOR.fields_by_name:
        _set_revision(answer, revision)


def _revision(answer: Message) -> int:
    return getattr(answer, "revision", 0)


def _set_revision(answer: Message, revision: int) -> None:
    answer.revision = revision  # type: ignore[attr-defined]  # checked by the caller


def bootstrap(database: Database, work: Callable[[Tx], bool]) -> None:
    """Run a use case of the server's own, as the actor `stagewire`."""

    def use_case(tx: Tx) -> None:
        tx.actor = "stagewire"
        if work(tx):
            events.append(tx, request_id="", method="Bootstrap")

    database.write(use_case)
