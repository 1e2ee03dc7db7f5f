"""Bring a database's schema up to date, or say that it is not: tables come from here only."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import alembic.script
import sqlalchemy as sa

from stagewire.store import schema, sqlite
from stagewire.store.database import StartRefusal, parse_url

if TYPE_CHECKING:
    from collections.abc import Iterator

# One upgrade at a time over all replicas; any fixed number will do.
_ADVISORY_LOCK = 5_706_114_113


def upgrade(url: str) -> tuple[str | None, str]:
    """Upgrade the schema and answer (revision before, revision after).

    A SQLite file that exists is copied beside itself first. Raises StartRefusal when it is being
    served, belongs to a newer release or can't be reached.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        # The lock is the server's own: nobody upgrades a file that is being served.
        path = Path(parsed.database or "")
        lock = sqlite.lock(path)
        try:
            return _upgrade(parsed, backup=path)
        finally:
            os.close(lock)
    return _upgrade(parsed, backup=None)


def check(url: str) -> tuple[str | None, str]:
    """Answer (revision of the database, revision this release needs); changes nothing."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").exists():
        return None, _newest()
    engine = _engine(parsed)
    try:
        with engine.connect() as connection:
            return _current(connection), _newest()
    except sa.exc.OperationalError as error:
        raise _unreachable(parsed) from error
    finally:
        engine.dispose()


def require(url: str) -> None:
    """Raise StartRefusal, naming the command, unless the schema is this release's."""
    current, newest = check(url)
    if current == newest:
        return
    shown = parse_url(url).render_as_string(hide_password=True)
    if current is None:
        text = (
            f"{shown} has no registry yet; run: stagewire database upgrade --database-url {shown}"
        )
    elif current in _known():
        text = (
            f"{shown} has schema {current}, this release needs {newest}; "
            f"run: stagewire database upgrade --database-url {shown}"
        )
    else:
        raise _newer(parse_url(url), current)
    raise StartRefusal(text)


def drift(connection: sa.Connection) -> list[object]:
    """List the differences between the tables as migrated and as declared."""
    context = alembic.migration.MigrationContext.configure(connection)
    return list(alembic.autogenerate.compare_metadata(context, schema.Table.metadata))


def backup(url: str, target: Path) -> None:
    """Copy a SQLite registry, also while it is served, to a file that must not exist."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        text = "database backup copies SQLite files; for PostgreSQL use pg_dump or base backups"
        raise StartRefusal(text)
    if target.exists():
        text = f"{target} exists; name a new file"
        raise StartRefusal(text)
    with closing(sqlite3.connect(f"file:{parsed.database}?mode=ro", uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))


def _upgrade(url: sa.URL, *, backup: Path | None) -> tuple[str | None, str]:
    engine = _engine(url)
    newest = _newest()
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_lock(:k)"), {"k": _ADVISORY_LOCK})
                connection.commit()
            current = _current(connection)
            connection.rollback()
            if current == newest:
                return current, newest
            if current is not None and current not in _known():
                raise _newer(url, current)
            if backup is not None and current is not None:
                shutil.copy2(backup, backup.with_name(f"{backup.name}.before-{newest}"))
            config = _config()
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
            connection.commit()
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_unlock(:k)"), {"k": _ADVISORY_LOCK})
                connection.commit()
            return current, newest
    except sa.exc.OperationalError as error:
        raise _unreachable(url) from error
    finally:
        engine.dispose()


def _engine(url: sa.URL) -> sa.Engine:
    # PostgreSQL's own patience with a host that says nothing is minutes.
    given = {} if url.get_backend_name() == "sqlite" else {"connect_timeout": 5}
    return sa.create_engine(url, connect_args=given)


def _config() -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", "stagewire.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _known() -> set[str]:
    script = alembic.script.ScriptDirectory.from_config(_config())
    revisions: Iterator[alembic.script.Script] = script.walk_revisions()
    return {revision.revision for revision in revisions}


def _newest() -> str:
    head = alembic.script.ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise LookupError(head)
    return head


def _current(connection: sa.Connection) -> str | None:
    return alembic.migration.MigrationContext.configure(connection).get_current_revision()


def _newer(url: sa.URL, current: str) -> StartRefusal:
    shown = url.render_as_string(hide_password=True)
    text = f"{shown} has schema {current} of a newer release; upgrade stagewire itself"
    return StartRefusal(text)


def _unreachable(url: sa.URL) -> StartRefusal:
    shown = url.render_as_string(hide_password=True)
    return StartRefusal(f"can't open {shown}; is it running, and may this user use it?")
