"""The wire format: what is read, what is sent, and that nothing hostile is a fault of ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagewire.mlflow.routes import ROUTES
from tests.gateway.apis import BASE, SEE_DOCS, Api, invalid, refusal

JSON = {"content-type": "application/json"}
CREATE = "registered-models/create"
MISSING_NAME = invalid(f"Missing value for required parameter 'name'.{SEE_DOCS}")


def raw(api: Api, body: bytes | str, path: str = CREATE, **headers: str) -> Any:
    return api.send("POST", path, content=body, headers={**JSON, **headers})


def test_numbers_are_numbers_and_versions_are_texts(one: Api) -> None:
    made = one.versions(1)[0]

    assert isinstance(made["creation_timestamp"], int)
    assert made["creation_timestamp"] > 1_500_000_000_000
    assert made["version"] == "1"


def test_fields_may_be_spelled_as_javascript_does(one: Api) -> None:
    one.versions(1)
    moved = {"name": "churn", "version": "1", "stage": "Staging", "archiveExistingVersions": True}

    assert one.post("model-versions/transition-stage", **moved)
    assert one.post("registered-models/rename", name="churn", newName="leavers")


def test_unknown_fields_are_ignored(one: Api) -> None:
    assert one.model(deployment_job_id="7", colour={"deep": [1, 2]})


def test_a_body_encoded_twice_is_decoded_twice(one: Api) -> None:
    answer = raw(one, json.dumps(json.dumps({"name": "churn"})))

    assert answer.json()["registered_model"]["name"] == "churn"


@pytest.mark.parametrize("body", ["", "null", "nonsense", b"\xff\xfe\xff", '{"name":', "{}"])
def test_what_is_no_json_counts_as_empty(one: Api, body: bytes | str) -> None:
    assert refusal(raw(one, body)) == MISSING_NAME


@pytest.mark.parametrize("body", ["[1]", "5", '"x"', '"[1]"', "true", '"\\ud800"'])
def test_what_is_no_object_is_refused(one: Api, body: str) -> None:
    assert refusal(raw(one, body))[:2] == (400, "BAD_REQUEST")


def test_a_post_says_that_it_brings_json(one: Api) -> None:
    none = one.send("POST", CREATE, content='{"name":"x"}')
    other = raw(one, '{"name":"x"}', **{"content-type": "text/plain"})
    exact = raw(one, '{"name":"x"}', **{"content-type": "application/json; charset=utf-8"})

    assert refusal(none) == invalid("Bad Request. Content-Type header is missing.")
    assert refusal(other) == invalid(
        "Bad Request. Content-Type must be one of ['application/json']."
    )
    assert exact.status_code == 200


def test_a_repeated_key_of_a_query_is_a_list(one: Api) -> None:
    one.versions(2)
    one.move(1, "Staging")

    query = [("name", "churn"), ("stages", "Staging"), ("stages", "None")]
    found = one.send("GET", "registered-models/get-latest-versions", params=query).json()

    assert [v["version"] for v in found["model_versions"]] == ["2", "1"]


def test_texts_of_every_script_come_back_as_they_went(one: Api) -> None:
    name = "Größe 離 \U0001f600 'quoted' \"twice\" %41 + &"
    one.model(name, description="\u2028\t\n<script>", tags=[{"key": "ключ", "value": "\x7f"}])

    found = one.get("registered-models/get", name=name)["registered_model"]

    assert (found["name"], found["description"]) == (name, "\u2028\t\n<script>")
    assert found["tags"] == [{"key": "ключ", "value": "\x7f"}]


def test_a_body_above_four_mebibytes_is_refused_before_it_is_read(one: Api) -> None:
    big = json.dumps({"name": "churn", "description": "x" * 4 * 1024 * 1024})

    declared = raw(one, big)
    chunked = one.send(
        "POST", CREATE, content=iter([big[:100_000].encode()] * 50), headers={**JSON}
    )

    assert refusal(declared)[:2] == refusal(chunked)[:2] == (413, "BAD_REQUEST")
    assert one.model()["name"] == "churn"


@pytest.mark.parametrize("depth", [500, 100_000])
def test_deep_nesting_is_refused_or_ignored(one: Api, depth: int) -> None:
    deep = "[" * depth + "]" * depth

    named = raw(one, f'{{"name":{deep}}}')
    ignored = raw(one, f'{{"name":"x","other":{deep}}}')

    assert named.status_code == 400
    assert ignored.status_code in (200, 400)


def test_an_unknown_path_is_no_endpoint(one: Api) -> None:
    for path in (BASE + "runs/search", BASE + "registered-models/create/", "/api/9/x", "/"):
        found = refusal(one.http.get(path))
        assert found[:2] == (404, "ENDPOINT_NOT_FOUND")


def test_another_method_is_told_which_there_are(one: Api) -> None:
    answer = one.send("PUT", "registered-models/alias", json={})

    assert refusal(answer)[:2] == (405, "BAD_REQUEST")
    assert answer.headers["allow"] == "DELETE, GET, POST"


@pytest.mark.parametrize(
    "value", ["x", "", "1.5", "1 0", "true", "99999999999999999999", "\u0661\u0662x"]
)
def test_a_count_that_is_none_is_refused(one: Api, value: str) -> None:
    answer = one.refused("GET", "registered-models/search", {"max_results": value})

    shown = json.dumps(value)
    hint = f"supplied:  Hint: Value was of type 'str'.{SEE_DOCS}"
    assert answer == invalid(f"Invalid value {shown} for parameter 'max_results' {hint}")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=300)
    | st.sampled_from(["churn", "1", "Production", "s3://b/x", "models:/churn/1", "\0", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["key", "value", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = sorted({field for route in ROUTES for field in route.endpoint.shape})
CALLS = st.tuples(
    st.sampled_from([r for r in ROUTES if "{" not in r.path]),
    st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5),
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(call=CALLS)
def test_nothing_that_is_sent_is_a_fault_of_the_servers(one: Api, call: Any) -> None:
    route, fields = call
    path = route.bases[0] + route.path
    one.send("POST", CREATE, json={"name": "churn"})

    if route.method == "GET":
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in fields.items()}
        query = {k: v.encode(errors="replace") for k, v in texts.items()}
        answer = one.http.get(path, params=query)
    else:
        answer = one.http.request(route.method, path, content=json.dumps(fields), headers=JSON)

    assert answer.status_code < 500, (path, fields, answer.text)
    if answer.status_code != 200:
        refusal(answer)


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{r.method} {r.path}")
def test_every_route_refuses_bytes_that_are_no_request(one: Api, route: Any) -> None:
    path = route.bases[0] + route.path

    answer = one.http.request(route.method, path, content=b"\x00\xff[[{", headers=JSON)

    assert answer.status_code in (200, 400, 404)
