"""Rows to messages: one function for each resource, and the marks that stand for "now".

What this transaction changed carries no revision and no time of it: they are known only when the
log's head is taken. `fill` writes them into the answer afterwards; watchers fill them by
themselves from the transaction they came in.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from stagewire import pb
from stagewire.rights import Scope
from stagewire.service import quotas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message

    from stagewire.store.transactions import Tx

_MICROS = 1_000_000
_STAMPED = (
    pb.Namespace,
    pb.Stage,
    pb.Model,
    pb.ModelVersion,
    pb.Webhook,
    pb.Token,
    pb.Grant,
)


@dataclass(slots=True)
class Satellites:
    """What a version has in rows of their own."""

    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    datasets: list[pb.Dataset] = field(default_factory=list)
    parents: list[pb.ParentVersion] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)


def timestamp(micros: int) -> Timestamp:
    """Make a Timestamp of microseconds since 1970."""
    return Timestamp(seconds=micros // _MICROS, nanos=micros % _MICROS * 1000)


def micros(time: Timestamp) -> int:
    """Make microseconds since 1970 of a Timestamp."""
    return time.seconds * _MICROS + time.nanos // 1000


def _stamp(message: Any, row: Any, tx: Tx) -> None:
    """Set revision and times, except those that are this transaction's."""
    if row.create_time != tx.time:
        message.create_time.CopyFrom(timestamp(row.create_time))
    if row.revision != tx.revision:
        message.revision = row.revision
    # By itself: what is imported in this transaction was changed long before.
    if row.update_time != tx.time:
        message.update_time.CopyFrom(timestamp(row.update_time))


def namespace(tx: Tx, row: Any) -> pb.Namespace:
    """Map a namespace."""
    message = pb.Namespace(name=row.name, description=row.description, quota=quotas.of(row))
    _stamp(message, row, tx)
    return message


def stage(tx: Tx, row: Any) -> pb.Stage:
    """Map a stage."""
    message = pb.Stage(
        namespace=row.namespace,
        name=row.name,
        description=row.description,
        position=row.position,
        active=row.active,
        occupancy=row.occupancy,
        displace_to=row.displace_to,
    )
    _stamp(message, row, tx)
    return message


def model(tx: Tx, row: Any, tags: Mapping[str, str]) -> pb.Model:
    """Map a model and its tags."""
    message = pb.Model(
        namespace=row.namespace,
        name=row.name,
        id=row.id,
        description=row.description,
        tags=tags,
        owner=row.owner,
        creator=row.creator,
        deleted=row.deleted,
        purged=row.purged,
    )
    _stamp(message, row, tx)
    return message


def version(
    tx: Tx, row: Any, owner: Any, satellites: Satellites, metrics: Sequence[pb.Metric] = ()
) -> pb.ModelVersion:
    """Map a version with its model's name and what it has in rows of their own."""
    lineage = pb.Lineage(
        run_id=row.run_id,
        run_link=row.run_link,
        experiment=row.experiment,
        git_commit=row.git_commit,
        git_repository=row.git_repository,
        logged_model_id=row.logged_model_id,
        datasets=satellites.datasets,
        parents=satellites.parents,
    )
    message = pb.ModelVersion(
        namespace=row.namespace,
        model=owner.name,
        model_id=row.model_id,
        version=row.number,
        source=row.source,
        status=row.status,
        status_message=row.status_message,
        description=row.description,
        tags=satellites.tags,
        params=satellites.params,
        signature=row.signature,
        flavors=json.loads(row.flavors) if row.flavors else (),
        lineage=lineage if lineage.ByteSize() else None,
        stages=satellites.stages,
        aliases=satellites.aliases,
        metrics=metrics,
        storage_uri=row.storage_uri or row.source,
        content_digest=row.content_digest,
        creator=row.creator,
        deleted=row.deleted,
        purged=row.purged,
    )
    _stamp(message, row, tx)
    if row.mlflow_time != tx.time:
        message.activity_time.CopyFrom(timestamp(row.mlflow_time))
    return message


def metric(row: Any, *, number: int = 0) -> pb.Metric:
    """Map a metric's point; a NULL value is NaN."""
    return pb.Metric(
        key=row.key,
        value=math.nan if row.value is None else row.value,
        step=row.step,
        time=timestamp(row.time),
        dataset=row.dataset,
        version=number,
    )


def tenure(row: Any) -> pb.StageTenure:
    """Map one version's time in one stage."""
    return pb.StageTenure(
        stage=row.stage,
        version=row.number,
        entered_revision=row.entered_revision,
        entered_time=timestamp(row.entered_time),
        entered_by=row.entered_by,
        entered_reason=row.entered_reason,
        cause=row.cause,
        left_revision=row.left_revision or 0,
        left_time=None if row.left_time is None else timestamp(row.left_time),
        left_by=row.left_by,
        left_reason=row.left_reason,
    )


