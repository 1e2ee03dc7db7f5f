"""MLflow's API in short: paths without their base, answers as JSON, refusals as code and text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

BASE = "/api/2.0/mlflow/"
SEE_DOCS = " See the API docs for more information about request parameters."

Json = dict[str, Any]
#: HTTP status, MLflow's code, and the text.
Refusal = tuple[int, str, str]


@dataclass(frozen=True)
class Api:
    """Requests to one server."""

    http: httpx.Client

    def send(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Send a request below the API's first base."""
        return self.http.request(method, BASE + path, **given)

    def get(self, path: str, **query: Any) -> Json:
        """Read; it must be answered."""
        return answered(self.send("GET", path, params=query))

    def post(self, path: str, **body: Any) -> Json:
        """Write; it must be answered."""
        return answered(self.send("POST", path, json=body))

    def patch(self, path: str, **body: Any) -> Json:
        """Change; it must be answered."""
        return answered(self.send("PATCH", path, json=body))

    def delete(self, path: str, **body: Any) -> Json:
        """Delete; it must be answered."""
        return answered(self.send("DELETE", path, json=body))

    def refused(self, method: str, path: str, given: Json) -> Refusal:
        """Send what must be refused: as a query where it is a GET, else as a body."""
        sent: Json = {"params": given} if method == "GET" else {"json": given}
        return refusal(self.send(method, path, **sent))

    def model(self, name: str = "churn", **more: Any) -> Json:
        """Register a model."""
        made: Json = self.post("registered-models/create", name=name, **more)["registered_model"]
        return made

    def version(self, name: str = "churn", **more: Any) -> Json:
        """Register a version."""
        given = {"name": name, "source": "s3://models/1", **more}
        made: Json = self.post("model-versions/create", **given)["model_version"]
        return made

    def versions(self, count: int, name: str = "churn") -> list[Json]:
        """Register a model with so many versions."""
        self.model(name)
        return [self.version(name) for _ in range(count)]

    def move(self, version: int, stage: str, name: str = "churn", **more: Any) -> Json:
        """Move a version into a stage, leaving the others where they are unless told."""
        given = {"archive_existing_versions": False, **more}
        moved: Json = self.post(
            "model-versions/transition-stage",
            name=name,
            version=str(version),
            stage=stage,
            **given,
        )["model_version"]
        return moved

    def stages(self, name: str = "churn") -> dict[str, str]:
        """Tell the stage of each version."""
        found = self.get("model-versions/search", filter=f"name = '{name}'")
        return {v["version"]: v["current_stage"] for v in found.get("model_versions", ())}


def answered(response: httpx.Response) -> Json:
    """Give an answer's JSON."""
    assert response.status_code == 200, response.text
    found: Json = response.json()
    return found


def refusal(response: httpx.Response) -> Refusal:
    """Give a refusal's status, code and text."""
    body = response.json()
    assert set(body) == {"error_code", "message"}, body
    return response.status_code, body["error_code"], body["message"]


def invalid(text: str) -> Refusal:
    """Say how a mistake of the caller's is refused."""
    return 400, "INVALID_PARAMETER_VALUE", text


def absent(text: str) -> Refusal:
    """Say how something that is not there is refused."""
    return 404, "RESOURCE_DOES_NOT_EXIST", text


def exists(text: str) -> Refusal:
    """Say how something that is there already is refused."""
    return 400, "RESOURCE_ALREADY_EXISTS", text
