"""What a caller may see, as conditions: what is hidden is neither listed, counted nor paged."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire.rights import ALL
from stagewire.store import patterns, schema

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stagewire.rights import Rights, View
    from stagewire.store.transactions import Tx


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
    found = [patterns.begins_with(column, prefix) for prefix in view.prefixes]
    if view.names:
        found.append(column.in_(sorted(view.names)))
    return sa.or_(sa.false(), *found)


def namespaces(tx: Tx) -> sa.ColumnElement[bool]:
    """Return the condition that a namespace may be seen."""
    if tx.rights.everything:
        return sa.true()
    found = {allowance.namespace for allowance in tx.rights.allowances}
    return sa.true() if ALL in found else schema.Namespace.name.in_(sorted(found))
