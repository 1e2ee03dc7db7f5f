"""Roles on parts of the registry, as they are typed and shown: `approver@risk/churn/Production`.

What stands behind the namespace is written as in `models:/` URIs: a stage after a slash, an alias
after the last `@`. A model whose name has an `@` is ended by a slash.
"""

from enum import StrEnum

from stagewire import pb
from stagewire.cli import wording
from stagewire.cli.arguments import refuse
from stagewire.cli.views import Column

ALL = "*"


class Role(StrEnum):
    """What may be done."""

    VIEWER = "viewer"
    REGISTRAR = "registrar"
    EDITOR = "editor"
    APPROVER = "approver"
    DEPLOYER = "deployer"
    ADMIN = "admin"


def number(role: Role) -> pb.Role.ValueType:
    """Return a role as the contract has it."""
    return pb.Role.Value(f"ROLE_{role.upper()}")


def role_of(scope: pb.Scope) -> str:
    """Write a role as it is typed."""
    return wording.enum_name(pb.Role, scope.role).lower()


def parse(option: str, text: str, *, namespace: str) -> pb.Scope:
    """Parse ROLE[@NAMESPACE[/MODEL[/STAGE]]] or ROLE@NAMESPACE/MODEL@ALIAS."""
    role, at, where = text.partition("@")
    if role not in set(Role):
        refuse(option, f"{text!r} begins with none of {', '.join(Role)}")
    space, slash, rest = where.partition("/")
    model, narrowed, stage = rest.partition("/")
    alias = ""
    if "@" in model and not narrowed:
        model, _, alias = model.rpartition("@")
        if not alias:
            refuse(option, f"{text!r} has no alias after the last '@'; leave that out")
    if (at and not space) or (slash and not model) or "/" in stage:
        refuse(
            option,
            f"{text!r} can't be read; write ROLE, ROLE@NAMESPACE, ROLE@NAMESPACE/MODEL/STAGE or "
            "ROLE@NAMESPACE/MODEL@ALIAS",
        )
    return pb.Scope(
        role=number(Role(role)), namespace=space or namespace, model=model, stage=stage, alias=alias
    )


def describe(scope: pb.Scope) -> str:
    """Write a scope so that it can be typed again."""
    text = f"{role_of(scope)}@{scope.namespace or 'default'}"
    model = scope.model or ALL
    if scope.alias:
        return f"{text}/{model}@{scope.alias}"
    if scope.stage or "@" in model:
        return f"{text}/{model}/{scope.stage}"
    return text if model == ALL else f"{text}/{model}"


COLUMNS: tuple[Column[pb.Scope], ...] = (
    Column("ROLE", role_of),
    Column("NAMESPACE", lambda scope: scope.namespace),
    Column("MODEL", lambda scope: scope.model or ALL),
    Column("STAGE", lambda scope: scope.stage, always=False),
    Column("ALIAS", lambda scope: scope.alias, always=False),
)
