"""An open transaction: what service functions read and write through."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from stagewire.callers import ANONYMOUS
from stagewire.hooks import NO_HOOKS
from stagewire.rights import SEE
from stagewire.sources import PERMISSIVE
from stagewire.store import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stagewire import pb
    from stagewire.callers import Caller
    from stagewire.rights import Permission, Rights

# Columns that hold a revision or time which only the log's head knows: (revisions, times).
STAMPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "namespaces": (("revision",), ("create_time", "update_time")),
    "stages": (("revision",), ("create_time", "update_time")),
    "models": (("revision",), ("create_time", "update_time", "mlflow_time")),
    "model_versions": (("revision",), ("create_time", "update_time", "mlflow_time")),
    "stage_holders": (("entered_revision", "left_revision"), ("entered_time", "left_time")),
    "stage_moves": (("revision",), ()),
    "alias_holders": (("set_revision", "unset_revision"), ("set_time", "unset_time")),
    "requests": (("revision",), ("time",)),
    "webhooks": (("revision",), ("create_time", "update_time")),
    "webhook_cursors": (("revision",), ()),
    "tokens": (("revision",), ("create_time", "update_time")),
    "grants": (("revision",), ("create_time",)),
}


class Again(Exception):
    """The use case must start over: something it had read changed before it was locked."""


class Tx:
    """One transaction.

    `revision` and `time` stand for "this transaction's" in rows: the real ones on SQLite, where
    the only writer knows them beforehand, and 0 on PostgreSQL until the head is taken. In a read
    `head` is the log's revision that everything is read at.
    """

    def __init__(
        self,
        connection: sa.Connection,
        *,
        head: int = 0,
        head_hash: bytes = b"",
        log_id: str = "",
        revision: int = 0,
        time: int = 0,
        commit_time: int = 0,
    ) -> None:
        """Wrap an open connection; whoever opened it commits."""
        self.connection = connection
        self.head = head
        self.head_hash = head_hash
        self.log_id = log_id
        self.revision = revision
        self.time = time
        self.commit_time = commit_time
        self.actor = ""
        self.reason = ""
        self.sources = PERMISSIVE
        self.hooks = NO_HOOKS
        self.caller = ANONYMOUS
        #: What the method under way needs of whatever it finds by an id.
        self.needs = SEE
        self.records: list[pb.ChangeRecord] = []
        #: The namespaces whose definitions are locked by this transaction, as they are.
        self.spaces: dict[str, sa.Row[Any]] = {}
        self.touched: dict[str, dict[tuple[Any, ...], None]] = {}
        self.locked: Callable[[], None] = lambda: None

    def begin(self, caller: Caller, needs: Permission) -> None:
        """Say on whose behalf everything is done, and what that takes."""
        self.caller, self.actor, self.needs = caller, caller.name, needs

    @property
    def rights(self) -> Rights:
        """What the caller may do."""
        return self.caller.rights

    @property
    def postgresql(self) -> bool:
        """Whether rows must be locked and stamped."""
        return self.connection.dialect.name == "postgresql"

    def rows(self, statement: sa.Executable, **values: Any) -> Sequence[sa.Row[Any]]:
        """Read every row."""
        return self.connection.execute(statement, values).all()

    def row(self, statement: sa.Executable, **values: Any) -> sa.Row[Any] | None:
        """Read the first row, or None."""
        return self.connection.execute(statement, values).first()

    def scalar(self, statement: sa.Executable, **values: Any) -> Any:
        """Read the first column of the first row, or None."""
        return self.connection.execute(statement, values).scalar()

    def run(
        self, statement: sa.Executable, values: Sequence[dict[str, Any]] | dict[str, Any]
    ) -> int:
        """Execute a writing statement once, or once for each set of values."""
        return self.connection.execute(statement, values).rowcount

    def insert(self, table: type[schema.Table], **values: Any) -> None:
        """Insert one row; stamped columns take `revision` and `time`."""
        name = table.__tablename__
        if name in STAMPS:
            self._touch(table, values)
        self.run(_insert(name), values)

    def insert_many(self, table: type[schema.Table], rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows of a table without stamps."""
        if rows:
            self.run(_insert(table.__tablename__), rows)

    def update(self, table: type[schema.Table], keys: dict[str, Any], **values: Any) -> None:
        """Change the row with these keys, which must be its primary key where it has stamps."""
        name = table.__tablename__
        if name in STAMPS and any(c in values for columns in STAMPS[name] for c in columns):
            self._touch(table, keys)
        statement = _update(name, tuple(keys), tuple(values))
        self.run(statement, {**{f"k_{k}": v for k, v in keys.items()}, **values})

    def delete(self, table: type[schema.Table], **keys: Any) -> int:
        """Delete the rows with these column values."""
        statement = _delete(table.__tablename__, tuple(keys))
        return self.run(statement, {f"k_{k}": v for k, v in keys.items()})

    def _touch(self, table: type[schema.Table], values: dict[str, Any]) -> None:
        key = tuple(values[column] for column in primary_key(table.__tablename__))
        self.touched.setdefault(table.__tablename__, {})[key] = None


def dialect_insert(dialect: str) -> Any:
    """Give the `insert` that knows ON CONFLICT, of either database."""
    return postgresql.insert if dialect == "postgresql" else sqlite.insert


@cache
def primary_key(table: str) -> tuple[str, ...]:
    """Name the columns of a table's primary key."""
    return tuple(column.name for column in schema.Table.metadata.tables[table].primary_key)


@cache
def _insert(table: str) -> sa.Insert:
    return sa.insert(schema.Table.metadata.tables[table])


@cache
def _update(table: str, keys: tuple[str, ...], values: tuple[str, ...]) -> sa.Update:
    columns = schema.Table.metadata.tables[table].c
    statement = sa.update(schema.Table.metadata.tables[table])
    for key in keys:
        statement = statement.where(columns[key] == sa.bindparam(f"k_{key}"))
    return statement.values({value: sa.bindparam(value) for value in values})


@cache
def _delete(table: str, keys: tuple[str, ...]) -> sa.Delete:
    columns = schema.Table.metadata.tables[table].c
    statement = sa.delete(schema.Table.metadata.tables[table])
    for key in keys:
        statement = statement.where(columns[key] == sa.bindparam(f"k_{key}"))
    return statement
