"""Find a row or raise the refusal that says what is missing and what to do.

Functions whose name ends in `_to_change` lock what they find, in the order namespace, names,
models, and look for a stored answer again once the lock is held.
"""

from __future__ import annotations

import difflib
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, names
from stagewire.store import schema
from stagewire.store.transactions import Again, dialect_insert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stagewire.store.transactions import Tx

Row = sa.Row[Any]

_NAMESPACE = sa.select(schema.Namespace).where(schema.Namespace.name == sa.bindparam("name"))
_NAMESPACE_SHARED = _NAMESPACE.with_for_update(read=True)
_NAMESPACE_OWNED = _NAMESPACE.with_for_update(key_share=True)
_NAMESPACES_KEPT = (
    sa.select(schema.Namespace.name)
    .where(schema.Namespace.name.in_(sa.bindparam("names", expanding=True)))
    .order_by(schema.Namespace.name)
    .with_for_update(read=True, key_share=True)
)
_BEARER = (
    sa.select(schema.Model)
    .join(schema.Name, schema.Name.model_id == schema.Model.id)
    .where(
        schema.Name.namespace == sa.bindparam("namespace"), schema.Name.name == sa.bindparam("name")
    )
)
_BEARER_LOCKED = _BEARER.with_for_update(key_share=True, of=schema.Model)
_RENAMED = (
    sa.select(schema.Model)
    .join(schema.Name, schema.Name.renamed_id == schema.Model.id)
    .where(
        schema.Name.namespace == sa.bindparam("namespace"),
        schema.Name.name == sa.bindparam("name"),
        schema.Model.deleted.is_(False),
    )
)
_BY_RANGE = (
    sa.select(schema.Model)
    .join(schema.NameRange, schema.NameRange.model_id == schema.Model.id)
    .where(
        schema.NameRange.namespace == sa.bindparam("namespace"),
        schema.NameRange.name == sa.bindparam("name"),
        schema.NameRange.first <= sa.bindparam("number"),
        sa.or_(schema.NameRange.last.is_(None), schema.NameRange.last >= sa.bindparam("number")),
        schema.Model.deleted.is_(False),
    )
)
MODEL = sa.select(schema.Model).where(schema.Model.id == sa.bindparam("model_id"))
_MODEL_LOCKED = MODEL.with_for_update(key_share=True)
NAME = sa.select(schema.Name).where(
    schema.Name.namespace == sa.bindparam("namespace"), schema.Name.name == sa.bindparam("name")
)
_NAME_LOCKED = NAME.with_for_update()
_INSERT_NAME = dialect_insert("postgresql")(schema.Name).on_conflict_do_nothing()
VERSION = sa.select(schema.Version).where(
    schema.Version.model_id == sa.bindparam("model_id"),
    schema.Version.number == sa.bindparam("number"),
)
_STAGES = (
    sa.select(schema.Stage)
    .where(schema.Stage.namespace == sa.bindparam("namespace"))
    .order_by(schema.Stage.position, schema.Stage.key)
)


def namespace(tx: Tx, name: str) -> Row:
    """Read a namespace; `default` is meant by ''. Refuses NAMESPACE_NOT_FOUND."""
    return _found_namespace(tx, tx.row(_NAMESPACE, name=names.namespace_or_default(name)), name)


def namespace_to_write_in(tx: Tx, name: str) -> Row:
    """Read a namespace and keep its definitions from changing until the commit."""
    name = names.namespace_or_default(name)
    row = _found_namespace(tx, tx.row(_NAMESPACE_SHARED, name=name), name)
    tx.spaces[row.name] = row
    return row


def namespace_to_change(tx: Tx, name: str) -> Row:
    """Read a namespace and lock it alone, for changes of its definitions."""
    name = names.namespace_or_default(name)
    row = _found_namespace(tx, tx.row(_NAMESPACE_OWNED, name=name), name)
    tx.spaces[row.name] = row
    tx.locked()
    return row


def lock_access(tx: Tx) -> None:
    """Let nobody else change who may do what everywhere until the commit."""
    tx.row(_NAMESPACE_OWNED, name=names.DEFAULT_NAMESPACE)
    tx.locked()


def namespaces_to_report_in(tx: Tx, names_: Iterable[str]) -> set[str]:
    """Read which namespaces exist, and keep those from being deleted until the commit.

    Nothing else waits for that lock, nor it for anything else.
    """
    return set(tx.connection.execute(_NAMESPACES_KEPT, {"names": sorted(names_)}).scalars())


def no_namespace(name: str) -> errors.RegistryError:
    """Build the refusal for a namespace that does not exist."""
    return errors.not_found(
        "NAMESPACE_NOT_FOUND",
        "namespace",
        name,
        f"namespace {name!r} does not exist; create it, or leave it out for 'default'",
    )


