"""MLflow's refusals: texts that clients match, and which of several mistakes is named."""

from __future__ import annotations

from typing import Any

import pytest

from stagewire import pb
from stagewire.callers import ANONYMOUS
from tests import factories
from tests.gateway.apis import SEE_DOCS, Api, Refusal, absent, exists, invalid
from tests.servers import RunningServer

MISSING = "Missing value for required parameter '{}'."
MISTYPED = "Invalid value {} for parameter '{}' supplied:  Hint: Value was of type '{}'." + SEE_DOCS
PATHLIKE = (
    "Invalid value \"{0}\" for parameter '{1}' supplied: Names may be treated as files in certain "
    "cases, and must not resolve to other names when treated as such. This name would resolve to "
    "'{2}'"
)
CHARACTERS = (
    "Invalid value \"{}\" for parameter 'key' supplied: Names may only contain alphanumerics, "
    "underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
)
SLASHED = "Invalid model name '{}'. Names cannot contain '/' or ':'."
NO_NUMBER = "Parameter 'version' must be an integer, got '{}'."
NO_MODEL = "Registered Model with name={} not found"
NO_VERSION = "Model Version (name={}, version={}) not found"
BAD_ALIAS = (
    "Invalid alias name: '{}'. Names may only contain alphanumerics, underscores (_), and dashes "
    "(-)."
)
NO_STAGE = (
    "Invalid Model Version stage: {}. Value must be one of None, Staging, Production, Archived."
)
NOT_ACTIVE = (
    "Model version transition cannot archive existing model versions because '{}' is not an Active "
    "stage. Valid stages are ['Staging', 'Production']"
)
LONG = "x" * 251

#: Method, path, and what is sent besides the version.
Call = tuple[str, str, dict[str, Any]]


def missing(parameter: str) -> Refusal:
    return invalid(MISSING.format(parameter) + SEE_DOCS)


def mistyped(shown: str, parameter: str, kind: str) -> Refusal:
    return invalid(MISTYPED.format(shown, parameter, kind))


@pytest.fixture
def two(one: Api) -> Api:
    """Have a model `churn` with two versions."""
    one.versions(2)
    return one


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, missing("name")),
        ({"name": ""}, missing("name")),
        ({"name": None}, missing("name")),
        ({"name": "  "}, invalid(MISSING.format("name"))),
        ({"name": 5}, mistyped("5", "name", "int")),
        ({"name": ["a"]}, mistyped('["a"]', "name", "list")),
        ({"tags": 5}, mistyped("null", "name", "NoneType")),
        ({"name": "x", "tags": {}}, mistyped("{}", "tags", "dict")),
        ({"name": "x", "tags": [5]}, mistyped("[5]", "tags", "list")),
        ({"name": "x", "description": True}, mistyped("true", "description", "bool")),
        ({"name": "a/b", "tags": [{"key": "%"}]}, invalid(SLASHED.format("a/b"))),
        ({"name": "a:b"}, invalid(SLASHED.format("a:b"))),
        ({"name": "."}, invalid(PATHLIKE.format(".", "name", "."))),
        ({"name": ".."}, invalid(PATHLIKE.format("..", "name", ".."))),
        ({"name": "churn", "tags": [{"key": "%"}]}, invalid(CHARACTERS.format("%"))),
        ({"name": "x", "tags": [{"value": "v"}]}, invalid(PATHLIKE.format("", "key", "."))),
        ({"name": "x", "tags": [{"key": "/a"}]}, invalid(PATHLIKE.format("/a", "key", "/a"))),
        (
            {"name": "x", "tags": [{"key": LONG}]},
            invalid("'key' exceeds the maximum length of 250 characters"),
        ),
        (
            {"name": "x", "tags": [{"key": "a", "value": "v" * 100_001}]},
            invalid("'value' exceeds the maximum length of 100000 characters"),
        ),
        ({"name": "churn"}, exists("Registered Model (name=churn) already exists.")),
    ],
)
def test_a_model_that_can_not_be_created(two: Api, given: Any, expected: Refusal) -> None:
    assert two.refused("POST", "registered-models/create", given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "churn"}, missing("new_name")),
        ({"name": "churn", "new_name": 5}, mistyped("5", "new_name", "int")),
        ({"name": "churn", "new_name": " "}, invalid(MISSING.format("new_name"))),
        ({"name": "a/b", "new_name": "c/d"}, invalid(SLASHED.format("c/d"))),
        ({"name": "a/b", "new_name": "x"}, invalid(SLASHED.format("a/b"))),
        ({"name": "ghost", "new_name": "x"}, absent(NO_MODEL.format("ghost"))),
        (
            {"name": "churn", "new_name": "taken"},
            exists("Registered Model (name=taken) already exists."),
        ),
        (
            {"name": "churn", "newName": "x", "new_name": "y"},
            invalid("Request specifies both 'new_name' and 'newName'; provide only one of them."),
        ),
    ],
)
def test_a_model_that_can_not_be_renamed(two: Api, given: Any, expected: Refusal) -> None:
    two.model("taken")

    assert two.refused("POST", "registered-models/rename", given) == expected


