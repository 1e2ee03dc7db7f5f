"""The book of deliveries: who delivers for a webhook, what is next, and what became of it.

Only the holder of a webhook's lease moves its place in the log, and only under the fencing number
that it got with the lease: whoever was replaced in the meantime writes nothing.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.service import happenings, messages, webhooks
from stagewire.service.happenings import Happening
from stagewire.store import clock, schema
from stagewire.store.transactions import dialect_insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stagewire.store.database import Database
    from stagewire.store.transactions import Tx

# Records of the log read at once for a webhook: each is mostly a kilobyte, but may be a thousand.
_PAGE = 25
# Deliveries made once more between two looks at the log.
_QUEUED = 25
_MICROS = 1_000_000
#: Deliveries are numbered by name under this, so that one has its id before anything is written.
_DELIVERIES = uuid.UUID("6f1c7a3e-52b5-4b0e-9a54-d2b0a3a1c8b7")

_CURSOR = schema.WebhookCursor
_DELIVERY = schema.WebhookDelivery
_HEAD = sa.select(schema.LogHead)
_RENEW = (
    sa.update(_CURSOR)
    .where(_CURSOR.holder == sa.bindparam("me"), _CURSOR.active)
    .values(lease_end_time=sa.bindparam("until"))
)
_ADVANCE = (
    sa.update(_CURSOR)
    .where(
        _CURSOR.webhook_id == sa.bindparam("id_"),
        _CURSOR.holder == sa.bindparam("me"),
        _CURSOR.fence == sa.bindparam("fence_"),
        _CURSOR.revision < sa.bindparam("revision_"),
    )
    .values(revision=sa.bindparam("revision_"), skip=0)
)
_FREE = sa.select(_CURSOR.webhook_id).where(
    _CURSOR.active,
    _CURSOR.holder != sa.bindparam("me"),
    sa.or_(_CURSOR.holder == "", _CURSOR.lease_end_time < sa.bindparam("now")),
)
_FREE_SHARED = _FREE.with_for_update(skip_locked=True)
_TAKE = (
    sa.update(_CURSOR)
    .where(_CURSOR.webhook_id == sa.bindparam("id_"))
    .values(
        holder=sa.bindparam("me"), fence=_CURSOR.fence + 1, lease_end_time=sa.bindparam("until")
    )
)
_MINE = sa.select(_CURSOR.webhook_id, _CURSOR.fence).where(
    _CURSOR.holder == sa.bindparam("me"), _CURSOR.active
)
_RELEASE = (
    sa.update(_CURSOR)
    .where(_CURSOR.holder == sa.bindparam("me"))
    .values(holder="", lease_end_time=0)
)
_HELD = (
    sa.select(
        _CURSOR,
        schema.Webhook.namespace,
        schema.Webhook.url,
        schema.Webhook.format,
        schema.Webhook.secret,
        schema.Webhook.events,
        schema.Webhook.models,
        schema.Webhook.model_prefix,
    )
    .join(schema.Webhook, schema.Webhook.id == _CURSOR.webhook_id)
    .where(
        _CURSOR.webhook_id == sa.bindparam("id_"),
        _CURSOR.holder == sa.bindparam("me"),
        _CURSOR.fence == sa.bindparam("fence_"),
        _CURSOR.active,
        schema.Webhook.deleted.is_(False),
    )
)
_LOG_AFTER = (
    sa.select(schema.Log)
    .where(
        schema.Log.revision.in_(
            sa.select(schema.LogModel.revision)
            .where(
                schema.LogModel.namespace == sa.bindparam("namespace"),
                schema.LogModel.revision > sa.bindparam("after"),
            )
            .distinct()
            .order_by(schema.LogModel.revision)
            .limit(_PAGE)
        )
    )
    .order_by(schema.Log.revision)
)
_LOG_AT = sa.select(schema.Log).where(schema.Log.revision == sa.bindparam("revision"))
_PROMPTS = sa.select(schema.ModelTag.model_id).where(
    schema.ModelTag.key == happenings.IS_PROMPT,
    sa.func.lower(schema.ModelTag.value) == "true",
    schema.ModelTag.model_id.in_(sa.bindparam("ids", expanding=True)),
)
_BODY = sa.select(schema.Text.body).where(
    schema.Text.model_id == sa.bindparam("model_id"),
    schema.Text.number == sa.bindparam("number"),
    schema.Text.sha256 == sa.bindparam("sha256"),
)
_WAITING = (
    sa.select(_DELIVERY)
    .where(
        _DELIVERY.webhook_id == sa.bindparam("id_"),
        _DELIVERY.status == pb.DELIVERY_STATUS_QUEUED,
    )
    .order_by(_DELIVERY.revision, _DELIVERY.place)
    .limit(_QUEUED)
)
_OLDEST_KEPT = (
    sa.select(_DELIVERY.revision)
    .where(_DELIVERY.webhook_id == sa.bindparam("id_"))
    .order_by(_DELIVERY.revision.desc(), _DELIVERY.place.desc())
    .offset(sa.bindparam("kept"))
    .limit(1)
)
_PRUNE = sa.delete(_DELIVERY).where(
    _DELIVERY.webhook_id == sa.bindparam("id_"), _DELIVERY.revision <= sa.bindparam("until")
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to deliver for a webhook, under its fencing number."""

    webhook_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One event for one webhook, with all that it takes to write and address it.

    Once it is done with, so is everything up to `then`, and `then_skip` events of the next one.
    """

    id: str
    webhook_id: str
    url: str
    format: int
    secret: bytes | None
    namespace: str
    log_id: str
    revision: int
    place: int
    time: datetime
    happening: Happening
    then: int = 0
    then_skip: int = 0


@dataclass(frozen=True, slots=True)
class Missed:
    """Revisions that were compacted away before they could be sent."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Agenda:
    """What is next for a webhook.

    With the `letters` sent everything up to `scanned` is done with; `more` when the log goes on.
    `wait_seconds` is how long the first letter has to wait.
    """

    letters: Sequence[Letter]
    again: Sequence[Letter]
    gone: Sequence[str]
    scanned: int
    more: bool
    missed: Missed | None
    attempts: int
    wait_seconds: float
    failing_seconds: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: `error` names the class of what went wrong, '' for nothing."""

    status: int = 0
    error: str = ""
    message: str = ""
    retry_after_seconds: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return not self.error


class Book:
    """The book of deliveries in one database, as one replica writes in it."""

    def __init__(self, database: Database, me: str, *, lease_seconds: float, kept: int) -> None:
        """Write as `me`, keeping so many deliveries of each webhook."""
        self._database = database
        self._me = me
        self._lease_micros = int(lease_seconds * _MICROS)
        self._kept = kept

    def take(self, positions: Mapping[Lease, int]) -> set[Lease]:
        """Renew what is held, take what nobody holds, and answer what is held now.

        `positions` say how far the log was read without anything to send.
        """

        def work(tx: Tx) -> set[Lease]:
            now = clock.now(tx)
            until = now + self._lease_micros
            tx.run(_RENEW, {"me": self._me, "until": until})
            for lease, revision in positions.items():
                tx.run(_ADVANCE, {**self._key(lease), "revision_": revision})
            # A SQLite file has one server: who held a lease before is no more.
            at = now if tx.postgresql else until + self._lease_micros
            free = _FREE_SHARED if tx.postgresql else _FREE
            for row in tx.rows(free, me=self._me, now=at):
                tx.run(_TAKE, {"id_": row.webhook_id, "me": self._me, "until": until})
            return {Lease(row.webhook_id, row.fence) for row in tx.rows(_MINE, me=self._me)}

        return self._database.write(work)

    def release(self) -> None:
        """Let go of everything, for others to take at once."""
        self._database.write(lambda tx: tx.run(_RELEASE, {"me": self._me}))

    def look(self, lease: Lease, after: int) -> Agenda | None:
        """Say what is next; `after` is how far the log was read before. None: the lease is lost."""

        def work(tx: Tx) -> Agenda | None:
            row = tx.row(_HELD, **self._key(lease))
            return None if row is None else _agenda(tx, row, after)

        return self._database.read(work)

    def settle(
        self, lease: Lease, letter: Letter, outcome: Outcome, *, retry_seconds: float | None
    ) -> bool:
        """Write down how an attempt ended; False when the lease is lost, and nothing written.

        A failure is tried again after so long, or given up where that is None.
        """

        def work(tx: Tx) -> bool:
            now = clock.now(tx)
            values: dict[str, Any] = {"attempts": 0, "next_attempt_time": None, "error": ""}
            status = pb.DELIVERY_STATUS_DELIVERED
            next_time = None
            if outcome.delivered:
                values |= {"delivered_revision": letter.revision, "delivered_time": now}
                values["failing_since_time"] = None
            else:
                since = sa.func.coalesce(_CURSOR.failing_since_time, now)
                values |= {"failing_since_time": since, "error": outcome.error}
                status = pb.DELIVERY_STATUS_DEAD
            if outcome.delivered or retry_seconds is None:
                values |= {"revision": letter.then, "skip": letter.then_skip}
            else:
                next_time = now + int(retry_seconds * _MICROS)
                values |= {"attempts": _CURSOR.attempts + 1, "next_attempt_time": next_time}
                status = pb.DELIVERY_STATUS_RETRYING
            if not self._move(tx, lease, values):
                return False
            _note(tx, letter, outcome, status=status, now=now, next_time=next_time)
            return True

        return self._database.write(work)

    def settle_again(self, lease: Lease, letter: Letter, outcome: Outcome) -> bool:
        """Write down how a delivery that was asked for once more ended."""

        def work(tx: Tx) -> bool:
            if not self._move(tx, lease, {"skip": _CURSOR.skip}):
                return False
            status = pb.DELIVERY_STATUS_DELIVERED if outcome.delivered else pb.DELIVERY_STATUS_DEAD
            _note(tx, letter, outcome, status=status, now=clock.now(tx), next_time=None)
            return True

        return self._database.write(work)

    def give_up(self, lease: Lease, delivery_ids: Sequence[str]) -> bool:
        """Write down that deliveries can't be made once more: the log no longer holds them."""

        def work(tx: Tx) -> bool:
            held = self._move(tx, lease, {"skip": _CURSOR.skip})
            for id_ in delivery_ids if held else ():
                values = {"status": pb.DELIVERY_STATUS_DEAD, "next_attempt_time": None}
                tx.update(_DELIVERY, {"id": id_}, **values, error="compacted")
            return held

        return self._database.write(work)

    def miss(self, lease: Lease, missed: Missed) -> bool:
        """Write down that the log was compacted before these revisions could be sent."""

        def work(tx: Tx) -> bool:
            values = {
                "revision": missed.last,
                "skip": 0,
                "attempts": 0,
                "next_attempt_time": None,
                "missed_revisions": _CURSOR.missed_revisions + missed.last - missed.first + 1,
                "last_missed_revision": missed.last,
            }
            if not self._move(tx, lease, values):
                return False
            name = f"{lease.webhook_id}/{missed.first}-{missed.last}"
            tx.insert(
                _DELIVERY,
                id=str(uuid.uuid5(_DELIVERIES, name)),
                webhook_id=lease.webhook_id,
                revision=missed.first,
                place=0,
                event="",
                status=pb.DELIVERY_STATUS_MISSED,
                attempts=0,
                response_status=0,
                error="compacted",
                create_time=clock.now(tx),
                attempt_time=None,
                next_attempt_time=None,
                until_revision=missed.last,
            )
            return True

        return self._database.write(work)

    def prune(self, webhook_id: str) -> None:
        """Forget the oldest of a webhook's deliveries, whatever became of them."""

        def work(tx: Tx) -> None:
            until = tx.scalar(_OLDEST_KEPT, id_=webhook_id, kept=self._kept)
            if until is not None:
                tx.run(_PRUNE, {"id_": webhook_id, "until": until})

        self._database.write(work)

    def _key(self, lease: Lease) -> dict[str, Any]:
        return {"id_": lease.webhook_id, "fence_": lease.fence, "me": self._me}

    def _move(self, tx: Tx, lease: Lease, values: Mapping[str, Any]) -> bool:
        statement = (
            sa.update(_CURSOR)
            .where(
                _CURSOR.webhook_id == lease.webhook_id,
                _CURSOR.fence == lease.fence,
                _CURSOR.holder == self._me,
                _CURSOR.active,
            )
            .values(**values)
        )
        return tx.run(statement, {}) == 1


