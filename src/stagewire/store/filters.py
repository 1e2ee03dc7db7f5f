"""Filters: text of the contract's grammar (`filters.lark`) in, a bound SQL condition out.

Every leaf is TRUE or FALSE, never NULL, so NOT and `!=` mean what they say. `!=`, NOT IN and NOT
LIKE are the opposites of `=`, IN and LIKE, and so true where the tag, param, stage or alias is
absent: "stage != 'Production'" must not find a version that is in Production and in Shadow, and
MLflow's clients append "tag.`mlflow.prompt.is_prompt` != 'true'" to mean everything without that
tag. Only a metric that was not measured, or is NaN, satisfies no comparison at all, as the
contract says; NOT and IS NULL find it.

What has no value is IS NULL, texts that are empty included; "stage = 'None'" says the same of
stages. A quote inside a text or key is doubled; a backslash there stands for itself, so that it
is free to escape `%` and `_` in a LIKE pattern. Whole numbers compared with times are MLflow's
milliseconds, and each means all of that millisecond.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import names, pb
from stagewire.store import patterns, schema
from stagewire.store.filter_trees import (
    All,
    AnyOf,
    Comparison,
    Not,
    clipped,
    parse,
    refused,
    unquoted,
)
from stagewire.store.hints import unindexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.errors import RegistryError
    from stagewire.store.filter_trees import Node, Operand, Operator

_INT64 = range(-(2**63), 2**63)
#: What MLflow calls the stage of a version that is in none, as `names.stage_key` folds it.
_NO_STAGE = "none"
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_STATUS_PREFIX = "MODEL_VERSION_STATUS_"
_STATUSES = {
    name.removeprefix(_STATUS_PREFIX): number
    for name, number in pb.ModelVersionStatus.items()
    if number != pb.MODEL_VERSION_STATUS_UNSPECIFIED
}


def models(text: str) -> sa.ColumnElement[bool]:
    """Return the condition on `schema.Model` that a ListModels filter states.

    A stage or an alias is one that any living version has. Refuses with INVALID_FILTER, saying
    where and what was expected.
    """
    return _condition(text, _model_field)


def versions(text: str) -> sa.ColumnElement[bool]:
    """Return the condition on `schema.Version`, joined to its `schema.Model`, that a filter states.

    A metric is the latest point of any dataset it was measured on. Refuses as `models` does.
    """
    return _condition(text, _version_field)


def _condition(text: str, field_of: Callable[[str, int], _Field]) -> sa.ColumnElement[bool]:
    if not text.strip():
        return sa.true()
    return _compiled(parse(text), field_of)


def _compiled(node: Node, field_of: Callable[[str, int], _Field]) -> sa.ColumnElement[bool]:
    match node:
        case Not(inner):
            return sa.not_(_compiled(inner, field_of))
        case All(parts):
            return sa.and_(*(_compiled(part, field_of) for part in parts))
        case AnyOf(parts):
            return sa.or_(*(_compiled(part, field_of) for part in parts))
        case Comparison():
            return field_of(node.field, node.position).condition(node)


def _as_text(value: str | float) -> _Span | None:
    return (value, value) if isinstance(value, str) else None


def _as_name(value: str | float) -> _Span | None:
    return _as_text(names.lookup_model(value)) if isinstance(value, str) else None


def _as_stage(value: str | float) -> _Span | None:
    return _as_text(names.stage_key(value)) if isinstance(value, str) else None


def _as_status(value: str | float) -> _Span | None:
    if not isinstance(value, str):
        return None
    number = _STATUSES.get(value.upper().removeprefix(_STATUS_PREFIX))
    return None if number is None else (number, number)


def _as_whole(value: str | float) -> _Span | None:
    if isinstance(value, float) and value.is_integer() and int(value) in _INT64:
        value = int(value)
    return None if isinstance(value, str) else (value, value)


def _as_real(value: str | float) -> _Span | None:
    return None if isinstance(value, str) else (float(value), float(value))


def _as_time(value: str | float) -> _Span | None:
    """Return the first and last microsecond that a time names."""
    if isinstance(value, int):
        first = min(max(value * 1000, _INT64.start), _INT64.stop - 1000)
        return first, first + 999
    if isinstance(value, float) or not _RFC_3339.fullmatch(value.upper()):
        return None
    try:
        since = dt.datetime.fromisoformat(value.upper()) - _EPOCH
    except (ValueError, OverflowError):
        return None
    microseconds = since // dt.timedelta(microseconds=1)
    return microseconds, microseconds


_Value = str | int | float
#: Smallest and largest value that an operand names; they differ for milliseconds only.
_Span = tuple[_Value, _Value]

#: From a condition on a row beside the model or version to the condition that it has such a row.
_Some = Callable[[sa.ColumnElement[bool]], sa.ColumnElement[bool]]

_ORDERED: frozenset[Operator] = frozenset({"=", "<", "<=", ">", ">=", "IN", "BETWEEN", "IS"})
_NAMED: frozenset[Operator] = frozenset({"=", "IN", "IS"})
_LIKE: frozenset[Operator] = frozenset({"LIKE", "ILIKE"})


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the values of a field are written and compared."""

    expected: str
    read: Callable[[str | float], _Span | None]
    operators: frozenset[Operator]


