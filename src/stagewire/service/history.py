"""What every change records: the change itself, and what it is found by before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire import pb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.store.transactions import Tx


def keys(
    namespace: str,
    *,
    models: Iterable[str] = (),
    stages: Iterable[str] = (),
    aliases: Iterable[str] = (),
) -> pb.MatchKeys:
    """Build the keys that filters and grants look at."""
    return pb.MatchKeys(namespace=namespace, models=models, stages=stages, aliases=aliases)


def version_keys(state: pb.ModelVersion) -> pb.MatchKeys:
    """Build the keys of a version as it stands."""
    return keys(state.namespace, models=[state.model], stages=state.stages, aliases=state.aliases)


def record_namespace(tx: Tx, kind: pb.ChangeKind.ValueType, state: pb.Namespace) -> None:
    """Record a change of a namespace."""
    found = keys(state.name)
    gone = kind == pb.CHANGE_KIND_NAMESPACE_DELETED
    new = kind == pb.CHANGE_KIND_NAMESPACE_CREATED
    change = pb.Change(
        kind=kind,
        delivery=pb.CHANGE_DELIVERY_FULL,
        namespace=state.name,
        namespace_state=state,
    )
    _record(tx, change, before=None if new else found, after=None if gone else found)


def record_stage(tx: Tx, kind: pb.ChangeKind.ValueType, state: pb.Stage) -> None:
    """Record a change of a stage's definition."""
    found = keys(state.namespace, stages=[state.name])
    gone = kind == pb.CHANGE_KIND_STAGE_DELETED
    new = kind == pb.CHANGE_KIND_STAGE_CREATED
    change = pb.Change(
        kind=kind,
        delivery=pb.CHANGE_DELIVERY_FULL,
        namespace=state.namespace,
        stage=state.name,
        stage_state=state,
    )
    _record(tx, change, before=None if new else found, after=None if gone else found)


def record_model(
    tx: Tx,
    kind: pb.ChangeKind.ValueType,
    state: pb.Model,
    *,
    before: pb.MatchKeys | None,
    after: pb.MatchKeys | None,
    previous: str = "",
) -> None:
    """Record a change of a model itself."""
    change = pb.Change(
        kind=kind,
        delivery=pb.CHANGE_DELIVERY_FULL,
        namespace=state.namespace,
        model=state.name,
        model_id=state.id,
        model_state=state,
        previous_model=previous,
    )
    _record(tx, change, before=before, after=after)


def record_version(
    tx: Tx,
    kind: pb.ChangeKind.ValueType,
    state: pb.ModelVersion,
    *,
    before: pb.MatchKeys | None,
    after: pb.MatchKeys | None,
    entered: Iterable[str] = (),
    left: Iterable[str] = (),
    primaries: Iterable[pb.StagePrimary] = (),
) -> None:
    """Record a change of a version, its stages and aliases included."""
    change = pb.Change(
        kind=kind,
        delivery=pb.CHANGE_DELIVERY_FULL,
        namespace=state.namespace,
        model=state.model,
        model_id=state.model_id,
        version=state.version,
        version_state=state,
        entered_stages=entered,
        left_stages=left,
        primaries=primaries,
    )
    _record(tx, change, before=before, after=after)


def record_webhook(tx: Tx, kind: pb.ChangeKind.ValueType, state: pb.Webhook) -> None:
    """Record a change of a webhook, whose state holds no secret and no path of its URL."""
    found = keys(state.namespace)
    gone = kind == pb.CHANGE_KIND_WEBHOOK_DELETED
    new = kind == pb.CHANGE_KIND_WEBHOOK_CREATED
    change = pb.Change(
        kind=kind,
        delivery=pb.CHANGE_DELIVERY_FULL,
        namespace=state.namespace,
        webhook_id=state.id,
        webhook_state=state,
    )
    _record(tx, change, before=None if new else found, after=None if gone else found)


def record_token(tx: Tx, kind: pb.ChangeKind.ValueType, state: pb.Token) -> None:
    """Record a change of a token, whose state holds neither secret nor hash."""
    found = keys("")
    new = kind == pb.CHANGE_KIND_TOKEN_CREATED
    change = pb.Change(
        kind=kind, delivery=pb.CHANGE_DELIVERY_FULL, access_id=state.id, token_state=state
    )
    _record(tx, change, before=None if new else found, after=found)


def record_grant(tx: Tx, kind: pb.ChangeKind.ValueType, state: pb.Grant) -> None:
    """Record a change of a grant; one on every namespace belongs to none."""
    space = "" if state.scope.namespace == "*" else state.scope.namespace
    found = keys(space)
    gone = kind == pb.CHANGE_KIND_GRANT_DELETED
    change = pb.Change(
        kind=kind,
        delivery=pb.CHANGE_DELIVERY_FULL,
        namespace=space,
        access_id=state.id,
        grant_state=state,
    )
    _record(tx, change, before=found if gone else None, after=None if gone else found)


def name_tags(tx: Tx, *, set_: Iterable[str] = (), deleted: Iterable[str] = ()) -> None:
    """Say which tags the change recorded last set or deleted: its state alone can't tell."""
    tx.records[-1].set_tags.extend(sorted(set_))
    tx.records[-1].deleted_tags.extend(sorted(set(deleted)))


def _record(
    tx: Tx, change: pb.Change, *, before: pb.MatchKeys | None, after: pb.MatchKeys | None
) -> None:
    tx.records.append(pb.ChangeRecord(before=before, after=after, change=change))
