"""Namespaces: whose registry. A new one gets the default stages, as MLflow names them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.service import grants, history, limits, messages, quotas, webhooks
from stagewire.store import lookup, pages, schema, visibility
from stagewire.store.transactions import Again

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

DEFAULT = "default"
_UPDATABLE = frozenset({"description", "quota", *(f"quota.{name}" for name in quotas.FIELDS)})

# Entering Staging or Production displaces into Archived, so promoting an older version takes
# effect; several holders remain possible with `displace: KEEP`.
_DEFAULT_STAGES = (
    ("Staging", 10, True, pb.STAGE_OCCUPANCY_DISPLACING, "Archived"),
    ("Production", 20, True, pb.STAGE_OCCUPANCY_DISPLACING, "Archived"),
    ("Archived", 30, False, pb.STAGE_OCCUPANCY_SHARED, ""),
)


def create(tx: Tx, request: pb.CreateNamespaceRequest) -> pb.CreateNamespaceResponse:
    """Create a namespace. Refuses NAMESPACE_EXISTS."""
    wanted = request.namespace
    if tx.row(sa.select(schema.Namespace).where(schema.Namespace.name == wanted.name)):
        raise errors.RegistryError(
            "NAMESPACE_EXISTS",
            f"namespace {wanted.name!r} exists",
            resource_type="namespace",
            resource_name=wanted.name,
        )
    values = {
        "name": wanted.name,
        "description": wanted.description,
        **quotas.values(wanted),
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Namespace, **values)
    row = SimpleNamespace(**values)
    quotas.settle(tx, wanted.name, row)
    state = messages.namespace(tx, row)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_CREATED, state)
    for name, position, active, occupancy, displace_to in _DEFAULT_STAGES:
        stage_row: dict[str, Any] = {
            "namespace": wanted.name,
            "name": name,
            "description": "",
            "position": position,
            "active": active,
            "occupancy": occupancy,
            "displace_to": displace_to,
            "revision": tx.revision,
            "create_time": tx.time,
            "update_time": tx.time,
        }
        tx.insert(schema.Stage, key=name.casefold(), **stage_row)
        stage = messages.stage(tx, SimpleNamespace(**stage_row))
        history.record_stage(tx, pb.CHANGE_KIND_STAGE_CREATED, stage)
    return pb.CreateNamespaceResponse(namespace=state)


def ensure_default(tx: Tx) -> bool:
    """Create `default` as the log's first event, unless it is there."""
    if tx.row(sa.select(schema.Namespace).where(schema.Namespace.name == DEFAULT)):
        return False
    try:
        create(tx, pb.CreateNamespaceRequest(namespace=pb.Namespace(name=DEFAULT)))
    except errors.RegistryError as error:
        # Another server, starting at the same moment, committed it between two reads.
        raise Again from error
    return True


def get(tx: Tx, request: pb.GetNamespaceRequest) -> pb.GetNamespaceResponse:
    """Return one namespace, with what it holds where a quota limits that.

    How much that is counts also what may not be seen, so only who sees all of it is told.
    """
    row = lookup.namespace(tx, request.name)
    is_told = quotas.limited(row) and tx.rights.view(row.name).whole
    return pb.GetNamespaceResponse(
        namespace=messages.namespace(tx, row),
        usage=quotas.usage(tx, row.name) if is_told else None,
    )


def list_(tx: Tx, request: pb.ListNamespacesRequest) -> pb.ListNamespacesResponse:
    """List namespaces by name."""
    paged = pages.paginate(
        sa.select(schema.Namespace).where(visibility.namespaces(tx)),
        [pages.Key(schema.Namespace.name)],
        token=request.page_token,
        size=request.page_size,
        query=("ListNamespaces",),
    )
    rows, token = paged.split(tx.rows(paged.statement))
    return pb.ListNamespacesResponse(
        namespaces=[messages.namespace(tx, row) for row in rows], next_page_token=token
    )


def update(tx: Tx, request: pb.UpdateNamespaceRequest) -> pb.UpdateNamespaceResponse:
    """Change a namespace's description or quota."""
    paths = limits.mask_paths(request.update_mask, _UPDATABLE)
    row = lookup.namespace_to_change(tx, request.name)
    lookup.expect(request.expected_revision, row.revision, f"namespace {row.name!r}")
    wanted: dict[str, Any] = {}
    for path in paths:
        if path == "description":
            wanted[path] = request.update.description
        elif path == "quota":
            wanted = {**quotas.values(request.update), **wanted}
        else:
            field = path.removeprefix("quota.")
            wanted[field] = getattr(request.update.quota, field)
    if all(getattr(row, name) == value for name, value in wanted.items()):
        return pb.UpdateNamespaceResponse(namespace=messages.namespace(tx, row))
    values = {**wanted, "revision": tx.revision, "update_time": tx.time}
    tx.update(schema.Namespace, {"name": row.name}, **values)
    changed = SimpleNamespace(**{**row._asdict(), **values})
    quotas.settle(tx, row.name, changed)
    state = messages.namespace(tx, changed)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_UPDATED, state)
    return pb.UpdateNamespaceResponse(namespace=state)


def delete(tx: Tx, request: pb.DeleteNamespaceRequest) -> pb.DeleteNamespaceResponse:
    """Delete an empty namespace. Refuses NAMESPACE_PROTECTED and NAMESPACE_NOT_EMPTY."""
    row = lookup.namespace_to_change(tx, request.name)
    lookup.expect(request.expected_revision, row.revision, f"namespace {row.name!r}")
    if row.name == DEFAULT:
        raise errors.precondition(
            "NAMESPACE_PROTECTED", DEFAULT, "namespace 'default' always exists"
        )
    one = sa.select(schema.Model.name).where(schema.Model.namespace == row.name).limit(1)
    if (model := tx.scalar(one)) is not None:
        raise errors.precondition(
            "NAMESPACE_NOT_EMPTY",
            row.name,
            f"namespace {row.name!r} still has models, {model!r} for one; deleted models count, "
            "because their version numbers stay taken",
        )
    state = messages.namespace(tx, row)
    for stage in lookup.stages(tx, row.name).values():
        history.record_stage(tx, pb.CHANGE_KIND_STAGE_DELETED, messages.stage(tx, stage))
    webhooks.forget(tx, row.name)
    # Or they would hold again, of whoever makes a namespace of this name one day.
    grants.forget(tx, row.name)
    tx.delete(schema.Stage, namespace=row.name)
    tx.delete(schema.Name, namespace=row.name)
    tx.delete(schema.NamespaceUsage, namespace=row.name)
    tx.delete(schema.Namespace, name=row.name)
    # After the row that reports hold on to, so that none is written behind these.
    tx.delete(schema.Agent, namespace=row.name)
    tx.delete(schema.Deployment, namespace=row.name)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_DELETED, state)
    return pb.DeleteNamespaceResponse()
