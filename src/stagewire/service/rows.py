"""Records to rows: one function for each table that a record fills, but for whose its time is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from stagewire import names, pb
from stagewire.service import messages, versions
from stagewire.service.messages import Satellites

if TYPE_CHECKING:
    from collections.abc import Callable


def micros_or(message: Any, name: str, default: int | None) -> Any:
    """Read a time of a record that need not say it."""
    return messages.micros(getattr(message, name)) if message.HasField(name) else default


def times(message: Any, *, revision: int, now: int) -> dict[str, int]:
    """Give when something was made and changed."""
    return {
        "revision": revision,
        "create_time": micros_or(message, "create_time", now),
        "update_time": micros_or(message, "update_time", now),
    }


def stage(wanted: pb.Stage) -> dict[str, Any]:
    """Give a stage's definition."""
    return {
        "name": wanted.name,
        "description": wanted.description,
        "position": wanted.position,
        "active": wanted.active,
        "occupancy": wanted.occupancy or pb.STAGE_OCCUPANCY_SHARED,
        "displace_to": wanted.displace_to,
    }


def model(wanted: pb.ModelRecord, *, now: int) -> dict[str, Any]:
    """Give a model, without its revision and times."""
    first = wanted.first_number or 1
    return {
        "id": wanted.model.id,
        "namespace": names.namespace_or_default(wanted.model.namespace),
        "name": wanted.model.name,
        "description": wanted.model.description,
        "owner": wanted.model.owner,
        "creator": wanted.model.creator,
        "first_number": first,
        "next_number": max(wanted.next_number, first),
        "deleted": wanted.model.deleted,
        "purged": wanted.model.purged,
        "mlflow_time": micros_or(
            wanted, "activity_time", micros_or(wanted.model, "update_time", now)
        ),
    }


def model_tags(wanted: pb.Model) -> list[dict[str, Any]]:
    """Give a model's tags."""
    return [{"model_id": wanted.id, "key": k, "value": v} for k, v in wanted.tags.items()]


def name_range(space: str, model_id: str, wanted: pb.NameRange) -> dict[str, Any]:
    """Give numbers under a name."""
    return {
        "namespace": space,
        "name": wanted.name,
        "first": wanted.first,
        "last": wanted.last or None,
        "model_id": model_id,
    }


def version(wanted: pb.ModelVersion, space: str, *, now: int) -> dict[str, Any]:
    """Give a version, without its revision and times and what has rows of its own."""
    lineage = wanted.lineage
    return {
        "model_id": wanted.model_id,
        "number": wanted.version,
        "namespace": space,
        "source": wanted.source,
        "status": wanted.status or pb.MODEL_VERSION_STATUS_READY,
        "status_message": wanted.status_message,
        "description": wanted.description,
        "signature": wanted.signature,
        "flavors": json.dumps(list(wanted.flavors)) if wanted.flavors else "",
        "run_id": lineage.run_id,
        "run_link": lineage.run_link,
        "experiment": lineage.experiment,
        "git_commit": lineage.git_commit,
        "git_repository": lineage.git_repository,
        "logged_model_id": lineage.logged_model_id,
        "storage_uri": "" if wanted.storage_uri == wanted.source else wanted.storage_uri,
        "content_digest": wanted.content_digest
        or versions.content_digest(wanted, list(lineage.parents)),
        "creator": wanted.creator,
        "deleted": wanted.deleted,
        "purged": wanted.purged,
        "mlflow_time": micros_or(wanted, "activity_time", micros_or(wanted, "update_time", now)),
    }


def satellites(wanted: pb.ModelVersion) -> Satellites:
    """Give what a version has in rows of their own."""
    return Satellites(
        tags=dict(wanted.tags),
        params=dict(wanted.params),
        datasets=list(wanted.lineage.datasets),
        parents=list(wanted.lineage.parents),
    )


def stage_move(wanted: pb.StageMoveRecord, at: Callable[[int], int]) -> dict[str, Any]:
    """Give a change of what a stage held; `at` turns a step into a revision."""
    return {
        "model_id": wanted.model_id,
        "stage_key": names.stage_key(wanted.stage),
        "revision": at(wanted.step),
        "undo": at(wanted.undo_step) if wanted.undo_step else None,
    }


def stage_tenure(
    wanted: pb.StageTenureRecord, at: Callable[[int], int], *, now: int
) -> dict[str, Any]:
    """Give a version's time in a stage."""
    ended = bool(wanted.left_step)
    return {
        "model_id": wanted.model_id,
        "stage_key": names.stage_key(wanted.stage),
        "number": wanted.version,
        "entered_revision": at(wanted.entered_step),
        "stage": wanted.stage,
        "cause": wanted.cause or pb.STAGE_ENTRY_CAUSE_TRANSITION,
        "displaced_from": wanted.displaced_from,
        "entered_time": micros_or(wanted, "entered_time", now),
        "entered_by": wanted.entered_by,
        "entered_reason": wanted.entered_reason,
        "left_revision": at(wanted.left_step) if ended else None,
        "left_time": micros_or(wanted, "left_time", now) if ended else None,
        "left_by": wanted.left_by,
        "left_reason": wanted.left_reason,
    }


def alias_tenure(
    wanted: pb.AliasTenureRecord, at: Callable[[int], int], *, now: int
) -> dict[str, Any]:
    """Give a version's time under an alias."""
    ended = bool(wanted.unset_step)
    return {
        "model_id": wanted.model_id,
        "alias": wanted.alias,
        "set_revision": at(wanted.set_step),
        "number": wanted.version,
        "set_time": micros_or(wanted, "set_time", now),
        "set_by": wanted.set_by,
        "unset_revision": at(wanted.unset_step) if ended else None,
        "unset_time": micros_or(wanted, "unset_time", now) if ended else None,
        "unset_by": wanted.unset_by,
    }


def name(wanted: pb.NameRecord) -> dict[str, Any]:
    """Give a name."""
    return {
        "namespace": wanted.namespace,
        "name": wanted.name,
        "model_id": wanted.model_id or None,
        "renamed_id": wanted.renamed_model_id or None,
        "next_number": wanted.next_number,
    }