def _found_namespace(tx: Tx, row: Row | None, name: str) -> Row:
    if row is None or not tx.rights.sees_namespace(row.name):
        raise no_namespace(name)
    return row


def model(tx: Tx, space: str, name: str) -> Row:
    """Read the model that a name means: its living bearer, else the last renamed away from it.

    A name that may not be seen means nothing, also where it is an old one: or it would tell by
    what it means whether another model bears it now.
    """
    name = names.lookup_model(name)
    row = None
    if tx.rights.sees(space, name):
        row = tx.row(_BEARER, namespace=space, name=name)
        if row is None:
            row = tx.row(_RENAMED, namespace=space, name=name)
    if row is None or not tx.rights.sees(row.namespace, row.name):
        namespace(tx, space)
        raise model_not_found(name)
    return row


def model_to_change(tx: Tx, space: str, name: str) -> Row:
    """Read and lock the living bearer of a name. Refuses RENAMED for an old name."""
    namespace_to_write_in(tx, space)
    name = names.lookup_model(name)
    row = tx.row(_BEARER_LOCKED, namespace=space, name=name)
    if row is None:
        moved = tx.row(_RENAMED, namespace=space, name=name)
        if moved is None or not tx.rights.sees(moved.namespace, moved.name):
            raise model_not_found(name)
        raise renamed(name, moved.name)
    if not tx.rights.sees(row.namespace, row.name):
        raise model_not_found(name)
    # A rename or deletion may have committed while this transaction waited for the row.
    if row.name != name or row.deleted:
        raise Again
    tx.locked()
    return row


def models_to_change(tx: Tx, space: str, wanted: Sequence[str]) -> dict[str, Row]:
    """Read and lock several models, in the one order that can't deadlock."""
    found = {name: model(tx, space, name) for name in sorted(set(wanted))}
    order = sorted(found, key=lambda name: found[name].id)
    return {name: model_to_change(tx, space, name) for name in order}


def model_by_id_to_change(tx: Tx, space: str, model_id: str) -> Row:
    """Read and lock a model, living or deleted, by its id."""
    namespace_to_write_in(tx, space)
    unlocked = tx.row(MODEL, model_id=model_id)
    if (
        unlocked is None
        or unlocked.namespace != names.namespace_or_default(space)
        or not tx.rights.sees(unlocked.namespace, unlocked.name)
    ):
        raise model_not_found(model_id)
    tx.rights.demand(tx.needs, unlocked.namespace, unlocked.name, caller=tx.actor)
    # The name is locked before the model, as every use case that needs both does.
    name_to_change(tx, unlocked.namespace, unlocked.name)
    row = tx.row(_MODEL_LOCKED, model_id=model_id)
    if row is None or row.name != unlocked.name:
        raise Again
    tx.locked()
    return row


def name_to_change(tx: Tx, space: str, name: str) -> Row:
    """Read and lock what is known of a name, making it known first."""
    if tx.postgresql:
        tx.run(_INSERT_NAME, {"namespace": space, "name": name, "next_number": 1})
    row = tx.row(_NAME_LOCKED, namespace=space, name=name)
    if row is None:
        tx.insert(
            schema.Name, namespace=space, name=name, model_id=None, renamed_id=None, next_number=1
        )
        row = tx.row(NAME, namespace=space, name=name)
    if row is None:
        raise Again
    tx.locked()
    return row


def model_not_found(name: str) -> errors.RegistryError:
    """Build the refusal for a name that no living model bears or left by rename."""
    return errors.not_found("MODEL_NOT_FOUND", "model", name, f"model {name!r} does not exist")


def numbered(tx: Tx, space: str, name: str, number: int) -> tuple[Row, Row]:
    """Read the model and version that (name, number) means, also under an old name."""
    name = names.lookup_model(name)
    owner = None
    if tx.rights.sees(space, name):
        owner = tx.row(_BY_RANGE, namespace=space, name=name, number=number)
    if owner is None or not tx.rights.sees(owner.namespace, owner.name):
        model(tx, space, name)
        raise version_not_found(name, number)
    return owner, version(tx, owner, number)


def version(tx: Tx, owner: Row, number: int, *, deleted: bool = False) -> Row:
    """Read a living version of a model, or with `deleted` also one that is not."""
    row = tx.row(VERSION, model_id=owner.id, number=number)
    if row is None or (row.deleted and not deleted):
        raise version_not_found(owner.name, number)
    return row


