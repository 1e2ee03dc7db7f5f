"""What goes over the wire, whatever client sends it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.gateway.apis import BASE
from tests.mlflow.clients.apis import SEE_DOCS, Api

CREATE = "registered-models/create"
JSON = {"content-type": "application/json"}


def raw(api: Api, body: bytes | str, path: str = CREATE, **headers: str) -> httpx.Response:
    return api.send("POST", path, content=body, headers={**JSON, **headers})


@pytest.mark.parametrize("base", ["/api/2.0", "/ajax-api/2.0"])
def test_every_base_answers_alike(api: Api, model: str, base: str) -> None:
    path = f"{base}/mlflow/registered-models/get"

    answer = api.http.get(path, params={"name": model})

    assert answer.json() == api.get("registered-models/get", name=model)


@pytest.mark.parametrize("base", ["/api/2.0", "/ajax-api/2.0"])
def test_the_paths_of_the_first_clients_are_still_there(api: Api, model: str, base: str) -> None:
    path = f"{base}/preview/mlflow/registered-models/get"

    answer = api.http.get(path, params={"name": model})

    assert answer.json() == api.get("registered-models/get", name=model)


def test_numbers_are_numbers_and_versions_are_texts(api: Api, name: str) -> None:
    api.model(name)
    made = api.version(name)

    assert isinstance(made["creation_timestamp"], int)
    assert made["creation_timestamp"] > 1_500_000_000_000
    assert made["version"] == "1"


def test_what_is_not_set_is_left_out(api: Api, name: str) -> None:
    model = api.model(name)
    version = api.version(name)

    assert set(model) == {"name", "creation_timestamp", "last_updated_timestamp"}
    assert set(version) == {
        "name",
        "version",
        "creation_timestamp",
        "last_updated_timestamp",
        "current_stage",
        "source",
        "status",
    } | ({"run_id", "run_link", "description"} & set(version))
    assert not any(version.get(field) for field in ("run_id", "run_link", "description"))


def test_fields_may_be_spelled_as_javascript_does(api: Api, model: str) -> None:
    made = api.version(model, runId="r1", runLink="https://runs/r1")

    assert (made["run_id"], made["run_link"]) == ("r1", "https://runs/r1")


def test_required_fields_may_be_spelled_so_too(api: Api, model: str, other: str) -> None:
    assert api.post("registered-models/rename", name=model, newName=other)


def test_one_field_is_not_spelled_twice(api: Api, model: str) -> None:
    given = {"name": model, "new_name": "x", "newName": "y"}

    status, code, _ = api.refused("POST", "registered-models/rename", given)

    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")


def test_unknown_fields_are_ignored(api: Api, name: str) -> None:
    assert api.model(name, colour={"deep": [1, 2]})


def test_a_body_encoded_twice_is_decoded_twice(api: Api, name: str) -> None:
    answer = raw(api, json.dumps(json.dumps({"name": name})))

    assert answer.json()["registered_model"]["name"] == name


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_every_write_has_a_body(api: Api, model: str, method: str) -> None:
    path = "registered-models/update" if method == "PATCH" else "registered-models/delete"

    assert api.send(method, path, json={"name": model}).status_code == 200


@pytest.mark.parametrize(
    ("given", "parameter", "shown", "kind"),
    [
        ({"name": 5}, "name", "5", "int"),
        ({"name": ["a"]}, "name", '["a"]', "list"),
        ({"name": True}, "name", "true", "bool"),
        ({"name": {"a": 1}}, "name", '{"a":1}', "dict"),
        ({"name": "x", "description": 1.5}, "description", "1.5", "float"),
        ({"name": "x", "tags": {}}, "tags", "{}", "dict"),
        ({"name": "x", "tags": "a"}, "tags", '"a"', "str"),
    ],
)
def test_a_value_of_another_type_is_named(
    api: Api, given: dict[str, Any], parameter: str, shown: str, kind: str
) -> None:
    hint = f" Hint: Value was of type '{kind}'.{SEE_DOCS}"
    text = f"Invalid value {shown} for parameter '{parameter}' supplied: {hint}"

    assert api.refused("POST", CREATE, given) == (400, "INVALID_PARAMETER_VALUE", text)


def test_a_version_is_a_text_and_a_flag_a_flag(api: Api, two: str) -> None:
    path = "model-versions/transition-stage"
    given = {"name": two, "version": 1, "stage": "Staging", "archive_existing_versions": False}
    text = "Invalid value {} for parameter '{}' supplied:  Hint: Value was of type '{}'." + SEE_DOCS

    number = api.refused("POST", path, given)
    flag = api.refused("POST", path, {**given, "version": "1", "archive_existing_versions": "yes"})

    assert number[2] == text.format("1", "version", "int")
    assert flag[2] == text.format('"yes"', "archive_existing_versions", "str")


def test_a_refusal_has_a_code_and_a_text(api: Api, name: str) -> None:
    answer = api.send("GET", "registered-models/get", params={"name": name})

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/json")
    assert {field: answer.json()[field] for field in ("error_code", "message")} == {
        "error_code": "RESOURCE_DOES_NOT_EXIST",
        "message": f"Registered Model with name={name} not found",
    }


def test_what_exists_already_is_answered_with_400(api: Api, model: str) -> None:
    status, code, _ = api.refused("POST", CREATE, {"name": model})

    assert (status, code) == (400, "RESOURCE_ALREADY_EXISTS")


def test_a_repeated_key_of_a_query_is_a_list(api: Api, two: str) -> None:
    api.move(1, "Staging", name=two)

    query = [("name", two), ("stages", "Staging"), ("stages", "None")]
    found = api.send("GET", "registered-models/get-latest-versions", params=query).json()

    assert sorted(v["version"] for v in found["model_versions"]) == ["1", "2"]


def test_texts_of_every_script_come_back_as_they_went(api: Api, name: str) -> None:
    description = "\u2028\t\n<script> Größe 離 \U0001f600 é e\u0301 \x07"
    api.model(name, description=description, tags=[{"key": "ключ", "value": "\x7f'\"\\"}])

    found = api.get("registered-models/get", name=name)["registered_model"]

    assert found["description"] == description
    assert found["tags"] == [{"key": "ключ", "value": "\x7f'\"\\"}]


def test_an_unknown_path_is_not_found(api: Api) -> None:
    assert api.http.get(BASE + "registered-models/nothing").status_code == 404


def test_health_and_release_are_told_in_plain_text(api: Api) -> None:
    health, version = api.http.get("/health"), api.http.get("/version")

    assert (health.status_code, health.text) == (200, "OK")
    assert version.status_code == 200
    assert version.text.strip()


def test_the_server_says_whether_it_has_workspaces(api: Api) -> None:
    told = api.http.get("/api/3.0/mlflow/server-info")

    assert told.status_code == 200
    assert isinstance(told.json()["workspaces_enabled"], bool)


def test_nothing_that_is_wrong_with_a_request_is_a_fault(api: Api, two: str) -> None:
    def status(method: str, path: str, **given: Any) -> int:
        sent = {"params": given} if method == "GET" else {"json": given}
        return api.send(method, path, **sent).status_code

    mistakes = [
        status("GET", "model-versions/search", order_by=["name", "name"]),
        status("POST", CREATE, name="nul\0byte"),
        status("POST", CREATE, name="x" * 300),
        raw(api, "[1]").status_code,
        raw(api, '"x"').status_code,
        raw(api, '{"name": "\\ud800"}').status_code,
        status("GET", "registered-models/search", page_token="x"),
        status("GET", "registered-models/search", max_results=-1),
        status("POST", "model-versions/create", name=two, source="models:/a/b/c"),
        status("POST", "model-versions/create", name=two, source="s3://x", model_id=["x"]),
    ]

    assert mistakes == [400] * len(mistakes)
