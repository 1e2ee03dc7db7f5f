"""Tags of models and of versions."""

from __future__ import annotations

import json
import posixpath
from typing import Any

import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import SEE_DOCS, Api
from tests.mlflow.clients.laws.test_models import PATHLIKE, let_a_millisecond_pass, no_model
from tests.mlflow.clients.laws.test_versions import no_version
from tests.mlflow.clients.releases import refused

CHARACTERS = (
    "Invalid value \"{}\" for parameter 'key' supplied: Names may only contain alphanumerics, "
    "underscores (_), dashes (-), periods (.), spaces ( ), colon(:) and slashes (/)."
)
PATHS = ("registered-models", "model-versions")


def where(path: str, name: str) -> dict[str, Any]:
    return {"name": name} if path == "registered-models" else {"name": name, "version": "1"}


def test_a_models_tags_are_set_again_and_deleted(client: MlflowClient, model: str) -> None:
    client.set_registered_model_tag(model, "a", "1")
    client.set_registered_model_tag(model, "a", "2")
    client.set_registered_model_tag(model, "b", "")
    client.set_registered_model_tag(model, "c", "3")
    client.delete_registered_model_tag(model, "c")

    assert client.get_registered_model(model).tags == {"a": "2", "b": ""}


def test_a_versions_tags_are_set_again_and_deleted(client: MlflowClient, two: str) -> None:
    client.set_model_version_tag(two, "1", "a", "1")
    client.set_model_version_tag(two, "1", "a", "2")
    client.set_model_version_tag(two, "1", "b", "")
    client.set_model_version_tag(two, "1", "c", "3")
    client.delete_model_version_tag(two, "1", "c")

    assert client.get_model_version(two, "1").tags == {"a": "2", "b": ""}
    assert client.get_model_version(two, "2").tags == {}


def test_a_versions_tags_are_reached_by_its_stage(client: MlflowClient, two: str) -> None:
    client.transition_model_version_stage(two, "1", "Staging")
    client.set_model_version_tag(two, key="a", value="1", stage="Staging")

    assert client.get_model_version(two, "1").tags == {"a": "1"}
    client.delete_model_version_tag(two, key="a", stage="Staging")
    assert client.get_model_version(two, "1").tags == {}


def test_a_value_is_sent_as_text(client: MlflowClient, two: str) -> None:
    client.set_registered_model_tag(two, "n", 5)
    client.set_model_version_tag(two, "1", "n", 1.5)

    assert client.get_registered_model(two).tags == {"n": "5"}
    assert client.get_model_version(two, "1").tags == {"n": "1.5"}


def test_an_absent_tag_may_be_deleted(client: MlflowClient, two: str) -> None:
    client.delete_registered_model_tag(two, "never")
    client.delete_model_version_tag(two, "1", "never")


def test_tags_move_no_time(client: MlflowClient, two: str) -> None:
    model = client.get_registered_model(two).last_updated_timestamp
    version = client.get_model_version(two, "1").last_updated_timestamp
    let_a_millisecond_pass()

    client.set_registered_model_tag(two, "a", "1")
    client.delete_registered_model_tag(two, "a")
    client.set_model_version_tag(two, "1", "a", "1")
    client.delete_model_version_tag(two, "1", "a")

    assert client.get_registered_model(two).last_updated_timestamp == model
    assert client.get_model_version(two, "1").last_updated_timestamp == version


def test_tags_of_what_is_not_there_are_refused(client: MlflowClient, two: str, other: str) -> None:
    assert refused(client.set_registered_model_tag, other, "a", "1") == no_model(other)
    assert refused(client.delete_registered_model_tag, other, "a") == no_model(other)
    assert refused(client.set_model_version_tag, two, "9", "a", "1") == no_version(two, 9)
    assert refused(client.delete_model_version_tag, two, "9", "a") == no_version(two, 9)


def test_of_two_tags_with_one_key_the_last_counts(api: Api, name: str) -> None:
    tags = [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]

    api.model(name, tags=tags)
    made = api.version(name, tags=tags)

    shown = api.get("registered-models/get", name=name)["registered_model"]
    assert shown["tags"] == made["tags"] == tags[1:]


