"""Pages by keyset: a page begins after the last row of the one before, wherever that now stands.

No row is given twice, and none is skipped whose sort key stays as it is. A token is bound to
its query; there is no offset anywhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire.errors import invalid
from stagewire.store import schema
from stagewire.store.hints import unindexed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stagewire.errors import RegistryError

DEFAULT_SIZE = 100
MAX_SIZE = 1000
#: More terms than anyone reads; each makes the keyset condition longer.
MAX_TERMS = 4

#: Every key is also selected, under this name and its place, for the token to be read from.
_LABEL = "page_key_"
_DIGEST_BYTES = 12
#: What a page token may hold unpacked; the longest real one has some 1,000 characters of keys.
_MAX_UNPACKED = 16_384
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)
#: How much of a refused text is repeated in the refusal.
_CLIPPED_LENGTH = 60

_Fields = dict[str, sa.SQLColumnExpression[Any]]
#: Names of the contract first, then those of MLflow.
_MODEL_FIELDS: _Fields = {
    "name": schema.Model.name,
    "create_time": schema.Model.create_time,
    "update_time": schema.Model.update_time,
    "creation_timestamp": schema.Model.create_time,
    "last_updated_timestamp": schema.Model.mlflow_time,
    "timestamp": schema.Model.mlflow_time,
}
_MODEL_CHOICE = "name, create_time or update_time, then asc or desc"
_VERSION_FIELDS: _Fields = {
    "name": schema.Model.name,
    "version": schema.Version.number,
    "create_time": schema.Version.create_time,
    "update_time": schema.Version.update_time,
    "activity_time": schema.Version.mlflow_time,
    "version_number": schema.Version.number,
    "creation_timestamp": schema.Version.create_time,
    "last_updated_timestamp": schema.Version.mlflow_time,
}
_VERSION_CHOICE = (
    "name, version, create_time, update_time, activity_time or metrics.KEY, then asc or desc"
)

_QUOTED_KEY = r'`(?:[^`]|``)+`|"(?:[^"]|"")+"'
_TERM = re.compile(
    rf"\s*(?:metrics?\.(?P<key>{_QUOTED_KEY}|[\w./-]+)|(?:attributes?\.)?(?P<field>\w+))"
    r"(?:\s+(?P<direction>asc|desc))?\s*(?:,\s*(?=\S)|$)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Key:
    """One thing that rows are ordered by; the last keys together must be unique to a row.

    `expression` is of a text, integer, boolean or double type; a NULL comes last whatever the
    direction, and `nullable` must be said where there can be any.
    """

    expression: sa.SQLColumnExpression[Any]
    descending: bool = False
    nullable: bool = False

    @property
    def type(self) -> sa.types.TypeEngine[Any]:
        """The type of the expression."""
        return self.expression.label(None).type

    def bound(self, value: object) -> sa.BindParameter[Any]:
        """Return a value of this key as a parameter."""
        return sa.literal(value, self.type)

    def follows(self, value: object) -> sa.ColumnElement[bool]:
        """Return the condition that a row comes after this value by this key alone."""
        if value is None:
            return sa.false()
        bound = self.bound(value)
        after = self.expression < bound if self.descending else self.expression > bound
        return sa.or_(after, self.expression.is_(None)) if self.nullable else after

    def equals(self, value: object) -> sa.ColumnElement[bool]:
        """Return the condition that a row has this value."""
        return self.expression.is_(None) if value is None else self.expression == self.bound(value)

    def reaches(self, value: object) -> sa.ColumnElement[bool]:
        """Return the condition that a row has this value or comes after it."""
        bound = self.bound(value)
        return self.expression <= bound if self.descending else self.expression >= bound

    def accepts(self, value: object) -> bool:
        """Tell whether a value read from a token can be one of this key's."""
        if value is None:
            return self.nullable
        if type(value) is not self.type.python_type:
            return False
        if isinstance(value, str):
            return not _UNSTORABLE.search(value)
        return not math.isnan(value) if isinstance(value, float) else value in _INT64