_TEXT = _Kind("a text in quotes", _as_text, _ORDERED | _LIKE)
_NAME = _Kind("a name in quotes", _as_name, _ORDERED | _LIKE)
_STAGE = _Kind("a stage's name in quotes", _as_stage, _NAMED | _LIKE)
_ALIAS = _Kind("an alias in quotes", _as_text, _NAMED | _LIKE)
_STATUS = _Kind(f"one of {', '.join(repr(name) for name in _STATUSES)}", _as_status, _NAMED)
_WHOLE = _Kind("a number", _as_whole, _ORDERED)
_REAL = _Kind("a number", _as_real, _ORDERED)
_TIME = _Kind(
    "a time such as '2026-01-31T12:00:00Z', or whole milliseconds since 1970",
    _as_time,
    _ORDERED - {"IN"},
)


@dataclass(frozen=True, slots=True)
class _Field:
    """What a filter's word stands for: a column of its own, or of any of several rows beside it."""

    kind: _Kind
    column: sa.SQLColumnExpression[Any]
    some: _Some | None = None
    #: Whether `!=` asks for a value that differs rather than for no value that is equal.
    measured: bool = False

    def condition(self, comparison: Comparison) -> sa.ColumnElement[bool]:
        operator = comparison.operator
        if operator not in self.kind.operators:
            usable = ", ".join(sorted(self.kind.operators))
            raise refused(
                f'"{clipped(comparison.field)}" can\'t be compared by {operator}; use one of'
                f" {usable}",
                comparison.position,
            )
        if operator == "IS":
            condition = self._absent()
        elif self.kind is _STAGE and operator not in _LIKE:
            condition = self._held(comparison)
        elif self.measured and comparison.negated:
            return self._any(sa.not_(self._predicate(comparison)))
        else:
            condition = self._any(self._predicate(comparison))
        return sa.not_(condition) if comparison.negated else condition

    def _any(self, predicate: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        return predicate if self.some is None else self.some(predicate)

    def _absent(self) -> sa.ColumnElement[bool]:
        if self.some is not None:
            return sa.not_(self.some(self.column.is_not(None)))
        return self.column == "" if self.kind is _TEXT else sa.false()

    def _held(self, comparison: Comparison) -> sa.ColumnElement[bool]:
        keys = {str(self._span(operand)[0]) for operand in comparison.operands}
        held = self._any(self.column.in_(sorted(keys - {_NO_STAGE})))
        return sa.or_(held, self._absent()) if _NO_STAGE in keys else held

    def _predicate(self, comparison: Comparison) -> sa.ColumnElement[bool]:
        if comparison.operator in _LIKE:
            return self._like(comparison)
        spans = [self._span(operand) for operand in comparison.operands]
        low, high = self._bound(spans[0][0]), self._bound(spans[-1][1])
        match comparison.operator:
            case "<":
                return self.column < low
            case "<=":
                return self.column <= high
            case ">":
                return self.column > high
            case ">=":
                return self.column >= low
            case "BETWEEN":
                return sa.and_(self.column >= low, self.column <= high)
            case _:
                return self._in(spans)

    def _in(self, spans: Sequence[_Span]) -> sa.ColumnElement[bool]:
        first, last = spans[0]
        if first != last:
            return self.column.between(self._bound(first), self._bound(last))
        # No whole number equals a fraction, nor one beyond 64 bits.
        values = [value for value, _ in spans if self.kind is not _WHOLE or type(value) is int]
        return self.column == values[0] if len(values) == 1 else self.column.in_(values)

    def _like(self, comparison: Comparison) -> sa.ColumnElement[bool]:
        operand = comparison.operands[0]
        pattern = str(self._span(operand)[0])
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise refused(
                "the pattern ends in a backslash that escapes nothing; double it",
                operand.position,
            )
        if comparison.operator == "LIKE" or self.kind is _STAGE:
            return patterns.like(self.column, pattern)
        return patterns.ilike(self.column, pattern)

    def _span(self, operand: Operand) -> _Span:
        span = self.kind.read(operand.value)
        if span is None:
            found = (
                f"'{clipped(operand.value)}'" if isinstance(operand.value, str) else operand.value
            )
            raise refused(f"expected {self.kind.expected}, found {found}", operand.position)
        return span

    def _bound(self, value: _Value) -> sa.BindParameter[Any]:
        # Typed by the value where the column is whole: PostgreSQL would round a fraction that is
        # sent as a bigint, and then 2.5 would not be between 2 and 3.
        fraction = self.kind is _WHOLE and isinstance(value, float)
        return sa.literal(value, schema.DOUBLE if fraction else self.column.label(None).type)


_PRESENT = sa.select(schema.StageHolder.model_id, schema.StageHolder.number).where(
    schema.StageHolder.left_revision.is_(None)
)
_ALIASED = sa.select(schema.AliasHolder.model_id, schema.AliasHolder.number).where(
    schema.AliasHolder.unset_revision.is_(None)
)


# Holders are few and labels are many. So the versions that hold a stage are looked up and the
# rest is never read, where SQLite would ask every version for its stages; but labels are asked
# for version by version, or a page would first read every label of that key there is.


def _version_holding(holders: sa.Select[str, int]) -> _Some:
    version = sa.tuple_(schema.Version.model_id, schema.Version.number)
    return lambda predicate: version.in_(holders.where(predicate))


def _model_holding(holders: sa.Select[str, int]) -> _Some:
    models = holders.with_only_columns(holders.selected_columns.model_id)
    return lambda predicate: schema.Model.id.in_(models.where(predicate))


def _labelled(of: type[schema.Model | schema.Version], *mine: sa.ColumnElement[bool]) -> _Some:
    return lambda predicate: sa.exists().where(*mine, predicate).correlate(of)


_MODEL_FIELDS = {
    "name": _Field(_NAME, schema.Model.name),
    "owner": _Field(_TEXT, schema.Model.owner),
    "creator": _Field(_TEXT, schema.Model.creator),
    "description": _Field(_TEXT, schema.Model.description),
    "create_time": _Field(_TIME, schema.Model.create_time),
    "update_time": _Field(_TIME, schema.Model.update_time),
    "stage": _Field(_STAGE, schema.StageHolder.stage_key, _model_holding(_PRESENT)),
    "alias": _Field(_ALIAS, schema.AliasHolder.alias, _model_holding(_ALIASED)),
}
_VERSION_FIELDS = {
    "name": _Field(_NAME, schema.Model.name),
    "version": _Field(_WHOLE, schema.Version.number),
    "stage": _Field(_STAGE, schema.StageHolder.stage_key, _version_holding(_PRESENT)),
    "alias": _Field(_ALIAS, schema.AliasHolder.alias, _version_holding(_ALIASED)),
    "status": _Field(_STATUS, schema.Version.status),
    "creator": _Field(_TEXT, schema.Version.creator),
    "description": _Field(_TEXT, schema.Version.description),
    "source": _Field(_TEXT, schema.Version.source),
    "run_id": _Field(_TEXT, schema.Version.run_id),
    "experiment": _Field(_TEXT, schema.Version.experiment),
    "git_commit": _Field(_TEXT, schema.Version.git_commit),
    "create_time": _Field(_TIME, schema.Version.create_time),
    "update_time": _Field(_TIME, schema.Version.update_time),
    "activity_time": _Field(_TIME, schema.Version.mlflow_time),
}
#: MLflow's words, and what people say.
_MODEL_SYNONYMS = {
    "creation_timestamp": _MODEL_FIELDS["create_time"],
    "last_updated_timestamp": _Field(_TIME, schema.Model.mlflow_time),
    "stages": _MODEL_FIELDS["stage"],
    "aliases": _MODEL_FIELDS["alias"],
}
_VERSION_SYNONYMS = {
    "version_number": _VERSION_FIELDS["version"],
    "source_path": _VERSION_FIELDS["source"],
    "creation_timestamp": _VERSION_FIELDS["create_time"],
    "last_updated_timestamp": _VERSION_FIELDS["activity_time"],
    "stages": _VERSION_FIELDS["stage"],
    "current_stage": _VERSION_FIELDS["stage"],
    "aliases": _VERSION_FIELDS["alias"],
}
_KEYED = {"tag": "tags", "param": "params", "metric": "metrics"}


def _model_field(word: str, position: int) -> _Field:
    group, key = _parts(word)
    if group == "tags" and key:
        table = schema.ModelTag
        mine = _labelled(schema.Model, table.model_id == schema.Model.id, table.key == key)
        return _Field(_TEXT, table.value, mine)
    field = None if group else _MODEL_FIELDS.get(key) or _MODEL_SYNONYMS.get(key)
    if field is None:
        raise _unknown(word, position, [*_MODEL_FIELDS, "tags.KEY"], "models")
    return field


def _version_field(word: str, position: int) -> _Field:
    group, key = _parts(word)
    if group == _ANY_VERSION and key:
        # Deleted ones included: what shows a model to be no model stays with it.
        tag = schema.VersionTag
        any_of = _labelled(schema.Version, tag.model_id == schema.Version.model_id, tag.key == key)
        return _Field(_TEXT, tag.value, any_of)
    if group in _VERSION_TABLES and key:
        table = _VERSION_TABLES[group]
        measured = table is schema.LatestMetric
        mine = _labelled(
            schema.Version,
            table.model_id == schema.Version.model_id,
            table.number == schema.Version.number,
            (unindexed(table.key) if measured else table.key) == key,
        )
        return _Field(_REAL if measured else _TEXT, table.value, mine, measured=measured)
    field = None if group else _VERSION_FIELDS.get(key) or _VERSION_SYNONYMS.get(key)
    if field is None:
        keyed = [f"{name}.KEY" for name in (*_VERSION_TABLES, _ANY_VERSION)]
        raise _unknown(word, position, [*_VERSION_FIELDS, *keyed], "versions")
    return field


#: Tags of any version of the same model.
_ANY_VERSION = "any_version_tags"
_VERSION_TABLES: dict[str, type[schema.VersionTag | schema.VersionParam | schema.LatestMetric]] = {
    "tags": schema.VersionTag,
    "params": schema.VersionParam,
    "metrics": schema.LatestMetric,
}


def _parts(word: str) -> tuple[str, str]:
    """Return the group that a key belongs to, if any, and the key or the field's name."""
    group, dot, key = word.partition(".")
    if not dot:
        return "", unquoted(word).lower()
    group = group.lower()
    if group in {"attribute", "attributes"}:
        return "", unquoted(key).lower()
    return _KEYED.get(group, group), unquoted(key)


def _unknown(word: str, position: int, choice: Sequence[str], of: str) -> RegistryError:
    near = difflib.get_close_matches(word.lower(), [*choice], n=1)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    return refused(
        f'{of} have no field "{clipped(word)}"{hint} Fields are {", ".join(choice)}', position
    )
