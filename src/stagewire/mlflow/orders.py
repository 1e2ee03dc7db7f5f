"""MLflow's grammar of orders: one clause in, what it orders by out, or MLflow's own refusal."""

from __future__ import annotations

import shlex

import sqlparse
from sqlparse import sql
from sqlparse import tokens as kinds

from stagewire.mlflow.clauses import ENTITIES, set_of, without
from stagewire.mlflow.errors import invalid


def model_order(text: str) -> tuple[str, bool]:
    """Return the field that one clause orders models by, and whether it ascends."""
    name, ascending = _read(text)
    if name == "timestamp":
        name = "last_updated_timestamp"
    if name not in ("name", "last_updated_timestamp"):
        raise invalid(
            f"Invalid order by key '{name}' specified. Valid keys are '{{'name', 'timestamp'}}'"
        )
    return name, ascending


_VERSIONS = ("creation_timestamp", "last_updated_timestamp", "name", "version_number")


def version_order(text: str) -> tuple[str, bool]:
    """Return the field that one clause orders versions by, and whether it ascends."""
    name, ascending = _read(text)
    entity, dot, key = name.partition(".")
    if not dot:
        entity, key = "attribute", name
    if entity not in ENTITIES:
        raise invalid(f"Invalid entity type '{entity}'. Valid entity types are {ENTITIES}")
    key = without(without(key, "'\""), "`")
    # Even of a tag: MLflow orders by the attribute of that name.
    if key not in _VERSIONS:
        told = (
            f"Invalid attribute key '{key}' specified. Valid keys are '{set_of(_VERSIONS)}'"
            if entity == "attribute"
            else f"Invalid order by key '{key}' specified. Valid keys are {set_of(_VERSIONS)}"
        )
        raise invalid(told)
    return key, ascending


def _read(text: str) -> tuple[str, bool]:
    """Return what one clause of an order names, as it is written, and whether it ascends."""
    name = _ordered(text)
    try:
        words = shlex.split(name.replace("`", '"'))
    except ValueError:
        raise _unreadable(text) from None
    if len(words) == 2:  # noqa: PLR2004  # a field and a direction
        direction = words[1].lower()
        if direction not in ("asc", "desc"):
            raise invalid(f"Invalid ordering key in order_by clause '{text}'.")
        return words[0].strip(), direction == "asc"
    if len(words) > 2:  # noqa: PLR2004
        raise _unreadable(text)
    return name.strip(), True


def _ordered(text: str) -> str:
    try:
        statements = sqlparse.parse(text)
    except Exception:  # noqa: BLE001  # as of a filter
        raise invalid(f"Error on parsing order_by clause '{text}'") from None
    if len(statements) != 1:
        raise _unreadable(text)
    first, *rest = statements[0].tokens
    if not rest and isinstance(first, sql.Identifier):
        name: str = first.value
        return name
    # A type's name to sqlparse, and so no identifier.
    if first.match(kinds.Name.Builtin, ["timestamp"]):
        if not rest:
            return "timestamp"
        if rest[-1].ttype is kinds.Keyword.Order and all(t.is_whitespace for t in rest[:-1]):
            return f"timestamp {rest[-1].value}"
    raise _unreadable(text)


def _unreadable(text: str) -> Exception:
    return invalid(f"Invalid order_by clause '{text}'. Could not be parsed.")