@dataclass(frozen=True, slots=True)
class Paged:
    """A statement that reads one page, and what tells whether there is another."""

    statement: sa.Select[Any]
    size: int
    query_digest: bytes
    key_count: int

    def split(self, rows: Sequence[sa.Row[Any]]) -> tuple[Sequence[sa.Row[Any]], str]:
        """Return the page's rows and the next page's token, empty after the last page."""
        if len(rows) <= self.size:
            return rows, ""
        page = rows[: self.size]
        last = page[-1]._mapping  # noqa: SLF001  # SQLAlchemy's public name for it
        values = [last[f"{_LABEL}{place}"] for place in range(self.key_count)]
        return page, _token(self.query_digest, values)


def paginate(
    statement: sa.Select[Any],
    keys: Sequence[Key],
    *,
    token: str,
    size: int,
    query: tuple[object, ...],
) -> Paged:
    """Narrow a statement to one page in the order of the keys.

    `size` is the request's page_size (0 means 100), `query` what else must be equal on every
    page: method, namespace, filter, order_by, as texts and numbers. Refuses a token that is
    damaged or of another query with INVALID_PAGE_TOKEN.
    """
    size = min(size, MAX_SIZE) if size > 0 else DEFAULT_SIZE
    query_digest = _digest(repr((query, [key.descending for key in keys])).encode())
    if token:
        statement = statement.where(_after(keys, _values(token, keys, query_digest)))
    columns: list[sa.Label[Any]] = [
        key.expression.label(f"{_LABEL}{place}") for place, key in enumerate(keys)
    ]
    statement = (
        statement.add_columns(*columns)
        .order_by(*(_ordering(column, key) for column, key in zip(columns, keys, strict=True)))
        .limit(size + 1)
    )
    return Paged(statement, size, query_digest, len(keys))


def order_models(order_by: str) -> list[Key]:
    """Return the order that a ListModels request asks for, by name when it asks for none."""
    terms = _terms(order_by.strip() or "name", _MODEL_FIELDS, _MODEL_CHOICE)
    return _with_ids(terms, [schema.Model.id])


def order_versions(order_by: str) -> list[Key]:
    """Return the order that a ListModelVersions request asks for, newest first by default.

    A metric measured on several datasets counts with its largest latest value when descending,
    with its smallest when ascending.
    """
    text = order_by.strip() or "create_time desc"
    terms = _terms(text, _VERSION_FIELDS, _VERSION_CHOICE, metrics=True)
    return _with_ids(terms, [schema.Version.model_id, schema.Version.number])


def _terms(text: str, fields: _Fields, choice: str, *, metrics: bool = False) -> list[Key]:
    terms: list[Key] = []
    seen: set[object] = set()
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise _refused(f'"{_clipped(text[position:])}" can\'t be read; order by {choice}')
        position = match.end()
        descending = (match["direction"] or "").lower() == "desc"
        what: object
        if metrics and match["key"] is not None:
            what = ("metrics", _unquoted(match["key"]))
            terms.append(Key(_metric(what[1], descending=descending), descending, nullable=True))
        else:
            what = fields.get((match["field"] or "").lower())
            if what is None:
                raise _refused(
                    f'"{_clipped(match[0].strip(" ,"))}" orders nothing; order by {choice}'
                )
            terms.append(Key(what, descending))
        if what in seen:
            raise _refused(f'"{_clipped(match[0].strip(" ,"))}" is there twice; remove one')
        seen.add(what)
    if len(terms) > MAX_TERMS:
        raise _refused(f"must have at most {MAX_TERMS} terms, has {len(terms)}; send fewer")
    return terms