ABOUT_A_MODEL = [
    ("GET", "registered-models/get"),
    ("PATCH", "registered-models/update"),
    ("DELETE", "registered-models/delete"),
    ("POST", "registered-models/get-latest-versions"),
    ("GET", "registered-models/get-latest-versions"),
]


@pytest.mark.parametrize(("method", "path"), ABOUT_A_MODEL)
def test_a_model_that_is_not_there(one: Api, method: str, path: str) -> None:
    assert one.refused(method, path, {}) == missing("name")
    assert one.refused(method, path, {"name": "a:b"}) == invalid(SLASHED.format("a:b"))
    assert one.refused(method, path, {"name": "ghost"}) == absent(NO_MODEL.format("ghost"))


def test_a_tag_of_a_model(two: Api) -> None:
    def refused(method: str, path: str, **given: Any) -> Refusal:
        return two.refused(method, f"registered-models/{path}", given)

    for method, path in (("POST", "set-tag"), ("DELETE", "delete-tag")):
        assert refused(method, path, name="churn") == missing("key")
        slashed = refused(method, path, name="a/b", key="%")
        assert slashed == invalid(SLASHED.format("a/b"))
        assert refused(method, path, name="ghost", key="%") == invalid(CHARACTERS.format("%"))
        assert refused(method, path, name="ghost", key="a") == absent(NO_MODEL.format("ghost"))
    assert refused("POST", "set-tag", name="churn", key="a", value=5) == mistyped(
        "5", "value", "int"
    )


ABOUT_A_VERSION: list[Call] = [
    ("GET", "model-versions/get", {}),
    ("GET", "model-versions/get-download-uri", {}),
    ("PATCH", "model-versions/update", {}),
    ("POST", "model-versions/transition-stage", {"stage": "Staging"}),
    ("DELETE", "model-versions/delete", {}),
    ("POST", "model-versions/set-tag", {"key": "a", "value": "b"}),
    ("DELETE", "model-versions/delete-tag", {"key": "a"}),
    ("POST", "registered-models/alias", {"alias": "champion"}),
]


@pytest.mark.parametrize("call", ABOUT_A_VERSION)
@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (("churn", "x"), invalid(NO_NUMBER.format("x"))),
        (("churn", "1.0"), invalid(NO_NUMBER.format("1.0"))),
        (("churn", "9" * 5000), invalid(NO_NUMBER.format("9" * 5000))),
        (("churn", "3"), absent(NO_VERSION.format("churn", 3))),
        (("churn", "0"), absent(NO_VERSION.format("churn", 0))),
        (("churn", "-1"), absent(NO_VERSION.format("churn", -1))),
        (("churn", "99999999999"), absent(NO_VERSION.format("churn", 99999999999))),
        (("ghost", " 1 "), absent(NO_VERSION.format("ghost", 1))),
        (("a:b", "1"), invalid(SLASHED.format("a:b"))),
    ],
)
def test_a_version_that_is_not_there(
    two: Api, call: Call, named: tuple[str, str], expected: Refusal
) -> None:
    method, path, more = call
    name, version = named

    assert two.refused(method, path, {"name": name, "version": version, **more}) == expected


@pytest.mark.parametrize("call", ABOUT_A_VERSION)
def test_a_name_is_looked_at_before_a_number_but_for_deletion(two: Api, call: Call) -> None:
    method, path, more = call
    expected = NO_NUMBER.format("x") if path.endswith("/delete") else SLASHED.format("a/b")

    assert two.refused(method, path, {"name": "a/b", "version": "x", **more}) == invalid(expected)