@pytest.mark.parametrize("key", ["%", "a@b", "ключ!", "a\\b", "a'b", 'a"b', "\u200b"])
@pytest.mark.parametrize("path", PATHS)
def test_a_key_has_letters_digits_and_some_signs(api: Api, two: str, path: str, key: str) -> None:
    given = {**where(path, two), "key": key, "value": ""}

    found = api.refused("POST", f"{path}/set-tag", given)

    text = CHARACTERS.format("%").replace('"%"', json.dumps(key))
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize(
    "key", ["a", "a.b", "a b", "a:b", "a/b", "ключ", "-", "_", "mlflow.x", "1"]
)
@pytest.mark.parametrize("path", PATHS)
def test_a_key_may_be_a_path_of_words(api: Api, two: str, path: str, key: str) -> None:
    api.post(f"{path}/set-tag", **where(path, two), key=key, value="v")
    shown = api.get(f"{path}/get", **where(path, two))

    (found,) = shown.values()
    assert found["tags"] == [{"key": key, "value": "v"}]


@pytest.mark.parametrize("key", [".", "..", "/a", "a/../b", "a//b", "../x", "a/"])
@pytest.mark.parametrize("path", PATHS)
def test_a_key_is_no_other_path(api: Api, two: str, path: str, key: str) -> None:
    text = PATHLIKE.format(key, "key", posixpath.normpath(key))

    for method, ending in (("POST", "set-tag"), ("DELETE", "delete-tag")):
        given = {**where(path, two), "key": key, "value": ""}
        found = api.refused(method, f"{path}/{ending}", given)
        assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize("path", PATHS)
def test_a_key_is_required(api: Api, two: str, path: str) -> None:
    missing = f"Missing value for required parameter 'key'.{SEE_DOCS}"

    for method, ending in (("POST", "set-tag"), ("DELETE", "delete-tag")):
        found = api.refused(method, f"{path}/{ending}", {**where(path, two), "value": ""})
        assert found == (400, "INVALID_PARAMETER_VALUE", missing)


@pytest.mark.parametrize("path", PATHS)
def test_a_key_has_at_most_250_characters(api: Api, two: str, path: str) -> None:
    api.post(f"{path}/set-tag", **where(path, two), key="k" * 250, value="")
    given = {**where(path, two), "key": "k" * 251, "value": ""}

    found = api.refused("POST", f"{path}/set-tag", given)

    text = "'key' exceeds the maximum length of 250 characters"
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize("path", PATHS)
def test_a_value_has_at_most_100_000_characters(api: Api, two: str, path: str) -> None:
    api.post(f"{path}/set-tag", **where(path, two), key="k", value="v" * 100_000)
    given = {**where(path, two), "key": "k", "value": "v" * 100_001}

    found = api.refused("POST", f"{path}/set-tag", given)

    text = "'value' exceeds the maximum length of 100000 characters"
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


def test_a_key_is_looked_at_before_the_version_is_looked_up(api: Api, other: str) -> None:
    given = {"name": other, "version": "9", "key": "%", "value": ""}
    expected = (400, "INVALID_PARAMETER_VALUE", CHARACTERS.format("%"))

    assert api.refused("POST", "model-versions/set-tag", given) == expected
    assert api.refused("DELETE", "model-versions/delete-tag", given) == expected


def test_the_name_comes_before_the_version_and_that_before_the_key(api: Api) -> None:
    slashed = "Invalid model name 'a/b'. Names cannot contain '/' or ':'."
    no_number = "Parameter 'version' must be an integer, got 'x'."
    given = {"name": "a/b", "version": "x", "key": "%", "value": ""}

    first = api.refused("POST", "model-versions/set-tag", given)
    second = api.refused("POST", "model-versions/set-tag", {**given, "name": "ab"})

    assert first == (400, "INVALID_PARAMETER_VALUE", slashed)
    assert second == (400, "INVALID_PARAMETER_VALUE", no_number)
