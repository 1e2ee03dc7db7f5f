"""Many rows given to one statement: its text and its plan are the same for any number of them.

PostgreSQL takes an array for each column, SQLite one JSON text; either is read as a table. Rows
hold texts and 64-bit integers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from stagewire.store.transactions import Tx

_ROWS = "given_rows"


class Given:
    """The rows of a statement as something to select from."""

    def __init__(self, dialect: str, columns: Sequence[sa.Column[Any]]) -> None:
        """Take rows with these columns of a table, by their names."""
        self._names = [column.name for column in columns]
        self._postgresql = dialect == "postgresql"
        self.c: Mapping[str, sa.ColumnElement[Any]]
        if self._postgresql:
            arrays = [
                sa.bindparam(_array(column.name), type_=_array_of(column)) for column in columns
            ]
            rows = (
                sa.func.unnest(*arrays)
                .table_valued(*(sa.column(c.name, c.type) for c in columns), name="given")
                .render_derived()
            )
            self.c = {name: rows.c[name] for name in self._names}
        else:
            texts = sa.func.json_each(sa.bindparam(_ROWS, type_=sa.Text)).table_valued(
                sa.column("value", sa.Text), name="given"
            )
            self.c = {
                column.name: sa.type_coerce(
                    sa.func.json_extract(texts.c.value, sa.literal_column(f"'$[{place}]'")),
                    column.type,
                )
                for place, column in enumerate(columns)
            }

    def select(self) -> sa.Select[Any]:
        """Select all given rows."""
        columns = [expression.label(name) for name, expression in self.c.items()]
        # SQLite's parser wants a condition: without one, ON CONFLICT reads as a join's.
        return sa.select(*columns).where(sa.text("1 = 1"))

    def parameters(self, rows: Collection[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what the statement is to be executed with."""
        if self._postgresql:
            return {_array(name): [row[name] for row in rows] for name in self._names}
        table = [[row[name] for name in self._names] for row in rows]
        return {_ROWS: json.dumps(table, ensure_ascii=False)}


class Bulk:
    """A statement about given rows; rows that miss a column of it are refused with KeyError."""

    def __init__(self, statement: sa.Executable, given: Given) -> None:
        """Join what was made of each other."""
        self._statement = statement
        self._given = given

    def run(self, tx: Tx, rows: Collection[Mapping[str, Any]]) -> None:
        """Execute a writing statement."""
        tx.connection.execute(self._statement, self._given.parameters(rows))

    def rows(self, tx: Tx, rows: Collection[Mapping[str, Any]]) -> Sequence[sa.Row[Any]]:
        """Execute a reading one."""
        return tx.connection.execute(self._statement, self._given.parameters(rows)).all()


def _array(name: str) -> str:
    return f"given_{name}"


def _array_of(column: sa.Column[Any]) -> postgresql.ARRAY[Any]:
    return postgresql.ARRAY(sa.Text if column.type.python_type is str else sa.BigInteger)
