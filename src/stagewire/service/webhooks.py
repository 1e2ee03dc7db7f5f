"""Webhooks: where to post events, which, and what became of them. Sending is an edge's work."""

from __future__ import annotations

import json
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, hooks, names, pb
from stagewire.service import happenings, history, limits, messages
from stagewire.store import clock, lookup, pages, schema

if TYPE_CHECKING:
    from stagewire.hooks import HookRules
    from stagewire.store.transactions import Tx

EVERYTHING = "*"
#: As many deliveries are queued by one call.
MOST_REDELIVERED = 1000
_UPDATABLE = frozenset(field.name for field in pb.WebhookUpdate.DESCRIPTOR.fields)

_HOOK = sa.select(schema.Webhook).where(
    schema.Webhook.namespace == sa.bindparam("namespace"),
    schema.Webhook.id == sa.bindparam("id"),
    schema.Webhook.deleted.is_(False),
)
_HOOK_LOCKED = _HOOK.with_for_update()
_CURSORS = sa.select(schema.WebhookCursor).where(
    schema.WebhookCursor.webhook_id.in_(sa.bindparam("ids", expanding=True))
)
_DEAD = (
    sa.select(schema.WebhookDelivery.webhook_id, sa.func.count().label("dead"))
    .where(
        schema.WebhookDelivery.webhook_id.in_(sa.bindparam("ids", expanding=True)),
        schema.WebhookDelivery.status == pb.DELIVERY_STATUS_DEAD,
    )
    .group_by(schema.WebhookDelivery.webhook_id)
)
_RESET = (
    sa.update(schema.WebhookCursor)
    .where(schema.WebhookCursor.webhook_id == sa.bindparam("id_"))
    .values(
        active=sa.bindparam("active_"),
        holder="",
        fence=schema.WebhookCursor.fence + 1,
        lease_end_time=0,
        attempts=0,
        failing_since_time=None,
        next_attempt_time=None,
        error="",
    )
)
_COMPACTED = sa.select(schema.LogHead.compacted_revision)
_DELIVERY = sa.select(schema.WebhookDelivery).where(
    schema.WebhookDelivery.webhook_id == sa.bindparam("webhook_id"),
    schema.WebhookDelivery.id == sa.bindparam("id"),
)
_DEAD_SINCE = (
    sa.select(schema.WebhookDelivery)
    .where(
        schema.WebhookDelivery.webhook_id == sa.bindparam("webhook_id"),
        schema.WebhookDelivery.status == pb.DELIVERY_STATUS_DEAD,
        schema.WebhookDelivery.revision >= sa.bindparam("since"),
    )
    .order_by(schema.WebhookDelivery.revision, schema.WebhookDelivery.place)
    .limit(MOST_REDELIVERED)
)


def check_new(rules: HookRules, request: pb.CreateWebhookRequest) -> None:
    """Refuse a URL that nothing may be posted to; names are looked up, so in no transaction."""
    rules.check_url(request.webhook.url, "webhook.url")


def check_changed(rules: HookRules, request: pb.UpdateWebhookRequest) -> None:
    """Do the same for a URL that is changed."""
    if "url" in request.update_mask.paths:
        rules.check_url(request.update.url, "update.url")