def version_to_change(tx: Tx, owner: Row, number: int, *, deleted: bool = False) -> Row:
    """Read a version of the locked bearer of a name.

    Refuses RENAMED for a number that the name gave out while another model bore it.
    """
    row = tx.row(VERSION, model_id=owner.id, number=number)
    if row is None:
        other = tx.row(_BY_RANGE, namespace=owner.namespace, name=owner.name, number=number)
        if (
            other is not None
            and other.id != owner.id
            and tx.rights.sees(other.namespace, other.name)
        ):
            raise renamed(owner.name, other.name, number=number)
    if row is None or (row.deleted and not deleted):
        raise version_not_found(owner.name, number)
    return row


def renamed(name: str, now: str, *, number: int = 0) -> errors.RegistryError:
    """Build the refusal of a write through an old name, or to an old number of a taken one."""
    what = f"version {number} of model {name!r}" if number else f"model {name!r}"
    where = f"version {number} of {now!r}" if number else repr(now)
    return errors.RegistryError(
        "RENAMED",
        f"{what} is now called {where}; write to it by that name",
        preconditions=[errors.PreconditionViolation("RENAMED", name, now)],
        resource_type="model",
        resource_name=name,
        metadata={"model": now},
    )


def version_not_found(name: str, number: int) -> errors.RegistryError:
    """Build the refusal for a number that the model does not have."""
    return errors.not_found(
        "VERSION_NOT_FOUND",
        "model_version",
        f"{name}/{number}",
        f"model {name!r} has no version {number}",
    )


def stages(tx: Tx, space: str) -> dict[str, Row]:
    """Read a namespace's stages by key, in their order."""
    return {row.key: row for row in tx.rows(_STAGES, namespace=space)}


def stage(tx: Tx, space: str, name: str, *, defined: dict[str, Row] | None = None) -> Row:
    """Read a stage in any letter case. Refuses STAGE_NOT_FOUND, naming what comes close."""
    return stage_in(stages(tx, space) if defined is None else defined, name)


def stage_in(defined: dict[str, Row], name: str) -> Row:
    """Pick a stage from its namespace's, in any letter case. Refuses STAGE_NOT_FOUND."""
    row = defined.get(names.stage_key(name))
    if row is None:
        known = [s.name for s in defined.values()]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise errors.not_found(
            "STAGE_NOT_FOUND", "stage", name, f"there is no stage {name!r}; {hint}"
        )
    return row


@cache
def asked_for(form: str, table: type[schema.Table]) -> sa.Select[Any]:
    """Select from `table` what belongs to the versions that `keys` gives in this form.

    Several come in as rows to join: for `IN` with a list of pairs SQLite reads the whole table.
    """
    columns = schema.Table.metadata.tables[table.__tablename__].c
    model_id: Any = sa.bindparam("model_id", type_=schema.TEXT)
    number: Any = sa.bindparam("number", type_=sa.BigInteger())
    if form == "one":
        found = sa.and_(columns.model_id == model_id, columns.number == number)
        return sa.select().select_from(table).where(found)
    if form == "arrays":
        # Their length is seen by PostgreSQL's planner; of JSON it expects a hundred rows.
        models = sa.bindparam("models", type_=sa.ARRAY(schema.TEXT))
        numbers = sa.bindparam("numbers", type_=sa.ARRAY(sa.BigInteger()))
        pair = (sa.column("m", schema.TEXT), sa.column("n", sa.BigInteger()))
        rows = sa.func.unnest(models, numbers).table_valued(*pair, name="asked").render_derived()
        model_id, number = rows.c.m, rows.c.n
    else:
        pairs = sa.bindparam("pairs", type_=sa.Text())
        rows = sa.func.json_each(pairs).table_valued("value", name="asked")
        model_id, number = (sa.func.json_extract(rows.c.value, path) for path in ("$[0]", "$[1]"))
    found = sa.and_(columns.model_id == model_id, columns.number == number)
    return sa.select().select_from(rows).join(table, found)


def keys(tx: Tx, versions: Iterable[tuple[str, int]]) -> tuple[str, dict[str, Any]]:
    """Give a form for `asked_for`, and the values its statements take.

    Versions are named by their model's id and their number.
    """
    pairs = list(dict.fromkeys(versions))
    if len(pairs) == 1:
        return "one", {"model_id": pairs[0][0], "number": pairs[0][1]}
    if tx.postgresql:
        return "arrays", {"models": [m for m, _ in pairs], "numbers": [n for _, n in pairs]}
    return "json", {"pairs": json.dumps(pairs)}


def expect(expected: int, found: int, what: str) -> None:
    """Refuse REVISION_MISMATCH unless the resource is at the revision that the caller saw."""
    if expected and expected != found:
        raise errors.RegistryError(
            "REVISION_MISMATCH",
            f"{what} is at revision {found}, not {expected}: somebody changed it; read it again",
            metadata={"current_revision": str(found)},
            resource_name=what,
        )