def _agenda(tx: Tx, row: Any, after: int) -> Agenda:
    head = tx.rows(_HEAD)[0]
    now = clock.now(tx)
    revision, skip = (row.revision, row.skip) if row.revision >= after else (after, 0)
    wait = max(0, (row.next_attempt_time or 0) - now) / _MICROS
    since = now if row.failing_since_time is None else row.failing_since_time
    again, gone = _once_more(tx, row, head)
    first = revision + 1
    missed = None if first > head.compacted_revision else Missed(first, head.compacted_revision)
    letters: list[Letter] = []
    rows: Sequence[Any] = ()
    if missed is None:
        rows = tx.rows(_LOG_AFTER, namespace=row.namespace, after=revision)
        for record in rows:
            found = _letters(tx, row, record, head.log_id)
            done = skip if record.revision == first else 0
            letters += [letter for letter in found if letter.place >= done]
    more = len(rows) == _PAGE
    scanned = rows[-1].revision if more else head.revision
    return Agenda(
        letters=_with_what_follows(letters, scanned),
        again=again,
        gone=gone,
        scanned=scanned,
        more=more,
        missed=missed,
        attempts=row.attempts,
        wait_seconds=wait,
        failing_seconds=(now - since) / _MICROS,
    )


def _with_what_follows(letters: Sequence[Letter], scanned: int) -> list[Letter]:
    """Say how far the log is done with once each letter is: up to the next one's event."""
    return [
        replace(letter, then=following.revision - 1, then_skip=following.place)
        for letter, following in pairwise(letters)
    ] + [replace(letter, then=scanned) for letter in letters[-1:]]