def test_a_version_number_is_a_text(two: Api) -> None:
    given = {"name": "churn", "version": 1, "description": "x"}

    refused = two.refused("PATCH", "model-versions/update", given)

    assert refused == mistyped("1", "version", "int")


def test_a_tag_of_a_version_is_looked_at_after_the_number_and_before_the_version(two: Api) -> None:
    for method, path in (("POST", "set-tag"), ("DELETE", "delete-tag")):

        def refused(version: str) -> Refusal:
            given = {"name": "ghost", "version": version, "key": "%"}
            return two.refused(method, f"model-versions/{path}", given)  # noqa: B023  # called here

        assert refused("x") == invalid(NO_NUMBER.format("x"))
        assert refused("1") == invalid(CHARACTERS.format("%"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "churn", "version": "1"}, missing("alias")),
        ({"name": "churn", "version": "x", "alias": "a.b"}, invalid(BAD_ALIAS.format("a.b"))),
        ({"name": "a/b", "version": "x", "alias": "a b"}, invalid(SLASHED.format("a/b"))),
        (
            {"name": "churn", "version": "x", "alias": "LATEST"},
            invalid("'latest' alias name (case insensitive) is reserved."),
        ),
        (
            {"name": "churn", "version": "x", "alias": "V12"},
            invalid("Version alias name 'V12' is reserved."),
        ),
        (
            {"name": "churn", "version": "1", "alias": "a" * 256},
            invalid("'Registered model alias name' exceeds the maximum length of 255 characters"),
        ),
    ],
)
def test_an_alias_that_can_not_be_set(two: Api, given: Any, expected: Refusal) -> None:
    assert two.refused("POST", "registered-models/alias", given) == expected


def test_reserved_aliases_may_be_asked_for_and_deleted(two: Api) -> None:
    found = two.refused("GET", "registered-models/alias", {"name": "churn", "alias": "v1"})

    assert found == invalid("Registered model alias v1 not found.")
    assert two.delete("registered-models/alias", name="churn", alias="v1") == {}
    gone = two.refused("DELETE", "registered-models/alias", {"name": "ghost", "alias": "v1"})
    assert gone == absent(NO_MODEL.format("ghost"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, missing("stage")),
        ({"stage": 5}, mistyped("5", "stage", "int")),
        (
            {"stage": "Staging", "archive_existing_versions": "true"},
            mistyped('"true"', "archive_existing_versions", "str"),
        ),
        ({"version": "x", "stage": "Nope"}, invalid(NO_STAGE.format("Nope"))),
        (
            {"name": "a/b", "version": "x", "stage": "archived", "archive_existing_versions": True},
            invalid(NOT_ACTIVE.format("archived")),
        ),
        (
            {"version": "9", "stage": "NONE", "archive_existing_versions": True},
            invalid(NOT_ACTIVE.format("NONE")),
        ),
    ],
)
def test_a_transition_that_can_not_be(two: Api, given: Any, expected: Refusal) -> None:
    given = {"name": "churn", "version": "1", **given}

    assert two.refused("POST", "model-versions/transition-stage", given) == expected


def test_texts_name_the_namespaces_own_stages(two: Api, one_server: RunningServer) -> None:
    registry = one_server.server.registry
    factories.stage(registry, "Canary", active=True)

    moved: dict[str, Any] = {"name": "churn", "version": "1", "stage": "Nope"}
    unknown = two.refused("POST", "model-versions/transition-stage", moved)
    moved |= {"stage": "Archived", "archive_existing_versions": True}
    inactive = two.refused("POST", "model-versions/transition-stage", moved)

    assert unknown[2].endswith("one of None, Staging, Production, Archived, Canary.")
    assert inactive[2].endswith("Valid stages are ['Staging', 'Production', 'Canary']")


def test_a_version_that_is_not_ready_enters_no_stage(two: Api, one_server: RunningServer) -> None:
    registry = one_server.server.registry
    pending = pb.MODEL_VERSION_STATUS_PENDING_REGISTRATION
    factories.version(registry, status=pending)
    shown = two.get("model-versions/get", name="churn", version="3")["model_version"]

    given = {"name": "churn", "version": "3", "stage": "Staging"}
    refused = two.refused("POST", "model-versions/transition-stage", given)

    assert shown["status"] == "PENDING_REGISTRATION"
    assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")
    assert "only a READY version may enter a stage" in refused[2]


