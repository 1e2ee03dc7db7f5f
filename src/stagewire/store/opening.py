"""From a URL to the database it names: the one place that knows both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire.store.database import parse_url
from stagewire.store.postgresql import PostgresDatabase
from stagewire.store.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from stagewire.store.database import Database


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
