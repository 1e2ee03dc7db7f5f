"""Hints to SQLite's planner, which guesses until somebody runs ANALYZE; PostgreSQL gets none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import SQLCompiler


def unindexed(column: sa.SQLColumnExpression[Any]) -> sa.ColumnElement[Any]:
    """Return a column for a condition that no index of SQLite's is to be chosen for.

    Without it "has this version a metric above 0.1" walked the index of every version's metrics
    with that key: a second for a page of one model in a registry of 300,000 versions.
    """
    return _Unindexed(column)


class _Unindexed(sa.sql.expression.FunctionElement[Any]):
    inherit_cache = True

    def __init__(self, column: sa.SQLColumnExpression[Any]) -> None:
        super().__init__(column)
        self.type = column.label(None).type


@compiles(_Unindexed)
def _as_it_is(element: _Unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    (column,) = (compiler.process(clause, **kw) for clause in element.clauses)
    return str(column)


@compiles(_Unindexed, "sqlite")
def _unindexed_on_sqlite(element: _Unindexed, compiler: SQLCompiler, **kw: Any) -> str:
    (column,) = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"+{column}"
