"""From a URL to the database it names: the one place that knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from stagewire.store.database import StartRefusal, parse_url
from stagewire.store.postgresql import PostgresDatabase
from stagewire.store.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from stagewire.store.database import Database

_OTHERS = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def refuse_shared(url: str) -> None:
    """Refuse a PostgreSQL database that somebody else is connected to; SQLite has its lock.

    Raises `StartRefusal` with the remedy.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return
    engine = sa.create_engine(parsed, poolclass=sa.pool.NullPool, hide_parameters=True)
    with engine.connect() as connection:
        others = connection.execute(_OTHERS).scalar_one()
    if others:
        text = f"{others} other sessions are connected to this database; stop the servers first"
        raise StartRefusal(text)


def open_database(
    url: str, *, readers: int = 64, listens: bool = True, trusts_storage: bool = False
) -> Database:
    """Open the database at `url`: `sqlite:///FILE` or `postgresql+psycopg://…`.

    Without `listens` PostgreSQL's notifications are not relied on. With `trusts_storage` it may
    leave durability to what is below it.

    Raises `StartRefusal` (a ValueError) with the remedy when it must not be served from.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteDatabase(parsed, readers=readers)
    return PostgresDatabase(parsed, readers=readers, listens=listens, trusts_storage=trusts_storage)
