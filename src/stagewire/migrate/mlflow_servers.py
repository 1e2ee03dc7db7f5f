"""MLflow over its REST API, as a source and as a target; nothing of MLflow needs to be installed.

Credentials are those of MLflow's own clients: MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN.
"""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Any

import httpx
import tenacity

from stagewire.migrate.mlflow import DEFAULT_WORKSPACE, Finding, Model, Unreadable, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKSPACE = "X-MLFLOW-WORKSPACE"
_PROMPTS = "tag.`mlflow.prompt.is_prompt` = 'true'"
_MODELS = 1000
_VERSIONS = 10_000
_NOT_FOUND = 404
_AGAIN = {429, 500, 502, 503, 504}
_ATTEMPTS = 5


class Refused(ValueError):
    """MLflow refused a call; the text is its own."""

    def __init__(self, code: str, message: str) -> None:
        """Keep MLflow's error code."""
        self.code = code
        super().__init__(f"{code}: {message}")


class _Again(Exception):
    """The server is not able just now."""


class Server:
    """One MLflow server."""

    def __init__(self, url: str, *, workspace: str = "") -> None:
        """Prepare; nothing is asked yet."""
        user = os.environ.get("MLFLOW_TRACKING_USERNAME")
        token = os.environ.get("MLFLOW_TRACKING_TOKEN")
        headers = {WORKSPACE: workspace} if workspace else {}
        auth = None
        if user is not None:
            auth = httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        elif token:
            headers["Authorization"] = f"Bearer {token}"
        self.url = url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.url, auth=auth, headers=headers, timeout=httpx.Timeout(60.0, connect=10.0)
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, *, api: str = "2.0", **parameters: Any) -> Any:
        """Ask something, again where it failed for a moment. Raises Refused, Unreadable."""
        given = {name: value for name, value in parameters.items() if value not in (None, "")}
        return self._repeated("GET", path, api, params=given)

    def change(self, method: str, path: str, **body: Any) -> Any:
        """Change what may be changed twice, again where it failed for a moment."""
        return self._repeated(method, path, "2.0", json=body)

    def create(self, path: str, **body: Any) -> Any:
        """Create something, once: what failed half-way may be there."""
        try:
            return self._call("POST", path, "2.0", json=body)
        except (_Again, httpx.TransportError) as error:
            raise _unreachable(self.url, error) from None

    def _repeated(self, method: str, path: str, api: str, **content: Any) -> Any:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((_Again, httpx.TransportError)),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        try:
            return retrying(self._call, method, path, api, **content)
        except (_Again, httpx.TransportError) as error:
            raise _unreachable(self.url, error) from None

    def _call(self, method: str, path: str, api: str, **content: Any) -> Any:
        answer = self._http.request(method, f"/api/{api}/mlflow/{path}", **content)
        if answer.is_success:
            try:
                return answer.json() if answer.content else {}
            except ValueError:
                message = (
                    f"{self.url} answers, but not as MLflow's REST API does; check the address"
                )
                raise Unreadable(message) from None
        try:
            said = answer.json()
            code, text = said["error_code"], said.get("message", "")
        except (ValueError, KeyError, TypeError):
            code, text = f"HTTP {answer.status_code}", answer.text[:200]
        if answer.status_code in _AGAIN:
            message = f"{code}: {text}"
            raise _Again(message)
        raise Refused(code, text)


def _unreachable(url: str, error: Exception) -> Unreadable:
    return Unreadable(
        f"MLflow at {url} does not answer as it should: {str(error) or type(error).__name__}"
    )


