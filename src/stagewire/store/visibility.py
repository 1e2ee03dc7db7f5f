"""What a caller may see, as conditions: what is hidden is neither listed, counted nor paged."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire.rights import ALL
from stagewire.store import patterns, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stagewire.rights import Rights, View
    from stagewire.store.transactions import Tx

#: So many beginnings of names are looked at as ranges, which an index answers.
_MOST_RANGES = 16


def models(
    tx: Tx, space: str, name: sa.SQLColumnExpression[Any] | None = None
) -> sa.ColumnElement[bool]:
    """Return the condition that a model of a namespace may be seen, by its name's column."""
    return _named(tx.rights.view(space), schema.Model.name if name is None else name)


def models_of(rights: Rights, spaces: Iterable[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a model is of one of these namespaces and may be seen."""
    alike: defaultdict[View, list[str]] = defaultdict(list)
    for space in spaces:
        alike[rights.view(space)].append(space)
    return sa.or_(
        sa.false(),
        *(
            sa.and_(schema.Model.namespace.in_(found), _named(view, schema.Model.name))
            for view, found in alike.items()
        ),
    )


def _named(view: View, column: Any) -> sa.ColumnElement[bool]:
    if view.whole:
        return sa.true()
    found = _begins_with_any(column, view.prefixes)
    return sa.or_(found, column.in_(view.names)) if view.names else found


def _begins_with_any(column: Any, prefixes: Sequence[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a name begins as one of these."""
    if len(prefixes) <= _MOST_RANGES:
        return sa.or_(sa.false(), *(patterns.begins_with(column, prefix) for prefix in prefixes))
    # A long row of alternatives is slow to build and to judge, and SQLite refuses a thousand.
    by_length: dict[int, list[str]] = {}
    for prefix in prefixes:
        by_length.setdefault(len(prefix), []).append(prefix)
    return sa.or_(*(sa.func.substr(column, 1, n).in_(by_length[n]) for n in sorted(by_length)))


def namespaces(tx: Tx) -> sa.ColumnElement[bool]:
    """Return the condition that a namespace may be seen."""
    if tx.rights.everything:
        return sa.true()
    found = {allowance.namespace for allowance in tx.rights.allowances}
    return sa.true() if ALL in found else schema.Namespace.name.in_(sorted(found))
