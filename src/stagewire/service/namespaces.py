"""Namespaces: whose registry. A new one gets the default stages, as MLflow names them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stagewire import errors, pb
from stagewire.service import history, messages, webhooks
from stagewire.store import lookup, pages, schema, visibility
from stagewire.store.transactions import Again

if TYPE_CHECKING:
    from stagewire.store.transactions import Tx

DEFAULT = "default"

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
        "revision": tx.revision,
        "create_time": tx.time,
        "update_time": tx.time,
    }
    tx.insert(schema.Namespace, **values)
    state = pb.Namespace(name=wanted.name, description=wanted.description)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_CREATED, state)
    for name, position, active, occupancy, displace_to in _DEFAULT_STAGES:
        row: dict[str, Any] = {
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
        tx.insert(schema.Stage, key=name.casefold(), **row)
        stage = messages.stage(tx, SimpleNamespace(**row))
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
    """Return one namespace."""
    row = lookup.namespace(tx, request.name)
    return pb.GetNamespaceResponse(namespace=messages.namespace(tx, row))


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
    tx.delete(schema.Stage, namespace=row.name)
    tx.delete(schema.Name, namespace=row.name)
    tx.delete(schema.Namespace, name=row.name)
    # After the row that reports hold on to, so that none is written behind these.
    tx.delete(schema.Agent, namespace=row.name)
    tx.delete(schema.Deployment, namespace=row.name)
    history.record_namespace(tx, pb.CHANGE_KIND_NAMESPACE_DELETED, state)
    return pb.DeleteNamespaceResponse()
