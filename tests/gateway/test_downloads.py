"""Where logged models and files are, the tracking server knows: asked as the caller."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, Response

from tests.gateway.apis import Api
from tests.gateway.upstreams import Tracking, running
from tests.servers import RunningServer

LOGGED = "/api/2.0/mlflow/logged-models/m-1"
RUN = "/api/2.0/mlflow/runs/get"
GET = "/model-versions/get-artifact"


@pytest.fixture
def tracking() -> Iterator[Tracking]:
    with running(Tracking()) as served:
        yield served


@pytest.fixture
def api(tracking: Tracking, sqlite_url: str) -> Iterator[Api]:
    with (
        RunningServer(sqlite_url, upstream_tracking_uri=tracking.url) as server,
        httpx.Client(base_url=server.http_url, timeout=30) as http,
    ):
        made = Api(http)
        made.model()
        yield made


def logged(**info: Any) -> JSONResponse:
    return JSONResponse({"model": {"info": info}})


def create(api: Api, **more: Any) -> httpx.Response:
    return api.http.post(
        "/api/2.0/mlflow/model-versions/create",
        json={"name": "churn", "source": "models:/m-1", "model_id": "m-1", **more},
        headers={b"authorization": b"Bearer mine", b"x-name": "Jörg".encode("latin-1")},
    )


def file(api: Api, path: str = "a/MLmodel", version: str = "1") -> httpx.Response:
    return api.http.get(GET, params={"name": "churn", "version": version, "path": path})


def targets(tracking: Tracking) -> list[str]:
    return [(s["raw_path"] + b"?" + s["query_string"]).decode() for s in tracking.asked]


def test_a_logged_models_files_and_run_are_found(api: Api, tracking: Tracking) -> None:
    tracking.answers[LOGGED] = logged(artifact_uri="s3://b/m-1/artifacts", source_run_id="r1")
    made = create(api).json()["model_version"]
    assert (made["source"], made["run_id"]) == ("models:/m-1", "r1")
    at = api.get("model-versions/get-download-uri", name="churn", version="1")
    assert at == {"artifact_uri": "s3://b/m-1/artifacts"}
    (asked,) = tracking.asked
    headers = dict(asked["headers"])
    assert headers[b"authorization"] == b"Bearer mine"
    assert headers[b"x-name"] == "Jörg".encode("latin-1")
    assert headers[b"host"].decode() == tracking.url.removeprefix("http://")
    assert b"content-length" not in headers
    assert b"content-type" not in headers


def test_a_run_that_is_given_is_kept(api: Api, tracking: Tracking) -> None:
    tracking.answers[LOGGED] = logged(artifact_uri="s3://b/m-1/artifacts", source_run_id="r1")
    assert create(api, run_id="r2").json()["model_version"]["run_id"] == "r2"


@pytest.mark.parametrize(
    ("answered", "status", "why"),
    [
        (
            JSONResponse({"message": "Logged model with ID 'm-1' not found."}, 404),
            400,
            "Logged model with ID 'm-1' not found.",
        ),
        (JSONResponse({"message": "who?"}, 401), 400, "who?"),
        (Response("<html>", 302), 400, "upstream_tracking_uri answered 302."),
        (Response("<html>", 200), 400, "upstream_tracking_uri answered 200."),
        (JSONResponse({"model": {}}), 400, "upstream_tracking_uri does not say where it is."),
        (JSONResponse([1]), 400, "upstream_tracking_uri does not say where it is."),
        (logged(artifact_uri=5), 400, "upstream_tracking_uri does not say where it is."),
        (JSONResponse({"message": "busy"}, 503), 503, "busy"),
        (JSONResponse({"message": "slow down"}, 429), 503, "slow down"),
        (Response(b"[" * 2_000_000), 400, "upstream_tracking_uri answered 200."),
    ],
)
def test_a_logged_model_that_is_not_found_makes_no_version(
    api: Api, tracking: Tracking, answered: Response, status: int, why: str
) -> None:
    tracking.answers[LOGGED] = answered
    found = create(api)
    code = "INVALID_PARAMETER_VALUE" if status == 400 else "TEMPORARILY_UNAVAILABLE"
    assert (found.status_code, found.json()) == (
        status,
        {
            "error_code": code,
            "message": "Unable to fetch model from model URI source artifact location "
            f"'models:/m-1'.Error: {why}",
        },
    )
    assert api.get("model-versions/search") == {}


@pytest.mark.parametrize("source", ["models:/m-\ud800", "models:/m-é/../x", "models:/m-1?x#y"])
def test_a_logged_model_of_any_name_is_only_asked_for(
    api: Api, tracking: Tracking, source: str
) -> None:
    body = json.dumps({"name": "churn", "source": source})
    found = api.http.post(
        "/api/2.0/mlflow/model-versions/create",
        content=body,
        headers={"content-type": "application/json"},
    )
    assert (found.status_code, found.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    start = "/api/2.0/mlflow/logged-models/m-"
    assert all(t.startswith(start) and t.count("/") == 5 for t in targets(tracking))


def test_a_tracking_server_that_is_down_is_no_mistake_of_the_callers(sqlite_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with (
        RunningServer(sqlite_url, upstream_tracking_uri=uri) as server,
        httpx.Client(base_url=server.http_url, timeout=30) as http,
    ):
        api = Api(http)
        api.model()
        found = create(api)
        plain = api.version()
    assert found.status_code == 503
    assert "'models:/m-1'.Error: The tracking server" in found.json()["message"]
    assert plain["version"] == "1"


def test_proxied_files_are_fetched_from_the_tracking_server(api: Api, tracking: Tracking) -> None:
    api.version(source="mlflow-artifacts:/1/r 1/artifacts/model")
    tracking.answers["/api/2.0/mlflow-artifacts/artifacts/1/r 1/artifacts/model/a/ü.txt"] = (
        Response(b"it", headers={"content-disposition": "attachment"})
    )
    found = file(api, "a/ü.txt")
    assert (found.status_code, found.content) == (200, b"it")
    assert found.headers["content-disposition"] == "attachment"
    assert targets(tracking) == [
        "/api/2.0/mlflow-artifacts/artifacts/1/r%201/artifacts/model/a/%C3%BC.txt?"
    ]


def test_files_of_a_logged_model_and_of_a_run_are_fetched_by_them(
    api: Api, tracking: Tracking
) -> None:
    tracking.answers[LOGGED] = logged(artifact_uri="s3://b/m-1/artifacts", source_run_id="r1")
    tracking.answers[RUN] = JSONResponse({"run": {"info": {"artifact_uri": "s3://b/r1/artifacts"}}})
    create(api)
    api.version(source="s3://b/r1/artifacts/model x", run_id="r1")
    tracking.asked.clear()
    assert file(api).status_code == 200
    assert file(api, version="2").status_code == 200
    assert targets(tracking) == [
        f"{LOGGED}?",
        "/ajax-api/2.0/mlflow/logged-models/m-1/artifacts/files?artifact_file_path=a%2FMLmodel",
        f"{RUN}?run_id=r1",
        "/get-artifact?run_id=r1&path=model%20x%2Fa%2FMLmodel",
    ]


def test_files_that_lie_elsewhere_are_not_fetched(api: Api, tracking: Tracking) -> None:
    tracking.answers[RUN] = JSONResponse({"run": {"info": {"artifact_uri": "s3://b/r1/artifacts"}}})
    for number, source in enumerate(
        ["s3://b/r1/artifacts-of-another", "s3://other", "mlflow-artifacts://elsewhere:5000/1"], 1
    ):
        api.version(source=source, run_id="r1")
        found = file(api, version=str(number))
        assert (found.status_code, found.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
        assert source in found.json()["message"]
    assert all(target.startswith(RUN) for target in targets(tracking))


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "a/%2e%2e/x", "a/%252e%252e/x", "/etc/passwd", "C:/x", "a\\..\\x", "a\0"],
)
def test_a_path_leads_down(api: Api, tracking: Tracking, path: str) -> None:
    api.version(source="mlflow-artifacts:/1/model")
    found = file(api, path)
    assert (found.status_code, found.json()["message"]) == (400, f"Invalid path: {path}")
    assert tracking.asked == []


def test_without_a_tracking_server_the_refusal_names_the_setting(sqlite_url: str) -> None:
    with (
        RunningServer(sqlite_url) as server,
        httpx.Client(base_url=server.http_url, timeout=30) as http,
    ):
        api = Api(http)
        api.model()
        api.version(source="mlflow-artifacts:/1/model")
        found = file(api)
        absent = file(api, version="2")
    assert (found.status_code, found.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert "--upstream-tracking-uri" in found.json()["message"]
    assert (absent.status_code, absent.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