def create(tx: Tx, request: pb.CreateWebhookRequest) -> pb.CreateWebhookResponse:
    """Create a webhook that is told what happens from now on."""
    wanted = request.webhook
    space = lookup.namespace_to_write_in(tx, request.namespace).name
    tx.locked()
    _check_events(wanted.events, "webhook.events")
    _check_models(wanted.models, wanted.model_prefix, "webhook.model_prefix")
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "namespace": space,
        "name": wanted.name,
        "description": wanted.description,
        "url": wanted.url,
        "events": _list(wanted.events),
        "models": _list(names.lookup_model(name) for name in wanted.models),
        "model_prefix": names.lookup_model(wanted.model_prefix),
        "format": wanted.format or pb.WEBHOOK_FORMAT_MLFLOW,
        "status": wanted.status or pb.WEBHOOK_STATUS_ACTIVE,
        "secret": tx.hooks.vault.encrypt(wanted.secret) if wanted.secret else None,
        "deleted": False,
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Webhook, **values)
    tx.insert(
        schema.WebhookCursor,
        webhook_id=values["id"],
        active=values["status"] == pb.WEBHOOK_STATUS_ACTIVE,
        revision=tx.revision,
        skip=0,
        holder="",
        fence=0,
        lease_end_time=0,
        attempts=0,
        failing_since_time=None,
        next_attempt_time=None,
        error="",
        delivered_revision=0,
        delivered_time=None,
        missed_revisions=0,
        last_missed_revision=0,
    )
    state = messages.webhook(tx, SimpleNamespace(**values))
    _record(tx, pb.CHANGE_KIND_WEBHOOK_CREATED, state)
    return pb.CreateWebhookResponse(webhook=state)


def get(tx: Tx, request: pb.GetWebhookRequest) -> pb.GetWebhookResponse:
    """Return one webhook and how far it is."""
    row = found(tx, request.namespace, request.id)
    return pb.GetWebhookResponse(webhook=_with_progress(tx, [row])[0])


