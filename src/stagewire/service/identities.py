"""Imported models and names: an identity is kept, and a number never means two versions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire import errors, names, pb
from stagewire.service import definitions, exports, rows
from stagewire.service.arrivals import differing, differs, missing
from stagewire.store import lookup, schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.service.arrivals import Batch

_THERE = sa.select(schema.Model.id).where(schema.Model.id.in_(sa.bindparam("ids", expanding=True)))
_RANGES = sa.select(schema.NameRange).where(
    schema.NameRange.namespace == sa.bindparam("namespace"),
    schema.NameRange.name == sa.bindparam("name"),
)


def take_in(batch: Batch) -> None:
    """Write the models of a batch. Refuses INVALID_FIELD."""
    present = [
        batch.owners[m.model.id] for _, m in batch.records["model"] if m.model.id in batch.owners
    ]
    found = {m.model.id: m for m in exports.models(batch.tx, present)} if present else {}
    for index, wanted in batch.records["model"]:
        path = f"records[{index}].model"
        if not wanted.model.id:
            raise errors.invalid(f"{path}.model.id", "is required: give the model its identity")
        name = names.canonical_model(wanted.model.name, f"{path}.model.name")
        if name != wanted.model.name:
            raise errors.invalid(f"{path}.model.name", "is not in Unicode NFC; normalise it")
        if wanted.model.id in found:
            _compare_model(batch, index, wanted, found[wanted.model.id])
        elif wanted.model.id in batch.owners:
            raise errors.invalid(f"{path}.model.id", "is imported twice in one call")
        else:
            _add_model(batch, index, wanted)


def _compare_model(batch: Batch, index: int, wanted: pb.ModelRecord, found: pb.ModelRecord) -> None:
    space = names.namespace_or_default(wanted.model.namespace)
    asked = pb.Model()
    asked.CopyFrom(wanted.model)
    asked.namespace = space
    asked.ClearField("revision")
    fields = differing(asked, found.model)
    if wanted.ranges and wanted.ranges != found.ranges:
        fields.append("ranges")
    if wanted.HasField("activity_time") and wanted.activity_time != found.activity_time:
        fields.append("activity_time")
    if fields:
        batch.conflict(index, f"model {asked.name!r}", differs(fields))
        return
    # A model that got versions here since then is still the one that was imported.
    if wanted.next_number > found.next_number:
        batch.raise_next_number(asked.id, wanted.next_number)
        batch.imported += 1
    else:
        batch.unchanged += 1


def _add_model(batch: Batch, index: int, wanted: pb.ModelRecord) -> None:
    tx, model = batch.tx, wanted.model
    space = names.namespace_or_default(model.namespace)
    subject = f"model {model.name!r}"
    if not definitions.exists(tx, space):
        batch.imported += 1
        return
    first = wanted.first_number or 1
    ranges = list(wanted.ranges)
    if not ranges and not model.deleted:
        ranges = [pb.NameRange(name=model.name, first=first)]
    _check_ranges(index, model, ranges)
    taken = _taken(batch, space, model, ranges)
    if taken:
        batch.conflict(index, subject, taken, foreign=model.id)
        return
    values = rows.model(wanted, now=tx.time)
    values.update(rows.times(model, revision=tx.revision, now=tx.time))
    tx.insert(schema.Model, **values)
    tx.insert_many(schema.ModelTag, rows.model_tags(model))
    tx.insert_many(schema.NameRange, [rows.name_range(space, model.id, r) for r in ranges])
    for name in dict.fromkeys(r.name for r in ranges):
        row = tx.rows(lookup.NAME, namespace=space, name=name)[0]
        given = max((r.last + 1 for r in ranges if r.name == name and r.last), default=1)
        bears = not model.deleted and name == model.name
        tx.update(
            schema.Name,
            {"namespace": space, "name": name},
            next_number=max(row.next_number, given),
            model_id=model.id if bears else row.model_id,
        )
    batch.owners[model.id] = SimpleNamespace(**values)
    batch.new_models.add(model.id)
    batch.imported += 1


def _check_ranges(index: int, model: pb.Model, ranges: Sequence[pb.NameRange]) -> None:
    living = not model.deleted
    unended = [r.name for r in ranges if not r.last]
    if unended != ([model.name] if living else []):
        raise errors.invalid(
            f"records[{index}].model.ranges",
            "a living model has one range without end, under its name; a deleted one has none",
        )
    if any(r.last and r.last < r.first for r in ranges):
        raise errors.invalid(f"records[{index}].model.ranges", "a range ends before it begins")


def _taken(batch: Batch, space: str, model: pb.Model, ranges: Sequence[pb.NameRange]) -> str:
    """Say why a model can't have its name or numbers, or nothing."""
    tx = batch.tx
    row = tx.row(lookup.NAME, namespace=space, name=model.name)
    if not model.deleted and row is not None and row.model_id not in (None, model.id):
        return (
            "another model bears this name here; rename or delete that one, or skip this one and "
            "all that belongs to it"
        )
    for name in dict.fromkeys(r.name for r in ranges):
        others = tx.rows(_RANGES, namespace=space, name=name)
        for mine in ranges:
            for other in others if mine.name == name else ():
                if mine.first <= (other.last or mine.first) and other.first <= (
                    mine.last or other.first
                ):
                    return (
                        f"under the name {name!r} version {max(mine.first, other.first)} means "
                        "another model's version here; import into another namespace or registry, "
                        "or skip it"
                    )
    return ""


def take_in_names(batch: Batch) -> None:
    """Write the names of a batch. Refuses MODEL_NOT_FOUND."""
    tx = batch.tx
    for index, wanted in batch.records["name"]:
        bearers = [i for i in (wanted.model_id, wanted.renamed_model_id) if i]
        subject = f"name {wanted.name!r}"
        if batch.foreign.intersection(bearers):
            batch.conflict(index, subject, "its model was skipped")
            continue
        there = {row.id for row in tx.connection.execute(_THERE, {"ids": bearers})}
        if unknown := [i for i in bearers if i not in there]:
            if not batch.lenient:
                raise missing(
                    "MODEL_NOT_FOUND",
                    f"records[{index}].name.model_id",
                    f"there is no model {unknown[0]!r}; import the model first",
                )
            batch.imported += 1
            continue
        row = tx.row(lookup.NAME, namespace=wanted.namespace, name=wanted.name)
        if row is None:
            batch.imported += 1
        elif (row.model_id or "") != wanted.model_id or row.renamed_id not in (
            None,
            wanted.renamed_model_id,
        ):
            batch.conflict(index, subject, differs(["model_id", "renamed_model_id"]))
        elif (row.renamed_id or "") == wanted.renamed_model_id and (
            row.next_number >= wanted.next_number
        ):
            # It came with its model, a moment ago.
            batch.imported += row.model_id in batch.new_models
            batch.unchanged += row.model_id not in batch.new_models
        else:
            tx.update(
                schema.Name,
                {"namespace": wanted.namespace, "name": wanted.name},
                renamed_id=wanted.renamed_model_id or None,
                next_number=max(row.next_number, wanted.next_number),
            )
            batch.imported += 1
