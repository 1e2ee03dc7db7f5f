"""Metrics of versions: points beside the log, and the latest of each key for filters."""

from __future__ import annotations

import math
import struct
import time
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import names, pb
from stagewire.service import messages
from stagewire.store import lookup, pages, schema
from stagewire.store.transactions import dialect_insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stagewire.store.transactions import Tx


def log(tx: Tx, request: pb.LogMetricsRequest) -> pb.LogMetricsResponse:
    """Add points to a version's metrics, each once."""
    space = names.namespace_or_default(request.namespace)
    owner = lookup.model_to_change(tx, space, request.model)
    row = lookup.version_to_change(tx, owner, request.version)
    return pb.LogMetricsResponse(logged=add(tx, owner.id, row.number, request.metrics))


def add(tx: Tx, model_id: str, number: int, points: Iterable[pb.Metric]) -> int:
    """Insert points of one version and answer how many were new."""
    now = time.time_ns() // 1000
    rows = [_row(model_id, number, point, now) for point in points]
    if not rows:
        return 0
    logged = tx.run(_insert_point(tx.connection.dialect.name), rows)
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        place = (row["key"], row["dataset"])
        if place not in newest or _order(row) > _order(newest[place]):
            newest[place] = row
    latest = [{k: v for k, v in row.items() if k != "value_bits"} for row in newest.values()]
    tx.run(_upsert_latest(tx.connection.dialect.name), latest)
    return logged


def _row(model_id: str, number: int, point: pb.Metric, now: int) -> dict[str, Any]:
    # One NaN, and one zero: their other bit patterns are the same value to everybody.
    value = math.nan if math.isnan(point.value) else point.value + 0.0
    return {
        "model_id": model_id,
        "number": number,
        "key": point.key,
        "dataset": point.dataset,
        "step": point.step,
        "time": messages.micros(point.time) if point.HasField("time") else now,
        "value_bits": struct.unpack(">q", struct.pack(">d", value))[0],
        "value": None if math.isnan(value) else value,
    }


def _order(row: dict[str, Any]) -> tuple[int, int, float]:
    value = row["value"]
    return (row["step"], row["time"], -math.inf if value is None else value)


@cache
def _insert_point(dialect: str) -> sa.Executable:
    insert: sa.Executable = dialect_insert(dialect)(schema.Metric).on_conflict_do_nothing()
    # How many were new is the insert's own count: counting rows would slow with every point.
    return insert.execution_options(preserve_rowcount=True)


@cache
def _upsert_latest(dialect: str) -> sa.Executable:
    statement = dialect_insert(dialect)(schema.LatestMetric)
    old, new = schema.LatestMetric, statement.excluded
    newer = sa.or_(
        new.step > old.step,
        sa.and_(new.step == old.step, new.time > old.time),
        sa.and_(
            new.step == old.step,
            new.time == old.time,
            new.value.is_not(None),
            sa.or_(old.value.is_(None), new.value > old.value),
        ),
    )
    upsert: sa.Executable = statement.on_conflict_do_update(
        index_elements=["model_id", "number", "key", "dataset"],
        set_={"step": new.step, "time": new.time, "value": new.value},
        where=newer,
    )
    return upsert


def latest(
    tx: Tx, keys: Sequence[tuple[str, int]]
) -> defaultdict[tuple[str, int], list[pb.Metric]]:
    """Read the latest point of each key and dataset of versions."""
    found: defaultdict[tuple[str, int], list[pb.Metric]] = defaultdict(list)
    form, wanted = lookup.keys(tx, keys)
    for row in tx.rows(_latest_of(form), **wanted):
        found[row.model_id, row.number].append(messages.metric(row))
    return found


@cache
def _latest_of(form: str) -> sa.Select[Any]:
    latest = schema.LatestMetric
    asked = lookup.asked_for(form, latest).add_columns(latest)
    return asked.order_by(latest.key, latest.dataset)


def list_(tx: Tx, request: pb.ListMetricsRequest) -> pb.ListMetricsResponse:
    """List a version's points, or the latest points of every version of a model."""
    space = lookup.namespace(tx, request.namespace).name
    query = ("ListMetrics", space, request.model, request.version, request.key)
    if request.version:
        owner, version = lookup.numbered(tx, space, request.model, request.version)
        table: Any = schema.Metric
        statement = sa.select(table).where(
            table.model_id == owner.id, table.number == version.number
        )
        order = [table.key, table.dataset, table.step, table.time, table.value_bits]
    else:
        owner = lookup.model(tx, space, request.model)
        table = schema.LatestMetric
        living = sa.and_(
            schema.Version.model_id == table.model_id,
            schema.Version.number == table.number,
            schema.Version.deleted.is_(False),
        )
        statement = sa.select(table).join(schema.Version, living).where(table.model_id == owner.id)
        order = [table.key, table.number, table.dataset]
    if request.key:
        statement = statement.where(table.key == request.key)
    paged = pages.paginate(
        statement,
        [pages.Key(column) for column in order],
        token=request.page_token,
        size=request.page_size,
        query=query,
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListMetricsResponse(
        metrics=[messages.metric(row, number=0 if request.version else row.number) for row in rows],
        next_page_token=token,
    )