def _once_more(tx: Tx, row: Any, head: Any) -> tuple[list[Letter], list[str]]:
    """Find what was asked for once more, and what of that can't be."""
    letters: list[Letter] = []
    gone: list[str] = []
    for delivery in tx.rows(_WAITING, id_=row.webhook_id):
        record = tx.row(_LOG_AT, revision=delivery.revision)
        told = [] if record is None else _all_letters(tx, row, record, head.log_id)
        wanted = [letter for letter in told if letter.id == delivery.id]
        letters += wanted
        gone += [] if wanted else [delivery.id]
    return letters, gone


def _letters(tx: Tx, row: Any, record: Any, log_id: str) -> list[Letter]:
    return [
        letter for letter in _all_letters(tx, row, record, log_id) if _wants(row, letter.happening)
    ]


def _all_letters(tx: Tx, row: Any, record: Any, log_id: str) -> list[Letter]:
    """Write a letter for each event of a record, so that each keeps its place."""
    payload = pb.EventPayload.FromString(record.payload)
    own = [r for r in payload.records if r.change.namespace == row.namespace]
    del payload.records[:]
    payload.records.extend(own)
    ids = sorted({r.change.model_id for r in own if r.change.model_id})
    prompts = {found.model_id for found in tx.rows(_PROMPTS, ids=ids)} if ids else set()
    told = happenings.of(payload, prompts=prompts, texts=_texts(tx, own))
    time = messages.timestamp(record.commit_time).ToDatetime(tzinfo=UTC)
    return [
        Letter(
            id=delivery_id(row.webhook_id, log_id, record.revision, place),
            webhook_id=row.webhook_id,
            url=row.url,
            format=row.format,
            secret=row.secret,
            namespace=row.namespace,
            log_id=log_id,
            revision=record.revision,
            place=place,
            time=time,
            happening=happening,
        )
        for place, happening in enumerate(told)
    ]