def webhook(tx: Tx, row: Any) -> pb.Webhook:
    """Map a webhook, without its secret and without how far it is."""
    message = pb.Webhook(
        namespace=row.namespace,
        id=row.id,
        name=row.name,
        description=row.description,
        url=row.url,
        events=json.loads(row.events),
        format=row.format,
        status=row.status,
        models=json.loads(row.models),
        model_prefix=row.model_prefix,
        signed=row.secret is not None,
    )
    _stamp(message, row, tx)
    return message


def progress(row: Any, *, head: int, dead_letters: int) -> pb.WebhookProgress:
    """Map a webhook's place in the log, and what stands in its way."""
    return pb.WebhookProgress(
        revision=row.revision,
        lag_revisions=max(0, head - row.revision),
        delivered_revision=row.delivered_revision,
        delivered_time=_maybe(row.delivered_time),
        dead_letters=dead_letters,
        failed_attempts=row.attempts,
        failing_since_time=_maybe(row.failing_since_time),
        next_attempt_time=_maybe(row.next_attempt_time),
        error=row.error,
        missed_revisions=row.missed_revisions,
        last_missed_revision=row.last_missed_revision,
    )


def delivery(row: Any) -> pb.Delivery:
    """Map what became of one event for one webhook."""
    return pb.Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        revision=row.revision,
        index=row.place,
        event=row.event,
        status=row.status,
        attempts=row.attempts,
        response_status=row.response_status,
        error=row.error,
        create_time=timestamp(row.create_time),
        attempt_time=_maybe(row.attempt_time),
        next_attempt_time=_maybe(row.next_attempt_time),
        until_revision=row.until_revision,
    )


def _maybe(time: int | None) -> Timestamp | None:
    return None if time is None else timestamp(time)


def fill(answer: Message, revision: int, commit_time: int) -> None:
    """Write this transaction's revision and time where they were left out of an answer."""
    moment = timestamp(commit_time)
    for descriptor, value in answer.ListFields():
        if descriptor.message_type is None or descriptor.message_type.GetOptions().map_entry:
            continue
        items = [value] if hasattr(value, "ListFields") else value
        for item in items:
            if isinstance(item, _STAMPED):
                fill_resource(item, revision, moment)


def fill_resource(
    item: pb.Namespace | pb.Stage | pb.Model | pb.ModelVersion | pb.Webhook | pb.Token | pb.Grant,
    revision: int,
    moment: Timestamp,
) -> None:
    """Write a transaction's revision and time into one resource that it changed."""
    if not item.HasField("create_time"):
        item.create_time.CopyFrom(moment)
    if isinstance(item, pb.ModelVersion) and not item.HasField("activity_time"):
        item.activity_time.CopyFrom(moment)
    if item.revision == 0:
        item.revision = revision
    if not isinstance(item, pb.Grant) and not item.HasField("update_time"):
        item.update_time.CopyFrom(moment)


def role(value: pb.Role.ValueType) -> str:
    """Give a role's name as scopes are written with it."""
    return pb.Role.Name(value).removeprefix("ROLE_").lower()


def scope(found: Scope) -> pb.Scope:
    """Map a role on a part of the registry."""
    return pb.Scope(
        role=pb.Role.Value(f"ROLE_{found.role.upper()}"),
        namespace=found.namespace,
        model=found.model,
        stage=found.stage,
        alias=found.alias,
    )


def grant(tx: Tx, row: Any) -> pb.Grant:
    """Map a grant."""
    message = pb.Grant(
        id=row.id,
        subject=row.subject,
        scope=pb.Scope(
            role=row.role,
            namespace=row.namespace,
            model=row.model,
            stage=row.stage,
            alias=row.alias,
        ),
        creator=row.creator,
    )
    if row.create_time != tx.time:
        message.create_time.CopyFrom(timestamp(row.create_time))
    if row.revision != tx.revision:
        message.revision = row.revision
    return message


def token(tx: Tx, row: Any, last_use: int | None = None) -> pb.Token:
    """Map a token, without its hash."""
    message = pb.Token(
        id=row.id,
        subject=row.subject,
        description=row.description,
        scopes=[scope(Scope(**found)) for found in json.loads(row.scopes)],
        expire_time=timestamp(row.expire_time),
        creator=row.creator,
        revoked=row.revoked,
        last_use_time=None if last_use is None else timestamp(last_use),
    )
    _stamp(message, row, tx)
    return message


def refusal(row: Any) -> pb.Refusal:
    """Map a refusal."""
    return pb.Refusal(
        id=row.id,
        time=timestamp(row.time),
        count=row.count,
        caller=row.caller,
        peer=row.peer,
        method=row.method,
        reason=row.reason,
        namespace=row.namespace,
        model=row.model,
    )