class Registry:
    """A source of models and versions over REST."""

    def __init__(self, url: str) -> None:
        """Prepare."""
        self.url = url
        self._servers: dict[str, Server] = {}
        self._models: dict[str, dict[str, Model]] = {}

    def close(self) -> None:
        """Close the connections."""
        for server in self._servers.values():
            server.close()

    def _server(self, workspace: str) -> Server:
        if workspace not in self._servers:
            named = "" if workspace == DEFAULT_WORKSPACE else workspace
            self._servers[workspace] = Server(self.url, workspace=named)
        return self._servers[workspace]

    def workspaces(self) -> list[str]:
        """Name the workspaces, where the server has them."""
        server = self._server(DEFAULT_WORKSPACE)
        try:
            if not server.get("server-info", api="3.0").get("workspaces_enabled"):
                return [DEFAULT_WORKSPACE]
            found = server.get("workspaces", api="3.0").get("workspaces", [])
        except Refused:
            return [DEFAULT_WORKSPACE]
        return sorted(one["name"] for one in found) or [DEFAULT_WORKSPACE]

    def count(self, _workspace: str) -> int:
        """Give 0: the REST API does not count."""
        return 0

    def remarks(self) -> list[Finding]:
        """Say what the REST API does not tell."""
        return [
            Finding(
                "deleted versions",
                "",
                "the REST API does not show them: a number above the highest shown is given again",
                "import from MLflow's database, if versions were deleted at a model's end",
            )
        ]

    def born(self, workspace: str) -> dict[str, int | None]:
        """Give the moment of each model's creation by its name."""
        return {name: model.creation_time for name, model in self._named(workspace).items()}

    def _named(self, workspace: str) -> dict[str, Model]:
        if workspace not in self._models:
            server = self._server(workspace)
            models = self._models.setdefault(workspace, {})
            # Newer servers hide prompts from those who do not ask for them; older ones show all.
            for filter_ in ("", _PROMPTS):
                pages = _pages(server, "registered-models", _MODELS, filter_)
                for found in pages:
                    models.setdefault(found["name"], _model(workspace, found))
        return self._models[workspace]

    def models(self, workspace: str) -> Iterator[tuple[Model, list[Version]]]:
        """Read each model with all its versions."""
        server, models = self._server(workspace), self._named(workspace)
        done: set[str] = set()
        for filter_ in ("", _PROMPTS):
            order = ["name ASC", "version_number ASC"]
            rows = _pages(server, "model-versions", _VERSIONS, filter_, order_by=order)
            for name, group in groupby(rows, key=lambda row: row["name"]):
                versions = {int(row["version"]): _version(server, row) for row in group}
                if name in models and name not in done:
                    done.add(name)
                    yield models[name], [versions[number] for number in sorted(versions)]
        for name, model in models.items():
            if name not in done:
                yield model, []


def _pages(server: Server, noun: str, size: int, filter_: str, **more: Any) -> Iterator[Any]:
    """Give everything that a search finds."""
    token = ""
    while True:
        given = {"max_results": size, "page_token": token, "filter": filter_, **more}
        answer = server.get(f"{noun}/search", **given)
        yield from answer.get(noun.replace("-", "_"), ())
        token = answer.get("next_page_token", "")
        if not token:
            return


def _model(workspace: str, found: Any) -> Model:
    return Model(
        workspace,
        found["name"],
        creation_time=_int(found.get("creation_timestamp")),
        last_updated_time=_int(found.get("last_updated_timestamp")),
        description=found.get("description", ""),
        user_id=found.get("user_id", ""),
        tags={tag["key"]: tag.get("value", "") for tag in found.get("tags", ())},
        aliases={a["alias"]: int(a["version"]) for a in found.get("aliases", ())},
    )


def _version(server: Server, found: Any) -> Version:
    source = found.get("source", "")
    location = ""
    if source.startswith(("models:/", "runs:/")):
        # Only here is it another one than the source.
        place = {"name": found["name"], "version": found["version"]}
        try:
            location = server.get("model-versions/get-download-uri", **place)["artifact_uri"]
        except (Refused, Unreadable, KeyError):
            location = ""
    return Version(
        int(found["version"]),
        creation_time=_int(found.get("creation_timestamp")),
        last_updated_time=_int(found.get("last_updated_timestamp")),
        description=found.get("description", ""),
        user_id=found.get("user_id", ""),
        stage=found.get("current_stage", "None"),
        source=source,
        storage_location=location,
        run_id=found.get("run_id", ""),
        run_link=found.get("run_link", ""),
        status=found.get("status", "READY"),
        status_message=found.get("status_message", ""),
        tags={tag["key"]: tag.get("value", "") for tag in found.get("tags", ())},
    )


def _int(value: Any) -> int | None:
    return None if value is None else int(value)