def made_up(tx: Tx, request: pb.TestWebhookRequest) -> Letter:
    """Write a letter about nothing, for a receiver to be tried with."""
    row = webhooks.found(tx, request.namespace, request.id)
    asked = json.loads(row.events)
    event = request.event or next(
        (event for event in asked if event != webhooks.EVERYTHING), "registered_model.created"
    )
    if event not in happenings.EXAMPLES:
        raise errors.invalid("event", f"there is no event {event!r}")
    return Letter(
        id=str(uuid.uuid4()),
        webhook_id=row.id,
        url=row.url,
        format=row.format,
        secret=row.secret,
        namespace=row.namespace,
        log_id=tx.log_id,
        revision=0,
        place=0,
        time=datetime.now(tz=UTC),
        happening=Happening(event, (), happenings.EXAMPLES[event]),
    )


def no_post(_letter: Letter) -> Outcome:
    """Refuse to carry a letter: this registry is not served, so that nobody sends anything."""
    raise errors.RegistryError(
        "SHUTTING_DOWN", "nothing is sent from here; try again", retry_after_seconds=1.0
    )


def tried(outcome: Outcome) -> pb.TestWebhookResponse:
    """Say how a receiver answered, without what it said."""
    return pb.TestWebhookResponse(
        success=outcome.delivered,
        response_status=outcome.status,
        error=outcome.error,
        message=outcome.message,
    )


