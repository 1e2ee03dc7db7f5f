"""What a caller may see, as conditions: what is hidden is neither listed, counted nor paged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire.rights import ALL
from stagewire.store import patterns, schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx


def models(
    tx: Tx, space: str, name: sa.SQLColumnExpression[Any] | None = None
) -> sa.ColumnElement[bool]:
    """Return the condition that a model of a namespace may be seen, by its name's column."""
    view = tx.rights.view(space)
    if view.whole:
        return sa.true()
    column: Any = schema.Model.name if name is None else name
    found = [patterns.begins_with(column, prefix) for prefix in view.prefixes]
    if view.names:
        found.append(column.in_(view.names))
    return sa.or_(sa.false(), *found)


def namespaces(tx: Tx) -> sa.ColumnElement[bool]:
    """Return the condition that a namespace may be seen."""
    if tx.rights.everything:
        return sa.true()
    found = {allowance.namespace for allowance in tx.rights.allowances}
    return sa.true() if ALL in found else schema.Namespace.name.in_(sorted(found))
