"""Statements rendered once, and from then on handed to the driver as they are.

At each execution SQLAlchemy asks its cache, builds a context and wraps the result anew: some
20 us around the 5 that SQLite takes for a point read, and as much again for a list. A statement
that is a constant of its module needs that once. What must be rendered each time, such as `IN`
with a list, stays with SQLAlchemy, and so does what is made for one use.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.sql.compiler import SQLCompiler

    Values = Mapping[str, Any]
    _Reader = Callable[[Any], Any]


class Prepared:
    """One statement in one database's words."""

    def __init__(self, statement: Any, dialect: sa.Dialect, names: Sequence[str]) -> None:
        """Render `statement` for values of these names. Raises ValueError when that won't do."""
        keys = list(names) if statement.is_dml else None
        compiled = cast("SQLCompiler", statement.compile(dialect=dialect, column_keys=keys))
        self.text = str(compiled)
        made_later = "[POSTCOMPILE_" in self.text or " RETURNING " in self.text
        if made_later or compiled.insert_prefetch or compiled.update_prefetch:
            raise ValueError(self.text)
        self._dialect = dialect
        self._error: type[Exception] = dialect.loaded_dbapi.Error
        self._order = compiled.positiontup
        self._fixed = {name: v for name, v in compiled.params.items() if v is not None}
        self._binders = {
            name: binder
            for name, bind in compiled.binds.items()
            if (binder := bind.type.dialect_impl(dialect).bind_processor(dialect))
        }
        columns = () if statement.is_dml else tuple(statement.selected_columns)
        self._made = _row_of([column.name for column in columns])
        self._types = [column.type.dialect_impl(dialect) for column in columns]
        self._readers: list[tuple[int, _Reader]] | None = None

    def rows(self, connection: sa.Connection, values: Values) -> list[Any]:
        """Execute it and give every row, with its columns as attributes."""
        parameters = self._parameters(values)
        try:
            cursor = connection.connection.cursor()
            cursor.execute(self.text, parameters)
            found = cursor.fetchall()
            if self._readers is None:
                self._readers = self._readers_of(cursor.description)
            cursor.close()
        except self._error as error:
            raise self._wrapped(connection, parameters, error) from error
        if self._readers:
            found = [_read(self._readers, row) for row in found]
        return [self._made(row) for row in found]

    def run(self, connection: sa.Connection, values: Values | Sequence[Values]) -> int:
        """Execute it once, or once for each set of values; answers how many rows it changed."""
        many = not isinstance(values, dict)
        parameters: Any = (
            [self._parameters(each) for each in values]
            if many
            else self._parameters(cast("Values", values))
        )
        try:
            cursor = connection.connection.cursor()
            (cursor.executemany if many else cursor.execute)(self.text, parameters)
            count = cursor.rowcount
            cursor.close()
        except self._error as error:
            raise self._wrapped(connection, parameters, error) from error
        return count

    def _parameters(self, values: Any) -> Any:
        if self._fixed:
            values = {**self._fixed, **values}
        if self._binders:
            values = dict(values)
            for name, binder in self._binders.items():
                values[name] = binder(values[name])
        return values if self._order is None else [values[name] for name in self._order]

    def _readers_of(self, description: Any) -> list[tuple[int, _Reader]]:
        """Find what makes values of the columns' cells; that may depend on the driver's types."""
        return [
            (index, reader)
            for index, (of, column) in enumerate(zip(self._types, description, strict=True))
            if (reader := of.result_processor(self._dialect, column[1]))
        ]

    def _wrapped(
        self, connection: sa.Connection, parameters: Any, error: Exception
    ) -> sa.exc.DBAPIError:
        """Make of a driver's error what SQLAlchemy would have, letting a dead connection go."""
        lost = self._dialect.is_disconnect(error, connection.connection.dbapi_connection, None)  # type: ignore[arg-type]  # a live connection has one
        if lost:
            connection.invalidate(error)
        found = sa.exc.DBAPIError.instance(
            self.text,
            parameters,
            error,
            self._error,
            connection_invalidated=lost,
            dialect=self._dialect,
        )
        return cast("sa.exc.DBAPIError", found)


def _read(readers: list[tuple[int, _Reader]], row: Sequence[Any]) -> list[Any]:
    cells = list(row)
    for index, reader in readers:
        cells[index] = reader(cells[index])
    return cells


def _row_of(names: list[str]) -> Callable[[Sequence[Any]], Any]:
    """Make what makes rows; two columns of one name leave it to the first."""
    # mypy knows no named tuple whose names are found while running.
    named: Any = namedtuple  # noqa: PYI024
    make: Callable[[Sequence[Any]], Any] = named("Row", names, rename=True)._make
    return make


_Key = tuple[str, tuple[str, ...]]
_KNOWN: WeakKeyDictionary[sa.Executable, dict[_Key, Prepared | None]] = WeakKeyDictionary()


def find(
    statement: sa.Executable, connection: sa.Connection, names: tuple[str, ...] = ()
) -> Prepared | None:
    """Give the prepared form of a statement that is met again; None leaves it to SQLAlchemy.

    A connection on which nothing was begun is left to SQLAlchemy too, which begins.
    """
    forms = _KNOWN.get(statement)
    if forms is None:
        _KNOWN[statement] = {}
        return None
    if not connection.in_transaction():
        return None
    key = (connection.dialect.name, names)
    if key not in forms:
        forms[key] = _prepare(statement, connection.dialect, names)
    return forms[key]


def _prepare(statement: Any, dialect: sa.Dialect, names: tuple[str, ...]) -> Prepared | None:
    if not (statement.is_select or statement.is_dml):
        return None
    try:
        return Prepared(statement, dialect, names)
    except ValueError:
        return None
