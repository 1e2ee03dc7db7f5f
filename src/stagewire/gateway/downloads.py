"""A version's files for MLflow's web pages: found by the registry, sent by the tracking server."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from stagewire.gateway import upstream
from stagewire.mlflow import versions
from stagewire.mlflow.calls import Call, Forward, takes
from stagewire.mlflow.errors import MlflowError, invalid
from stagewire.mlflow.shapes import TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stagewire import pb
    from stagewire.gateway.upstream import Upstream

_PROXIED = "mlflow-artifacts"


@takes(name=TEXT.needed, version=TEXT.needed, path=TEXT.needed)
def artifact(call: Call) -> Forward:
    """Say where the tracking server has one file of a version."""
    path = call["path"]
    if not _is_safe(path):
        raise invalid(f"Invalid path: {path}")
    version = versions.find(call)
    uri = version.storage_uri or version.source
    server = call.upstream
    if not isinstance(server, upstream.Upstream):
        raise invalid(
            f"The registry has no files: those of version {version.version} are at {uri}. To have "
            f"them served here, set {upstream.SETTING} ({upstream.OPTION}) to a tracking server "
            "that serves them."
        )
    for target in _targets(server, version, uri, path, call.headers):
        return Forward(target.encode())
    raise invalid(
        f"The files of version {version.version} are at {uri}, which the tracking server that "
        f"{upstream.SETTING} names does not serve; download them from there."
    )


def _targets(
    server: Upstream, version: pb.ModelVersion, uri: str, path: str, headers: Mapping[str, str]
) -> Iterator[str]:
    """Give the places where the tracking server may have the file, best first."""
    parts = urlsplit(uri)
    if parts.scheme == _PROXIED:
        if parts.netloc in ("", server.authority):
            yield "/api/2.0/mlflow-artifacts/artifacts/" + quote(
                f"{unquote(parts.path).strip('/')}/{path}"
            )
        return
    if model_id := version.lineage.logged_model_id:
        root = _answered(server, f"/api/2.0/mlflow/logged-models/{_named(model_id)}", headers)
        if (below := _below(root.get("model"), uri)) is not None:
            yield (
                f"/ajax-api/2.0/mlflow/logged-models/{_named(model_id)}/artifacts/files"
                f"?artifact_file_path={_named(below + path)}"
            )
    if run_id := version.lineage.run_id:
        root = _answered(server, f"/api/2.0/mlflow/runs/get?run_id={_named(run_id)}", headers)
        if (below := _below(root.get("run"), uri)) is not None:
            yield f"/get-artifact?run_id={_named(run_id)}&path={_named(below + path)}"


def _answered(server: Upstream, question: str, headers: Mapping[str, str]) -> dict[str, object]:
    """Ask about what may not be there any more; that is an answer, too."""
    try:
        answer = server.ask(question, headers)
    except MlflowError as error:
        if error.code == upstream.UNAVAILABLE:
            raise
        return {}
    return answer if isinstance(answer, dict) else {}


def _below(found: object, uri: str) -> str | None:
    """Return the folder in which a URI lies below what was found, '' for itself."""
    info = found.get("info") if isinstance(found, dict) else None
    root = info.get("artifact_uri") if isinstance(info, dict) else None
    if not isinstance(root, str) or not root:
        return None
    root = root.rstrip("/")
    if uri.rstrip("/") == root:
        return ""
    return f"{uri.removeprefix(root).strip('/')}/" if uri.startswith(f"{root}/") else None


def _named(text: str) -> str:
    return quote(text, safe="")


def _is_safe(path: str) -> bool:
    """Tell whether a path leads down from where it begins, however often it is decoded."""
    while True:
        if (
            path.startswith("/")
            or any(part in {"..", "."} for part in path.split("/"))
            or not {"\\", "\0", "#", "?", ":"}.isdisjoint(path)
        ):
            return False
        decoded = unquote(path)
        if decoded == path:
            return True
        path = decoded
