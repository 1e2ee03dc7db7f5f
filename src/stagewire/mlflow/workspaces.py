"""MLflow's workspaces, which are namespaces, and what a server can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stagewire import pb
from stagewire.mlflow import errors
from stagewire.mlflow.calls import Call, takes
from stagewire.mlflow.errors import saying
from stagewire.mlflow.shapes import TEXT

if TYPE_CHECKING:
    from stagewire.mlflow.shapes import Json

HEADER = "X-MLFLOW-WORKSPACE"


@takes()
def server_info(_call: Call) -> Json:
    """Say what clients ask before they name a workspace, or upload in parts."""
    return {
        "store_type": "SqlStore",
        "workspaces_enabled": True,
        "trace_archival_enabled": False,
        "multipart_uploads_enabled": False,
        "multipart_downloads_enabled": False,
        "presigned_upload_run_id_supported": False,
        "presigned_upload_model_id_supported": False,
    }


@takes()
def list_(call: Call) -> Json:
    """List every workspace."""
    rows: list[Json] = []
    token = ""
    while True:
        page = call.registry.ListNamespaces(
            pb.ListNamespacesRequest(page_size=1000, page_token=token), call.caller
        )
        rows += [_shown(found) for found in page.namespaces]
        token = page.next_page_token
        if not token:
            return {"workspaces": rows}


@takes(workspace_name=TEXT.needed)
def get(call: Call) -> Json:
    """Show one workspace."""
    return {"workspace": _shown(found(call, call["workspace_name"]))}


def found(call: Call, name: str) -> pb.Namespace:
    """Look a workspace up, or refuse it in MLflow's words."""
    refusal = errors.absent_workspace(name)
    with saying({"NAMESPACE_NOT_FOUND": refusal, "INVALID_FIELD": refusal}):
        return call.registry.GetNamespace(pb.GetNamespaceRequest(name=name), call.caller).namespace


def _shown(namespace: pb.Namespace) -> Json:
    shown = {"name": namespace.name, "description": namespace.description}
    return {name: text for name, text in shown.items() if text}
