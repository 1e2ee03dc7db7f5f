"""The table of contents: every endpoint, one line each.

A route under `MLFLOW` is served below each of that API's bases, one under `SERVER` below the
newer ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stagewire.mlflow import models, searches, versions, webhooks, workspaces

if TYPE_CHECKING:
    from stagewire.mlflow.calls import Endpoint

#: Clients, MLflow's own web pages, and clients from before MLflow 1.0.
MLFLOW = (
    "/api/2.0/mlflow",
    "/ajax-api/2.0/mlflow",
    "/api/2.0/preview/mlflow",
    "/ajax-api/2.0/preview/mlflow",
)
#: Of those pages, what a browser fetches by itself.
WEB = ("",)
SERVER = ("/api/3.0/mlflow", "/ajax-api/3.0/mlflow")


class Route(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    endpoint: Endpoint
    bases: tuple[str, ...] = MLFLOW
    #: Whether the workspace named by the header is looked up first.
    in_workspace: bool = True


ROUTES: tuple[Route, ...] = (
    Route("POST", "/registered-models/create", models.create),
    Route("POST", "/registered-models/rename", models.rename),
    Route("PATCH", "/registered-models/update", models.update),
    Route("DELETE", "/registered-models/delete", models.delete),
    Route("GET", "/registered-models/get", models.get),
    Route("GET", "/registered-models/search", searches.search_models),
    Route("GET", "/registered-models/list", searches.list_models),
    Route("POST", "/registered-models/get-latest-versions", models.latest_versions),
    Route("GET", "/registered-models/get-latest-versions", models.latest_versions),
    Route("POST", "/registered-models/set-tag", models.set_tag),
    Route("DELETE", "/registered-models/delete-tag", models.delete_tag),
    Route("POST", "/registered-models/alias", models.set_alias),
    Route("DELETE", "/registered-models/alias", models.delete_alias),
    Route("GET", "/registered-models/alias", models.get_by_alias),
    Route("POST", "/model-versions/create", versions.create),
    Route("PATCH", "/model-versions/update", versions.update),
    Route("POST", "/model-versions/transition-stage", versions.transition),
    Route("DELETE", "/model-versions/delete", versions.delete),
    Route("GET", "/model-versions/get", versions.get),
    Route("GET", "/model-versions/search", searches.search_versions),
    Route("GET", "/model-versions/get-download-uri", versions.download_uri),
    Route("POST", "/model-versions/set-tag", versions.set_tag),
    Route("DELETE", "/model-versions/delete-tag", versions.delete_tag),
    Route("POST", "/webhooks", webhooks.create),
    Route("GET", "/webhooks", webhooks.list_),
    Route("GET", "/webhooks/{webhook_id}", webhooks.get),
    Route("PATCH", "/webhooks/{webhook_id}", webhooks.update),
    Route("DELETE", "/webhooks/{webhook_id}", webhooks.delete),
    Route("POST", "/webhooks/{webhook_id}/test", webhooks.test),
    Route("GET", "/server-info", workspaces.server_info, SERVER, in_workspace=False),
    Route("GET", "/workspaces", workspaces.list_, SERVER, in_workspace=False),
    Route("GET", "/workspaces/{workspace_name}", workspaces.get, SERVER, in_workspace=False),
)
