"""Which version speaks for each stage of a model: its primary; for "None" the newest in none."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import names, pb
from stagewire.service import messages, states
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stagewire.store.transactions import Tx

#: What MLflow calls the stage of versions that are in none.
NONE = "None"
NONE_KEY = names.stage_key(NONE)

_HOLDER = schema.StageHolder
_MODELS: sa.BindParameter[Any] = sa.bindparam("models", expanding=True)
_PRIMARIES = (
    sa.select(_HOLDER.model_id, _HOLDER.stage_key, sa.func.max(_HOLDER.number).label("number"))
    .where(_HOLDER.model_id.in_(_MODELS), _HOLDER.left_revision.is_(None))
    .group_by(_HOLDER.model_id, _HOLDER.stage_key)
)
_HELD = sa.exists().where(
    _HOLDER.model_id == schema.Version.model_id,
    _HOLDER.number == schema.Version.number,
    _HOLDER.left_revision.is_(None),
)
# From the newest down, which is where the first one in no stage mostly is.
_NEWEST_IN_NONE = (
    sa.select(schema.Version.number)
    .where(
        schema.Version.model_id == schema.Model.id,
        schema.Version.deleted.is_(False),
        sa.not_(_HELD),
    )
    .order_by(schema.Version.number.desc())
    .limit(1)
    .correlate(schema.Model)
    .scalar_subquery()
)
_IN_NONE = sa.select(schema.Model.id, _NEWEST_IN_NONE.label("number")).where(
    schema.Model.id.in_(_MODELS)
)
_ALIASES = sa.select(
    schema.AliasHolder.model_id, schema.AliasHolder.alias, schema.AliasHolder.number
).where(schema.AliasHolder.model_id.in_(_MODELS), schema.AliasHolder.unset_revision.is_(None))


def latest_versions(tx: Tx, request: pb.GetLatestVersionsRequest) -> pb.GetLatestVersionsResponse:
    """Return the version that speaks for each stage asked for. Refuses STAGE_NOT_FOUND."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model(tx, space, request.model)
    defined = lookup.stages(tx, owner.namespace)
    wanted = {names.stage_key(stage) for stage in request.stages}
    for stage in request.stages:
        if names.stage_key(stage) != NONE_KEY:
            lookup.stage_in(defined, stage)
    found = latest(tx, {owner.id: owner}, defined, wanted)
    return pb.GetLatestVersionsResponse(latest_versions=found[owner.id])


def latest(
    tx: Tx,
    owners: Mapping[str, Any],
    defined: Mapping[str, Any],
    wanted: set[str] | None = None,
) -> dict[str, list[pb.LatestVersion]]:
    """Find for models of one namespace the versions that speak for their stages, by model id."""
    models = list(owners)
    speaking = {(r.model_id, r.stage_key): r.number for r in tx.rows(_PRIMARIES, models=models)}
    for row in tx.rows(_IN_NONE, models=models):
        if row.number is not None:
            speaking[row.id, NONE_KEY] = row.number
    if wanted:
        speaking = {place: n for place, n in speaking.items() if place[1] in wanted}
    found = _versions(tx, owners, {(m, number) for (m, _), number in speaking.items()})
    titles = {NONE_KEY: NONE, **{key: row.name for key, row in defined.items()}}
    return {
        model_id: [
            pb.LatestVersion(stage=title, version=found[model_id, speaking[model_id, key]])
            for key, title in titles.items()
            if (model_id, key) in speaking
        ]
        for model_id in models
    }


def of(tx: Tx, rows: Sequence[Any]) -> list[pb.ModelHoldings]:
    """Read what hangs on models of one namespace, in their order."""
    if not rows:
        return []
    owners = {row.id: row for row in rows}
    aliases: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for alias in tx.rows(_ALIASES, models=list(owners)):
        aliases[alias.model_id][alias.alias] = alias.number
    found = latest(tx, owners, lookup.stages(tx, rows[0].namespace))
    return [
        pb.ModelHoldings(
            aliases=aliases[row.id],
            latest_versions=found[row.id],
            activity_time=messages.timestamp(row.mlflow_time),
        )
        for row in rows
    ]


def _versions(
    tx: Tx, owners: Mapping[str, Any], keys: set[tuple[str, int]]
) -> dict[tuple[str, int], pb.ModelVersion]:
    if not keys:
        return {}
    form, wanted = lookup.keys(tx, sorted(keys))
    rows = tx.rows(_whole(form), **wanted)
    return {(s.model_id, s.version): s for s in states.of(tx, owners, rows)}


@cache
def _whole(form: str) -> sa.Select[Any]:
    return lookup.asked_for(form, schema.Version).add_columns(schema.Version)