def list_(tx: Tx, request: pb.ListWebhooksRequest) -> pb.ListWebhooksResponse:
    """List a namespace's webhooks, the newest first."""
    space = lookup.namespace(tx, request.namespace).name
    paged = pages.paginate(
        sa.select(schema.Webhook).where(
            schema.Webhook.namespace == space, schema.Webhook.deleted.is_(False)
        ),
        [pages.Key(schema.Webhook.create_time, descending=True), pages.Key(schema.Webhook.id)],
        token=request.page_token,
        size=request.page_size,
        query=("ListWebhooks", space),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListWebhooksResponse(webhooks=_with_progress(tx, rows), next_page_token=token)


def update(tx: Tx, request: pb.UpdateWebhookRequest) -> pb.UpdateWebhookResponse:
    """Change a webhook's definition. Its place in the log stays, unless it is told to leave it."""
    paths = limits.mask_paths(request.update_mask, _UPDATABLE)
    row = _to_change(tx, request.namespace, request.id)
    lookup.expect(request.expected_revision, row.revision, f"webhook {row.id!r}")
    wanted = _wanted(tx, request.update, row, paths)
    if all(getattr(row, column) == value for column, value in wanted.items()):
        return pb.UpdateWebhookResponse(webhook=messages.webhook(tx, row))
    values = {**wanted, "revision": tx.revision, "update_time": tx.time}
    tx.update(schema.Webhook, {"id": row.id}, **values)
    after = SimpleNamespace(**{**row._asdict(), **values})
    if after.status != row.status:
        _set_active(tx, row.id, active=after.status == pb.WEBHOOK_STATUS_ACTIVE, how=request.resume)
    state = messages.webhook(tx, after)
    _record(tx, pb.CHANGE_KIND_WEBHOOK_UPDATED, state)
    return pb.UpdateWebhookResponse(webhook=state)


def _wanted(tx: Tx, update_: pb.WebhookUpdate, row: lookup.Row, paths: list[str]) -> dict[str, Any]:
    """Check the new values and give them as columns."""
    wanted: dict[str, Any] = {path: getattr(update_, path) for path in paths}
    if "name" in wanted and not wanted["name"]:
        raise errors.invalid("update.name", "is required: 1 to 63 characters")
    if "events" in wanted:
        _check_events(wanted["events"], "update.events")
        wanted["events"] = _list(wanted["events"])
    if "models" in wanted:
        wanted["models"] = _list(names.lookup_model(name) for name in wanted["models"])
    if "model_prefix" in wanted:
        wanted["model_prefix"] = names.lookup_model(wanted["model_prefix"])
    models = json.loads(wanted.get("models", row.models))
    _check_models(models, wanted.get("model_prefix", row.model_prefix), "update.model_prefix")
    if "format" in wanted:
        wanted["format"] = wanted["format"] or pb.WEBHOOK_FORMAT_MLFLOW
    if "status" in wanted:
        wanted["status"] = wanted["status"] or pb.WEBHOOK_STATUS_ACTIVE
    if "secret" in wanted:
        # Encryption is never the same twice, so a secret that is given counts as a change.
        wanted["secret"] = tx.hooks.vault.encrypt(wanted["secret"]) if wanted["secret"] else None
    return wanted


def _set_active(tx: Tx, id_: str, *, active: bool, how: pb.WebhookResume.ValueType) -> None:
    if active and how == pb.WEBHOOK_RESUME_NOW:
        tx.update(schema.WebhookCursor, {"webhook_id": id_}, revision=tx.revision, skip=0)
    # Whoever delivers for it loses its lease by the fencing number; the next one begins without
    # the pauses of before.
    tx.run(_RESET, {"id_": id_, "active_": active})


def delete(tx: Tx, request: pb.DeleteWebhookRequest) -> pb.DeleteWebhookResponse:
    """Delete a webhook, with its secret and its history."""
    row = _to_change(tx, request.namespace, request.id)
    lookup.expect(request.expected_revision, row.revision, f"webhook {row.id!r}")
    tx.update(
        schema.Webhook,
        {"id": row.id},
        deleted=True,
        secret=None,
        revision=tx.revision,
        update_time=tx.time,
    )
    _erase(tx, row.id)
    _record(tx, pb.CHANGE_KIND_WEBHOOK_DELETED, messages.webhook(tx, row))
    return pb.DeleteWebhookResponse()


def forget(tx: Tx, space: str) -> None:
    """Delete all webhooks of a namespace that is being deleted, and record those that live."""
    for row in tx.rows(sa.select(schema.Webhook).where(schema.Webhook.namespace == space)):
        _erase(tx, row.id)
        if not row.deleted:
            _record(tx, pb.CHANGE_KIND_WEBHOOK_DELETED, messages.webhook(tx, row))
    tx.delete(schema.Webhook, namespace=space)


def _erase(tx: Tx, id_: str) -> None:
    # The place in the log first, as whoever delivers takes them in this order.
    tx.delete(schema.WebhookCursor, webhook_id=id_)
    tx.delete(schema.WebhookDelivery, webhook_id=id_)


def list_deliveries(tx: Tx, request: pb.ListDeliveriesRequest) -> pb.ListDeliveriesResponse:
    """List what became of a webhook's events, the newest event first."""
    row = found(tx, request.namespace, request.id)
    table = schema.WebhookDelivery
    statement = sa.select(table).where(table.webhook_id == row.id)
    statuses = sorted(set(request.statuses))
    if statuses:
        statement = statement.where(table.status.in_(statuses))
    paged = pages.paginate(
        statement,
        [
            pages.Key(table.revision, descending=True),
            pages.Key(table.place, descending=True),
            pages.Key(table.id),
        ],
        token=request.page_token,
        size=request.page_size,
        query=("ListDeliveries", row.id, *statuses),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListDeliveriesResponse(
        deliveries=[messages.delivery(r) for r in rows], next_page_token=token
    )


def redeliver(tx: Tx, request: pb.RedeliverWebhookRequest) -> pb.RedeliverWebhookResponse:
    """Queue deliveries to be made once more. Refuses what the log no longer holds."""
    if bool(request.delivery_id) == bool(request.dead_since_revision):
        raise errors.invalid("delivery_id", "give either this or dead_since_revision")
    row = found(tx, request.namespace, request.id)
    if row.status != pb.WEBHOOK_STATUS_ACTIVE:
        raise errors.precondition(
            "WEBHOOK_DISABLED", row.id, f"webhook {row.name!r} is disabled; make it active first"
        )
    compacted = tx.scalar(_COMPACTED)
    if request.delivery_id:
        rows = tx.rows(_DELIVERY, webhook_id=row.id, id=request.delivery_id)
        if not rows or rows[0].status == pb.DELIVERY_STATUS_MISSED:
            raise errors.not_found(
                "DELIVERY_NOT_FOUND",
                "delivery",
                request.delivery_id,
                f"webhook {row.name!r} has no delivery {request.delivery_id!r}",
            )
        if rows[0].revision <= compacted:
            raise errors.RegistryError(
                "COMPACTED",
                f"the log no longer holds revision {rows[0].revision}, which this delivery tells",
                metadata={"log_id": _log_id(tx), "head": str(_head(tx))},
            )
    else:
        rows = tx.rows(_DEAD_SINCE, webhook_id=row.id, since=request.dead_since_revision)
    now = clock.now(tx)
    queued = [r for r in rows if r.revision > compacted]
    for delivery in queued:
        # One that is being retried has its turn anyway.
        if delivery.status != pb.DELIVERY_STATUS_RETRYING:
            tx.update(
                schema.WebhookDelivery,
                {"id": delivery.id},
                status=pb.DELIVERY_STATUS_QUEUED,
                next_attempt_time=now,
            )
    return pb.RedeliverWebhookResponse(queued=len(queued), compacted=len(rows) - len(queued))


def _log_id(tx: Tx) -> str:
    return str(tx.scalar(sa.select(schema.LogHead.log_id)))


def _head(tx: Tx) -> int:
    return int(tx.scalar(sa.select(schema.LogHead.revision)))


def found(tx: Tx, space: str, id_: str) -> lookup.Row:
    """Read a webhook. Refuses WEBHOOK_NOT_FOUND."""
    return _found(tx.row(_HOOK, namespace=names.namespace_or_default(space), id=id_), id_)


def _to_change(tx: Tx, space: str, id_: str) -> lookup.Row:
    """Read a webhook and lock it, after its namespace."""
    owner = lookup.namespace_to_write_in(tx, space).name
    row = _found(tx.row(_HOOK_LOCKED, namespace=owner, id=id_), id_)
    tx.locked()
    return row


def _found(row: lookup.Row | None, id_: str) -> lookup.Row:
    if row is None:
        raise errors.not_found(
            "WEBHOOK_NOT_FOUND", "webhook", id_, f"Webhook with ID {id_} not found."
        )
    return row


def _with_progress(tx: Tx, rows: Any) -> list[pb.Webhook]:
    ids = [row.id for row in rows]
    cursors = {row.webhook_id: row for row in tx.rows(_CURSORS, ids=ids)}
    dead = {row.webhook_id: row.dead for row in tx.rows(_DEAD, ids=ids)}
    found_ = []
    for row in rows:
        message = messages.webhook(tx, row)
        progress = messages.progress(
            cursors[row.id], head=tx.head, dead_letters=dead.get(row.id, 0)
        )
        message.progress.CopyFrom(progress)
        found_.append(message)
    return found_


def _record(tx: Tx, kind: pb.ChangeKind.ValueType, state: pb.Webhook) -> None:
    shown = pb.Webhook()
    shown.CopyFrom(state)
    shown.url = hooks.origin(state.url)
    history.record_webhook(tx, kind, shown)


def _check_events(events: Any, path: str) -> None:
    if not events:
        raise errors.invalid(path, "is required: name the events to be told of, or '*'")
    for event in events:
        if event != EVERYTHING and event not in happenings.EXAMPLES:
            known = ", ".join(sorted(happenings.EXAMPLES))
            raise errors.invalid(path, f"there is no event {event!r}; there are {known}, and '*'")


def _check_models(models: Any, prefix: str, path: str) -> None:
    if models and prefix:
        raise errors.invalid(path, "give either models or model_prefix, not both")


def _list(texts: Any) -> str:
    return json.dumps(sorted(set(texts)))
