"""Aliases."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import SEE_DOCS, Api, Refusal
from tests.mlflow.clients.laws.test_models import let_a_millisecond_pass, no_model
from tests.mlflow.clients.laws.test_versions import no_version
from tests.mlflow.clients.releases import RELEASE, absent, invalid, refused

NOT_FOUND = "Registered model alias {} not found."
BAD = (
    "Invalid alias name: '{}'. Names may only contain alphanumerics, underscores (_), and dashes "
    "(-)."
)


def test_an_alias_names_a_version(client: MlflowClient, two: str) -> None:
    client.set_registered_model_alias(two, "champion", "1")

    found = client.get_model_version_by_alias(two, "champion")
    assert (found.version, list(found.aliases)) == ("1", ["champion"])
    assert client.get_registered_model(two).aliases == {"champion": "1"}
    assert list(client.get_model_version(two, "1").aliases) == ["champion"]


def test_an_alias_moves(client: MlflowClient, two: str) -> None:
    client.set_registered_model_alias(two, "champion", "1")
    client.set_registered_model_alias(two, "champion", "2")

    assert client.get_model_version_by_alias(two, "champion").version == "2"
    assert list(client.get_model_version(two, "1").aliases) == []


def test_a_version_has_many_aliases(client: MlflowClient, two: str) -> None:
    for alias in ("b", "a", "c"):
        client.set_registered_model_alias(two, alias, "1")

    assert sorted(client.get_model_version(two, "1").aliases) == ["a", "b", "c"]
    assert client.get_registered_model(two).aliases == {"a": "1", "b": "1", "c": "1"}


def test_an_alias_is_one_models_own(client: MlflowClient, two: str, other: str) -> None:
    client.create_registered_model(other)
    client.create_model_version(other, "s3://other/1")
    client.set_registered_model_alias(two, "champion", "2")
    client.set_registered_model_alias(other, "champion", "1")

    assert client.get_model_version_by_alias(two, "champion").version == "2"
    assert client.get_model_version_by_alias(other, "champion").version == "1"


def test_a_deleted_alias_is_gone_and_may_be_deleted_again(client: MlflowClient, two: str) -> None:
    client.set_registered_model_alias(two, "champion", "1")
    for _ in range(2):
        client.delete_registered_model_alias(two, "champion")

    gone = invalid(NOT_FOUND.format("champion"))
    assert refused(client.get_model_version_by_alias, two, "champion") == gone
    assert client.get_registered_model(two).aliases == {}


def test_aliases_go_with_their_version(client: MlflowClient, two: str) -> None:
    client.set_registered_model_alias(two, "champion", "1")
    client.delete_model_version(two, "1")

    gone = invalid(NOT_FOUND.format("champion"))
    assert refused(client.get_model_version_by_alias, two, "champion") == gone
    assert client.get_registered_model(two).aliases == {}


def test_an_alias_needs_its_version(client: MlflowClient, two: str) -> None:
    assert refused(client.set_registered_model_alias, two, "a", "9") == no_version(two, 9)


def test_an_alias_of_no_model_is_refused(api: Api, name: str) -> None:
    def refused(method: str) -> Refusal:
        given = {"name": name, "alias": "a", "version": "1"}
        return api.refused(method, "registered-models/alias", given)

    assert refused("POST") == (404, *no_version(name, 1))
    assert refused("DELETE") == (404, *no_model(name))
    assert refused("GET") == (404, *no_model(name))


def test_aliases_move_no_time(client: MlflowClient, two: str) -> None:
    model = client.get_registered_model(two).last_updated_timestamp
    version = client.get_model_version(two, "1").last_updated_timestamp
    let_a_millisecond_pass()

    client.set_registered_model_alias(two, "champion", "1")
    client.delete_registered_model_alias(two, "champion")

    assert client.get_registered_model(two).last_updated_timestamp == model
    assert client.get_model_version(two, "1").last_updated_timestamp == version


@pytest.mark.parametrize("bad", ["a.b", "a b", "a/b", "@", "a:b", "ä!"])
def test_an_alias_has_letters_digits_and_dashes(api: Api, two: str, bad: str) -> None:
    given = {"name": two, "alias": bad, "version": "1"}
    expected = (400, "INVALID_PARAMETER_VALUE", BAD.format(bad))

    assert api.refused("POST", "registered-models/alias", given) == expected


@pytest.mark.parametrize("alias", ["ä", "日本", "x-y_z", "-", "_", "1", "vv1", "v", "late"])
def test_an_alias_may_be_any_word(client: MlflowClient, two: str, alias: str) -> None:
    client.set_registered_model_alias(two, alias, "2")

    assert client.get_model_version_by_alias(two, alias).version == "2"


def test_an_alias_is_required(api: Api, two: str) -> None:
    missing = f"Missing value for required parameter 'alias'.{SEE_DOCS}"
    given = {"name": two, "version": "1", "alias": ""}

    found = api.refused("POST", "registered-models/alias", given)

    assert found == (400, "INVALID_PARAMETER_VALUE", missing)


def test_an_alias_has_at_most_255_characters(api: Api, two: str) -> None:
    api.post("registered-models/alias", name=two, alias="a" * 255, version="1")
    given = {"name": two, "version": "1", "alias": "a" * 256}

    _, code, text = api.refused("POST", "registered-models/alias", given)

    assert code == "INVALID_PARAMETER_VALUE"
    assert "exceeds the maximum length of 255 characters" in text


@pytest.mark.parametrize("alias", ["latest", "LATEST", "Latest"])
def test_latest_is_reserved(api: Api, two: str, alias: str) -> None:
    text = "'latest' alias name (case insensitive) is reserved."
    given = {"name": two, "alias": alias, "version": "1"}

    found = api.refused("POST", "registered-models/alias", given)

    assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize("alias", ["v1", "V22", "v0"])
def test_aliases_that_look_like_versions_are_reserved(api: Api, two: str, alias: str) -> None:
    text = f"Version alias name '{alias}' is reserved."
    given = {"name": two, "alias": alias, "version": "1"}

    found = api.refused("POST", "registered-models/alias", given)

    assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize("alias", ["latest", "LaTest"])
def test_latest_is_the_highest_version_in_any_stage(api: Api, two: str, alias: str) -> None:
    api.move(2, "Archived", name=two)

    found = api.get("registered-models/alias", name=two, alias=alias)["model_version"]

    assert found["version"] == "2"


def test_latest_of_an_empty_model_is_not_found(api: Api, model: str) -> None:
    found = api.refused("GET", "registered-models/alias", {"name": model, "alias": "latest"})

    assert found == (404, *absent(f"Latest version not found for model {model}."))


if RELEASE >= (2, 21):

    def test_reserved_aliases_are_refused_by_the_client_too(client: MlflowClient, two: str) -> None:
        assert refused(client.set_registered_model_alias, two, "latest", "1")[0] == (
            "INVALID_PARAMETER_VALUE"
        )