def test_stages_are_looked_at_after_the_model(two: Api) -> None:
    def refused(name: str) -> Refusal:
        given = {"name": name, "stages": ["Production", "Nope"]}
        return two.refused("POST", "registered-models/get-latest-versions", given)

    assert refused("ghost") == absent(NO_MODEL.format("ghost"))
    assert refused("churn") == invalid(NO_STAGE.format("Nope"))


SOURCE = "Invalid model version source: '{}'. "
UNSAFE = SOURCE + (
    "If supplying a source as an http, https, local file path, ftp, objectstore, or "
    "mlflow-artifacts uri, an absolute path must be provided without relative path references "
    "present. Please provide an absolute path."
)
LOCAL = SOURCE + (
    "To use a local path as a model version source, the run_id request parameter has to be "
    "specified and the local path has to be contained within the artifact directory of the run "
    "specified by the run_id."
)
UNREADABLE = SOURCE + (
    "The model_id request parameter must identify the resource that contains the source."
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "churn"}, missing("source")),
        ({"name": "churn", "source": ""}, missing("source")),
        ({"name": "ghost", "source": "s3://b/x"}, absent(NO_MODEL.format("ghost"))),
        ({"name": "a/b", "source": "s3://b/x"}, invalid(SLASHED.format("a/b"))),
        ({"name": "churn", "source": "s3://b/x", "run_id": 5}, mistyped("5", "run_id", "int")),
        (
            {"name": "ghost", "source": "s3://b/x", "tags": [{"key": "%", "value": ""}]},
            invalid(CHARACTERS.format("%")),
        ),
        (
            {"name": "churn", "source": "s3://b/%252e%252e/x"},
            invalid(UNSAFE.format("s3://b/%252e%252e/x")),
        ),
        ({"name": "churn", "source": "s3://b/../x"}, invalid(UNSAFE.format("s3://b/../x"))),
        ({"name": "churn", "source": "/etc"}, invalid(LOCAL.format("/etc"))),
        ({"name": "churn", "source": "models:/churn/9"}, absent(NO_VERSION.format("churn", 9))),
        ({"name": "churn", "source": "models:/ghost/1"}, absent(NO_MODEL.format("ghost"))),
        (
            {"name": "churn", "source": "models:/churn@nobody"},
            invalid("Registered model alias nobody not found."),
        ),
        (
            {"name": "churn", "source": "models:/churn/Production"},
            invalid("No versions of model with name 'churn' and stage 'Production' found"),
        ),
        (
            {"name": "churn", "source": "models:/empty/latest"},
            invalid("No versions of model with name 'empty' found"),
        ),
        ({"name": "churn", "source": "models:/churn/Nope"}, invalid(NO_STAGE.format("Nope"))),
        ({"name": "churn", "source": "models:/a/b/c"}, invalid(UNREADABLE.format("models:/a/b/c"))),
    ],
)
def test_a_version_that_can_not_be_created(sqlite_url: str, given: Any, expected: Refusal) -> None:
    import httpx

    with (
        RunningServer(sqlite_url, source_policy="traversal") as server,
        httpx.Client(base_url=server.http_url) as http,
    ):
        api = Api(http)
        api.versions(1)
        api.model("empty")

        assert api.refused("POST", "model-versions/create", given) == expected


def test_what_only_the_registry_refuses_is_the_callers_mistake_too(two: Api) -> None:
    for given in ({"name": "x" * 257}, {"name": "a\0b"}, {"name": " x"}, {"name": "a\x07"}):
        assert two.refused("POST", "registered-models/create", given)[:2] == (
            400,
            "INVALID_PARAMETER_VALUE",
        )


def test_a_name_with_history_can_not_be_taken_by_rename(
    two: Api, one_server: RunningServer
) -> None:
    two.versions(1, "other")
    two.delete("registered-models/delete", name="churn")

    given = {"name": "other", "new_name": "churn"}
    refused = two.refused("POST", "registered-models/rename", given)

    assert refused[:2] == (400, "INVALID_PARAMETER_VALUE")
    found = one_server.server.registry.GetModel(pb.GetModelRequest(model="other"), ANONYMOUS)
    assert found.model.name == "other"
