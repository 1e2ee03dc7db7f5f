"""The plugin that makes `stagewire://HOST:PORT` an address of MLflow's registry: gRPC, no HTTP.

`stagewire+tls://HOST:PORT` is the same by TLS.

Above the wire it is MLflow's own REST store, below it are the endpoints that the gateway serves,
run in this process on the SDK. So requests, answers and refusals are the same either way.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from mlflow.exceptions import MlflowException, RestException
from mlflow.store.model_registry.rest_store import RestStore
from mlflow.tracking import MlflowClient
from mlflow.utils.proto_json_utils import parse_dict

from stagewire.client import Client
from stagewire.errors import RegistryError
from stagewire.mlflow import errors, shapes
from stagewire.mlflow.calls import Call, LoggedModel
from stagewire.mlflow.remotes import Remote, Self
from stagewire.mlflow.routes import ROUTES
from stagewire.mlflow.searches import Listing

try:
    from mlflow.utils.workspace_context import get_request_workspace
except ImportError:
    # Releases before 3.10 have no workspaces.
    def get_request_workspace() -> str | None:
        """Name no workspace."""
        return None


if TYPE_CHECKING:
    from collections.abc import Mapping

    from stagewire.mlflow.shapes import Json

SCHEME = "stagewire"
#: How the SDK spells what stands before a server's address in a registry URI.
_SCHEMES = {SCHEME: "", f"{SCHEME}+tls": "grpcs://"}
#: Whoever has a token for a tracking server has no reason to name it twice.
_FALL_BACK = "MLFLOW_TRACKING_TOKEN"
_OWN_TOKENS = ("STAGEWIRE_TOKEN", "STAGEWIRE_TOKEN_FILE")
_BASE = "/api/2.0/mlflow"
_ENDPOINTS = {(route.method, route.path): route.endpoint for route in ROUTES}


class StagewireStore(RestStore):  # type: ignore[misc]  # MLflow's own methods have no types
    """MLflow's registry store at `stagewire://HOST:PORT`, for any number of threads.

    `?namespace=NAME` names the namespace of every call; without it MLflow's active workspace does,
    else it is `default`. The connection is made with the first call, and anew after a fork; the
    environment says the rest of it as it does for the SDK, and without a token of ours
    MLFLOW_TRACKING_TOKEN is the token.
    """

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        """Read the address. Refuses a URI that names no server."""
        super().__init__(_no_credentials)
        self._given = (store_uri, tracking_uri)
        self._address, self._namespace = _parsed(store_uri)
        self._tracking = _Tracking(tracking_uri)
        self._connected: tuple[int, Remote] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the address: connections stay where they are."""
        return type(self), self._given

    @property
    def supports_workspaces(self) -> bool:
        """Tell MLflow that workspaces are there: they are namespaces."""
        return True

    def _call_endpoint(self, api: Any, json_body: str | None, *_: Any, **__: Any) -> Any:
        """Answer a call of the registry's here instead of sending it."""
        path, method = self._get_endpoint_from_method(api)
        return self._respond(api, method, path, json.loads(json_body or "{}"))

    def _call_webhook_endpoint(
        self, api: Any, json_body: str | None = None, webhook_id: str | None = None
    ) -> Any:
        """Answer a call about webhooks here instead of sending it."""
        path, method = self._get_webhook_endpoint_from_method(api)
        given = json.loads(json_body or "{}")
        return self._respond(api, method, path, {**given, "webhook_id": webhook_id})

    def _respond(self, api: Any, method: str, path: str, given: Json) -> Any:
        try:
            answer = self._work(method, path, given)
        except errors.MlflowError as refusal:
            raise _raised(refusal) from refusal
        except RegistryError as refusal:
            raise _raised(errors.translated(refusal)) from refusal
        response = self._get_response_from_method(api)
        parse_dict(answer, response)
        return response

    def _work(self, method: str, path: str, given: Json) -> Json:
        """Do what the server would do with this request."""
        endpoint = _ENDPOINTS.get((method, path.removeprefix(_BASE)))
        if endpoint is None:
            raise errors.MlflowError("ENDPOINT_NOT_FOUND", f"There is no {method} {path} here.")
        namespace = self._namespace or get_request_workspace() or ""
        call = Call(
            registry=self._registry(),
            caller=Self(),
            namespace=namespace,
            # The client gives every write one of its own.
            request_id="",
            fields=shapes.fields(endpoint.shape, given),
            headers={},
            upstream=self._tracking,
        )
        with errors.saying({"NAMESPACE_NOT_FOUND": errors.absent_workspace(namespace)}):
            # No `Forward`: what a tracking server answers is asked of that one.
            answer: Any = endpoint.work(call)
            found: Json = answer.whole() if isinstance(answer, Listing) else answer
            return found

    def _registry(self) -> Remote:
        """Connect, unless this process has."""
        connected = self._connected
        if connected is None or connected[0] != os.getpid():
            connected = self._connected = os.getpid(), Remote(_connect(self._address))
        return connected[1]


class _Tracking:
    """The tracking server that this process uses."""

    def __init__(self, uri: str | None) -> None:
        self._uri = uri

    def logged_model(self, model_id: str, _headers: Mapping[str, str]) -> LoggedModel:
        """Ask where a logged model's files are; without an answer the URI that names it stays."""
        try:
            found = MlflowClient(tracking_uri=self._uri).get_logged_model(model_id)
        except (MlflowException, AttributeError):
            # AttributeError: releases before 3 have no logged models.
            return LoggedModel("", "")
        return LoggedModel(found.artifact_location, found.source_run_id or "")


def _raised(refusal: errors.MlflowError) -> MlflowException:
    return RestException({"error_code": refusal.code, "message": refusal.message})


def _connect(address: str) -> Client:
    token = None if any(map(os.environ.get, _OWN_TOKENS)) else os.environ.get(_FALL_BACK)
    try:
        return Client(address, token=token)
    except (OSError, ValueError) as error:
        raise MlflowException.invalid_parameter_value(str(error)) from error


def _parsed(uri: str) -> tuple[str, str]:
    """Read the server's address and the namespace out of a registry URI."""
    parts = urlsplit(uri)
    options = parse_qs(parts.query, keep_blank_values=True)
    namespaces = options.pop("namespace", [""])
    if not parts.netloc or parts.path.strip("/") or options or len(namespaces) > 1:
        message = (
            f"Registry URI '{uri}' can't be read; write {SCHEME}://HOST:PORT or "
            f"{SCHEME}://HOST:PORT?namespace=NAME, and {SCHEME}+tls:// for TLS"
        )
        raise MlflowException.invalid_parameter_value(message)
    return _SCHEMES.get(parts.scheme, "") + parts.netloc, namespaces[0]


def _no_credentials() -> Any:
    """Refuse what would go round the plugin."""
    message = f"a registry at {SCHEME}:// is not reached over HTTP"
    raise MlflowException(message)