def _with_ids(terms: list[Key], ids: Sequence[sa.SQLColumnExpression[Any]]) -> list[Key]:
    # In the last term's direction, so that one index serves the whole order both ways.
    descending = terms[-1].descending
    missing = [column for column in ids if all(key.expression is not column for key in terms)]
    return terms + [Key(column, descending) for column in missing]


def _metric(key: str, *, descending: bool) -> sa.SQLColumnExpression[Any]:
    latest, version = schema.LatestMetric, schema.Version
    best = sa.func.max(latest.value) if descending else sa.func.min(latest.value)
    return (
        sa.select(sa.type_coerce(best, schema.DOUBLE))
        .where(
            latest.model_id == version.model_id,
            latest.number == version.number,
            unindexed(latest.key) == key,
        )
        .correlate(version)
        .scalar_subquery()
    )


def _unquoted(key: str) -> str:
    mark = key[0]
    return key[1:-1].replace(mark * 2, mark) if mark in '`"' else key


def _after(keys: Sequence[Key], values: Sequence[object]) -> sa.ColumnElement[bool]:
    """Return the condition that a row comes after the one with these values."""
    first, rest = keys[0], keys[1:]
    if not rest:
        return first.follows(values[0])
    if len({key.descending for key in keys}) == 1 and not any(key.nullable for key in keys):
        # One comparison of rows is what both databases can answer from an index alone.
        row = sa.tuple_(*(key.expression for key in keys))
        bound = sa.tuple_(*(key.bound(v) for key, v in zip(keys, values, strict=True)))
        return row < bound if first.descending else row > bound
    after = sa.or_(
        first.follows(values[0]), sa.and_(first.equals(values[0]), _after(rest, values[1:]))
    )
    # Implied, and said all the same: the planners take no index range from an OR.
    return after if first.nullable else sa.and_(first.reaches(values[0]), after)


def _ordering(column: sa.Label[Any], key: Key) -> sa.UnaryExpression[Any]:
    ordering = column.desc() if key.descending else column.asc()
    # Only where it says something: PostgreSQL would not read a plain index backwards for it.
    return ordering.nulls_last() if key.nullable else ordering


def _token(query_digest: bytes, values: Sequence[object]) -> str:
    packed = query_digest + zlib.compress(json.dumps(values, ensure_ascii=False).encode())
    return base64.urlsafe_b64encode(_digest(packed) + packed).decode().rstrip("=")


def _values(token: str, keys: Sequence[Key], query_digest: bytes) -> list[object]:
    damaged = invalid(
        "page_token",
        "is damaged; send a next_page_token as it came, or none for the first page",
        reason="INVALID_PAGE_TOKEN",
    )
    try:
        octets = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError):
        raise damaged from None
    checksum, packed = octets[:_DIGEST_BYTES], octets[_DIGEST_BYTES:]
    canonical = base64.urlsafe_b64encode(octets).decode().rstrip("=")
    if canonical != token or checksum != _digest(packed):
        raise damaged
    if packed[:_DIGEST_BYTES] != query_digest:
        raise invalid(
            "page_token",
            "belongs to another query; send the fields of the first page again, or no token",
            reason="INVALID_PAGE_TOKEN",
        )
    # Whole by its checksum, but a checksum can be forged: nothing of it is trusted.
    try:
        unpacked = zlib.decompressobj().decompress(packed[_DIGEST_BYTES:], _MAX_UNPACKED)
        values = json.loads(unpacked.decode())
    except (zlib.error, ValueError, RecursionError):
        raise damaged from None
    if not isinstance(values, list) or len(values) != len(keys):
        raise damaged
    if not all(key.accepts(value) for key, value in zip(keys, values, strict=True)):
        raise damaged
    return values


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()[:_DIGEST_BYTES]


def _refused(description: str) -> RegistryError:
    return invalid("order_by", description, reason="INVALID_ORDER_BY")


def _clipped(text: str) -> str:
    return text if len(text) <= _CLIPPED_LENGTH else f"{text[:_CLIPPED_LENGTH]}…"