def delivery_id(webhook_id: str, log_id: str, revision: int, place: int) -> str:
    """Name the delivery of an event to a webhook, the same at every attempt by whomever."""
    return str(uuid.uuid5(_DELIVERIES, f"{webhook_id}/{log_id}/{revision}/{place}"))


def _wants(row: Any, happening: Happening) -> bool:
    events = json.loads(row.events)
    if happening.event not in events and webhooks.EVERYTHING not in events:
        return False
    models = json.loads(row.models)
    if models:
        return not set(models).isdisjoint(happening.models)
    return any(name.startswith(row.model_prefix) for name in happening.models)


def _texts(tx: Tx, records: Iterable[pb.ChangeRecord]) -> dict[tuple[str, int, str], str]:
    found: dict[tuple[str, int, str], str] = {}
    for record in records:
        change = record.change
        for omitted in change.omitted_texts:
            key = {"model_id": change.model_id, "number": change.version}
            body = tx.scalar(_BODY, **key, sha256=omitted.sha256)
            if body is not None:
                found[change.model_id, change.version, omitted.sha256] = body
    return found


def _note(
    tx: Tx,
    letter: Letter,
    outcome: Outcome,
    *,
    status: int,
    now: int,
    next_time: int | None,
) -> None:
    """Write an attempt into the history, whether it is the first or not."""
    said = {
        "status": status,
        "response_status": outcome.status,
        "error": outcome.error,
        "attempt_time": now,
        "next_attempt_time": next_time,
    }
    statement = dialect_insert(tx.connection.dialect.name)(_DELIVERY).values(
        id=letter.id,
        webhook_id=letter.webhook_id,
        revision=letter.revision,
        place=letter.place,
        event=letter.happening.event,
        attempts=1,
        create_time=now,
        until_revision=0,
        **said,
    )
    again = {**said, "attempts": _DELIVERY.attempts + 1}
    tx.run(statement.on_conflict_do_update(index_elements=["id"], set_=again), {})
