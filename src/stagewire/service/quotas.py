"""Quotas of namespaces: what one may hold, and what it holds of that, counted as it changes.

Only a namespace whose models or versions are limited has a row that its writers count in, one
after the other; they take it after every other lock but the log's head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import pb
from stagewire.errors import QuotaViolation, RegistryError
from stagewire.store import schema

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

FIELDS = ("max_models", "max_versions", "max_watches", "requests_per_second")
_NONE = dict.fromkeys(FIELDS, 0)

_USAGE = sa.select(schema.NamespaceUsage).where(
    schema.NamespaceUsage.namespace == sa.bindparam("namespace")
)
_COUNT = (
    sa.update(schema.NamespaceUsage)
    .where(schema.NamespaceUsage.namespace == sa.bindparam("space"))
    .values(
        models=schema.NamespaceUsage.models + sa.bindparam("more_models"),
        versions=schema.NamespaceUsage.versions + sa.bindparam("more_versions"),
    )
)
_MODELS = sa.select(sa.func.count()).where(
    schema.Model.namespace == sa.bindparam("namespace"), schema.Model.deleted.is_(False)
)
_VERSIONS = (
    sa.select(sa.func.count())
    .select_from(schema.Version)
    .join(schema.Model, schema.Model.id == schema.Version.model_id)
    .where(
        schema.Version.namespace == sa.bindparam("namespace"),
        schema.Version.deleted.is_(False),
        schema.Model.deleted.is_(False),
    )
)
_VERSIONS_OF = sa.select(sa.func.count()).where(
    schema.Version.model_id == sa.bindparam("model_id"), schema.Version.deleted.is_(False)
)


def of(row: Any) -> pb.Quota | None:
    """Map a namespace's quota; None where nothing is limited."""
    limits = {name: getattr(row, name) for name in FIELDS}
    return pb.Quota(**limits) if any(limits.values()) else None


def values(message: pb.Namespace | pb.NamespaceUpdate) -> dict[str, int]:
    """Give the columns of a namespace's quota."""
    if not message.HasField("quota"):
        return dict(_NONE)
    return {name: getattr(message.quota, name) for name in FIELDS}


def limited(row: Any) -> bool:
    """Tell whether what a namespace holds is limited, and so counted."""
    return bool(row.max_models or row.max_versions)


def usage(tx: Tx, space: str) -> pb.NamespaceUsage | None:
    """Read what a namespace holds, None where it is not counted."""
    row = tx.row(_USAGE, namespace=space)
    return None if row is None else pb.NamespaceUsage(models=row.models, versions=row.versions)


def settle(tx: Tx, space: str, row: Any) -> None:
    """Begin or end to count, as a namespace's quota wants it.

    To be called with the namespace locked for this transaction alone: whoever writes in it holds
    it until the commit, so nothing is under way while it is counted.
    """
    counted = tx.row(_USAGE, namespace=space) is not None
    if counted and not limited(row):
        tx.delete(schema.NamespaceUsage, namespace=space)
    elif limited(row) and not counted:
        tx.insert(
            schema.NamespaceUsage,
            namespace=space,
            models=tx.scalar(_MODELS, namespace=space),
            versions=tx.scalar(_VERSIONS, namespace=space),
        )


def versions_of(tx: Tx, space: str, model_id: str) -> int:
    """Count a locked model's versions, where that is wanted to know."""
    row = tx.spaces.get(space)
    if row is None or not limited(row):
        return 0
    return int(tx.scalar(_VERSIONS_OF, model_id=model_id))


def count(
    tx: Tx, space: str, *, models: int = 0, versions: int = 0, may_exceed: bool = False
) -> None:
    """Count what a namespace has more, or less, than before. Refuses QUOTA_EXCEEDED.

    The namespace and all that is counted are locked by now. What `may_exceed` a quota is counted
    and not refused.
    """
    row = tx.spaces.get(space)
    if row is None or not limited(row) or not (models or versions):
        return
    tx.run(_COUNT, {"space": space, "more_models": models, "more_versions": versions})
    if may_exceed:
        return
    used = tx.rows(_USAGE, namespace=space)[0]
    for name, limit, now, more in (
        ("models", row.max_models, used.models, models),
        ("versions", row.max_versions, used.versions, versions),
    ):
        if limit and more > 0 and now > limit:
            raise _exceeded(space, name, limit=limit, used=now - more, more=more)


def _exceeded(space: str, name: str, *, limit: int, used: int, more: int) -> RegistryError:
    option = f"--max-{name}"
    wanted = f" and this would be {more:,} more" if more > 1 else ""
    text = (
        f"namespace {space!r} holds {used:,} {name}{wanted}; its quota is {limit:,}: delete some, "
        f"or have an admin of the registry raise it: stagewire namespace update {space} "
        f"{option} {used + more}"
    )
    return RegistryError(
        "QUOTA_EXCEEDED",
        text,
        quotas=[QuotaViolation(f"namespace:{space}", text)],
        resource_type="namespace",
        resource_name=space,
        metadata={
            "quota": f"max_{name}",
            "limit": str(limit),
            "used": str(used),
            "namespace": space,
        },
    )
