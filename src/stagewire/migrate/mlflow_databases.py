"""MLflow's own database, read in pages with plain statements, whatever release made it.

Columns and tables that a release lacks read as empty: workspaces are new, aliases came with 2.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire.migrate.mlflow import (
    DEFAULT_WORKSPACE,
    Finding,
    Model,
    Unreadable,
    Version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NEEDED = ("registered_models", "model_versions")
_BESIDE = ("registered_model_tags", "model_version_tags", "registered_model_aliases", "webhooks")
_MODELS = 100
_VERSIONS = 2000


class Database:
    """A source of models and versions, at one moment of MLflow's database."""

    def __init__(self, url: str) -> None:
        """Open it for reading. Raises Unreadable."""
        self._engine = _open(url)
        try:
            self._connection = self._engine.connect()
            self._tables = _tables(self._connection)
        except sa.exc.SQLAlchemyError as error:
            self._engine.dispose()
            message = f"MLflow's database can't be read: {getattr(error, 'orig', error)}"
            raise Unreadable(message) from None
        except Unreadable:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()
        self._engine.dispose()

    def workspaces(self) -> list[str]:
        """Name the workspaces that have models."""
        table = self._tables["registered_models"]
        if "workspace" not in table.c:
            return [DEFAULT_WORKSPACE]
        found = self._connection.execute(sa.select(table.c.workspace).distinct()).scalars()
        return sorted(found) or [DEFAULT_WORKSPACE]

    def count(self, workspace: str) -> int:
        """Count the models and versions."""
        return sum(
            self._connection.execute(
                sa.select(sa.func.count()).select_from(table).where(*_in(table, workspace))
            ).scalar_one()
            for table in (self._tables["registered_models"], self._tables["model_versions"])
        )

    def remarks(self) -> list[Finding]:
        """Say what the database has beside models and versions."""
        table = self._tables.get("webhooks")
        if table is None:
            return []
        living = sa.select(sa.func.count()).where(_column(table, "deleted_timestamp").is_(None))
        count = self._connection.execute(living.select_from(table)).scalar_one()
        if not count:
            return []
        return [
            Finding(
                "webhooks",
                "",
                f"{count} were not brought: their secrets are MLflow's",
                "create them anew",
            )
        ]

    def born(self, workspace: str) -> dict[str, int | None]:
        """Give the moment of each model's creation by its name."""
        table = self._tables["registered_models"]
        statement = sa.select(*_columns(table, ("name", "creation_time")))
        return {
            row.name: row.creation_time
            for row in self._connection.execute(statement.where(*_in(table, workspace)))
        }

    def models(self, workspace: str) -> Iterator[tuple[Model, list[Version]]]:
        """Read each model with all its versions, deleted ones too."""
        table = self._tables["registered_models"]
        statement = sa.select(*_columns(table, _MODEL)).where(*_in(table, workspace))
        statement = statement.order_by(table.c.name).limit(_MODELS)
        where: Any = sa.true()
        while rows := self._connection.execute(statement.where(where)).all():
            yield from self._whole(workspace, rows)
            where = table.c.name > rows[-1].name

    def _whole(self, workspace: str, rows: Sequence[Any]) -> Iterator[tuple[Model, list[Version]]]:
        names = [row.name for row in rows]
        models = {
            row.name: Model(
                workspace,
                row.name,
                creation_time=row.creation_time,
                last_updated_time=row.last_updated_time,
                description=row.description or "",
            )
            for row in rows
        }
        for tag in self._beside(
            "registered_model_tags", workspace, names, ("name", "key", "value")
        ):
            models[tag.name].tags[tag.key] = tag.value or ""
        found = ("name", "alias", "version")
        for alias in self._beside("registered_model_aliases", workspace, names, found):
            models[alias.name].aliases[alias.alias] = int(alias.version)
        versions: dict[str, dict[int, Version]] = {name: {} for name in names}
        for row in self._versions(workspace, names):
            versions[row.name][row.version] = Version(
                row.version,
                creation_time=row.creation_time,
                last_updated_time=row.last_updated_time,
                description=row.description or "",
                user_id=row.user_id or "",
                stage=row.current_stage or "None",
                source=row.source or "",
                storage_location=row.storage_location or "",
                run_id=row.run_id or "",
                run_link=row.run_link or "",
                status=row.status or "READY",
                status_message=row.status_message or "",
            )
        columns = ("name", "version", "key", "value")
        for tag in self._beside("model_version_tags", workspace, names, columns):
            if tag.version in versions[tag.name]:
                versions[tag.name][tag.version].tags[tag.key] = tag.value or ""
        for name in names:
            yield models[name], list(versions[name].values())

    def _versions(self, workspace: str, names: list[str]) -> Iterator[Any]:
        table = self._tables["model_versions"]
        statement = (
            sa.select(*_columns(table, _VERSION))
            .where(*_in(table, workspace), table.c.name.in_(names))
            .order_by(table.c.name, table.c.version)
            .limit(_VERSIONS)
        )
        where: Any = sa.true()
        while True:
            rows = self._connection.execute(statement.where(where)).all()
            yield from rows
            if len(rows) < _VERSIONS:
                return
            last = rows[-1]
            where = sa.or_(
                table.c.name > last.name,
                sa.and_(table.c.name == last.name, table.c.version > last.version),
            )

    def _beside(
        self, name: str, workspace: str, names: list[str], columns: tuple[str, ...]
    ) -> Sequence[Any]:
        table = self._tables.get(name)
        if table is None:
            return ()
        statement = sa.select(*_columns(table, columns)).where(
            *_in(table, workspace), table.c.name.in_(names)
        )
        return self._connection.execute(statement).all()


def _tables(connection: sa.Connection) -> dict[str, Any]:
    """Find MLflow's tables with the columns that they have. Raises Unreadable."""
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    if missing := [name for name in _NEEDED if name not in there]:
        message = f"this database has no table {missing[0]}; is it MLflow's?"
        raise Unreadable(message)
    return {
        name: sa.table(name, *(sa.column(c["name"]) for c in inspector.get_columns(name)))
        for name in (*_NEEDED, *_BESIDE)
        if name in there
    }


_MODEL = ("name", "creation_time", "last_updated_time", "description")
_VERSION = (
    "name",
    "version",
    "creation_time",
    "last_updated_time",
    "description",
    "user_id",
    "current_stage",
    "source",
    "storage_location",
    "run_id",
    "run_link",
    "status",
    "status_message",
)


def _columns(table: Any, names: tuple[str, ...]) -> list[Any]:
    return [_column(table, name) for name in names]


def _column(table: Any, name: str) -> Any:
    return table.c[name] if name in table.c else sa.null().label(name)


def _in(table: Any, workspace: str) -> list[Any]:
    return [table.c.workspace == workspace] if "workspace" in table.c else []


def _open(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite":
            # Read-only, and a file that is not there is not made.
            file = f"file:{parsed.database}"
            parsed = parsed.set(database=file, query={"mode": "ro", "uri": "true"})
            return sa.create_engine(parsed, hide_parameters=True)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        return sa.create_engine(parsed, hide_parameters=True, isolation_level="REPEATABLE READ")
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        message = (
            f"{url.partition(':')[0]!r} can't be opened: {error}; give http://…, "
            "sqlite:///mlflow.db or postgresql://…"
        )
        raise Unreadable(message) from None
