"""Whole versions: a row with its tags, params, lineage, stages and aliases, as a message."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import pb
from stagewire.service import messages, metrics
from stagewire.service.messages import Satellites
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stagewire.store.transactions import Tx


def of(
    tx: Tx, owners: Mapping[str, Any], rows: Sequence[Any], *, with_metrics: bool = False
) -> list[pb.ModelVersion]:
    """Map version rows whole: two statements for any number of them, four with lineage."""
    if not rows:
        return []
    keys = [(row.model_id, row.number) for row in rows]
    found = satellites(tx, keys)
    latest = metrics.latest(tx, keys) if with_metrics else {}
    return [
        messages.version(tx, row, owners[row.model_id], found[key], latest.get(key, ()))
        for row, key in zip(rows, keys, strict=True)
    ]


def satellites(tx: Tx, keys: Sequence[tuple[str, int]]) -> defaultdict[tuple[str, int], Satellites]:
    """Read what versions have in rows of their own."""
    found: defaultdict[tuple[str, int], Satellites] = defaultdict(Satellites)
    lineage: set[str] = set()
    form, wanted = lookup.keys(tx, keys)
    for row in tx.rows(_satellites_statement(form), **wanted):
        satellite = found[row.model_id, row.number]
        if row.kind == "tag":
            satellite.tags[row.key] = row.value
        elif row.kind == "param":
            satellite.params[row.key] = row.value
        elif row.kind == "stage":
            satellite.stages.append(row.value)
        elif row.kind == "alias":
            satellite.aliases.append(row.key)
        else:
            lineage.add(row.kind)
    if "dataset" in lineage:
        for row in tx.rows(_whole(form, schema.VersionDataset), **wanted):
            found[row.model_id, row.number].datasets.append(
                pb.Dataset(name=row.name, digest=row.digest, use=row.use, source=row.source)
            )
    if "parent" in lineage:
        for row in tx.rows(_whole(form, schema.VersionParent), **wanted):
            found[row.model_id, row.number].parents.append(
                pb.ParentVersion(
                    model=row.parent_model,
                    version=row.parent_number,
                    derivation=row.derivation,
                    model_id=row.parent_id,
                )
            )
    return found


@cache
def _whole(form: str, table: Any) -> sa.Select[Any]:
    return lookup.asked_for(form, table).add_columns(table).order_by(table.position)


@cache
def _satellites_statement(form: str) -> sa.CompoundSelect[Any]:
    """One statement for tags, params, stages and aliases, and for whether there is lineage."""
    empty = sa.literal("", schema.TEXT)

    def part(kind: str, table: Any, key: Any, value: Any, position: Any = None) -> sa.Select[Any]:
        return lookup.asked_for(form, table).add_columns(
            sa.literal(kind, schema.TEXT).label("kind"),
            table.model_id.label("model_id"),
            table.number.label("number"),
            key.label("key"),
            value.label("value"),
            (sa.literal(0) if position is None else position).label("position"),
        )

    tag, param = schema.VersionTag, schema.VersionParam
    holder, alias, stage = schema.StageHolder, schema.AliasHolder, schema.Stage
    stages = (
        part("stage", holder, holder.stage_key, stage.name, stage.position)
        .join(schema.Model, schema.Model.id == holder.model_id)
        .join(
            stage,
            sa.and_(stage.namespace == schema.Model.namespace, stage.key == holder.stage_key),
        )
        .where(holder.left_revision.is_(None))
    )
    union = sa.union_all(
        part("tag", tag, tag.key, tag.value),
        part("param", param, param.key, param.value),
        stages,
        part("alias", alias, alias.alias, empty).where(alias.unset_revision.is_(None)),
        part("dataset", schema.VersionDataset, empty, empty),
        part("parent", schema.VersionParent, empty, empty),
    )
    return union.order_by("kind", "position", "key")


def reload(tx: Tx, owner: Any, number: int) -> pb.ModelVersion:
    """Read one version again, after it was changed."""
    row = tx.rows(lookup.VERSION, model_id=owner.id, number=number)
    return of(tx, {owner.id: owner}, row)[0]
