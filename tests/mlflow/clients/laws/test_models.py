"""Registered models."""

from __future__ import annotations

import time

import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import SEE_DOCS, Api
from tests.mlflow.clients.releases import absent, exists, invalid, refused

PATHLIKE = (
    "Invalid value \"{0}\" for parameter '{1}' supplied: Names may be treated as files in certain "
    "cases, and must not resolve to other names when treated as such. This name would resolve to "
    "'{2}'"
)


def no_model(name: str) -> tuple[str, str]:
    return absent(f"Registered Model with name={name} not found")


def let_a_millisecond_pass() -> None:
    """Times on the wire have no more."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= now + 1:
        time.sleep(0.001)


def test_a_model_is_created_with_tags_and_a_description(client: MlflowClient, name: str) -> None:
    made = client.create_registered_model(name, tags={"team": "risk"}, description="who leaves")
    found = client.get_registered_model(name)

    for model in (made, found):
        assert (model.name, model.description, model.tags) == (name, "who leaves", {"team": "risk"})
        assert (list(model.latest_versions), model.aliases) == ([], {})
    assert made.creation_timestamp == made.last_updated_timestamp == found.creation_timestamp


def test_a_model_without_a_description_has_none(client: MlflowClient, model: str) -> None:
    assert not client.get_registered_model(model).description


def test_a_name_is_taken_once(client: MlflowClient, model: str) -> None:
    found = refused(client.create_registered_model, model)

    assert found == exists(f"Registered Model (name={model}) already exists.")


@pytest.mark.parametrize("bad", ["a/b", "a:b", "/", "models:/x"])
def test_a_name_has_neither_slash_nor_colon(client: MlflowClient, bad: str) -> None:
    expected = invalid(f"Invalid model name '{bad}'. Names cannot contain '/' or ':'.")

    assert refused(client.create_registered_model, bad) == expected
    assert refused(client.get_registered_model, bad) == expected


@pytest.mark.parametrize("bad", [".", ".."])
def test_a_name_is_no_other_path(client: MlflowClient, bad: str) -> None:
    expected = invalid(PATHLIKE.format(bad, "name", bad))

    assert refused(client.create_registered_model, bad) == expected


@pytest.mark.parametrize("blank", [" ", "\t", "  \n"])
def test_a_name_is_not_blank(client: MlflowClient, blank: str) -> None:
    expected = invalid("Missing value for required parameter 'name'.")

    assert refused(client.create_registered_model, blank) == expected


def test_a_name_is_required(api: Api) -> None:
    expected = f"Missing value for required parameter 'name'.{SEE_DOCS}"

    for given in ({}, {"name": ""}, {"name": None}):
        found = api.refused("POST", "registered-models/create", given)
        assert found == (400, "INVALID_PARAMETER_VALUE", expected)


@pytest.mark.parametrize(
    "suffix", ["é", "日本語", "🦊", " with spaces", "%2e%2e", "'\"", "\\", "+&?#=;", "`"]
)
def test_a_name_may_have_every_other_character(
    client: MlflowClient, name: str, suffix: str
) -> None:
    whole = name + suffix
    client.create_registered_model(whole)
    client.create_model_version(whole, "s3://models/1")

    assert client.get_registered_model(whole).name == whole
    assert client.get_model_version(whole, "1").name == whole
    client.delete_registered_model(whole)
    assert refused(client.get_registered_model, whole) == no_model(whole)


def test_names_that_can_not_be_told_apart_are_one(client: MlflowClient, name: str) -> None:
    composed, decomposed = f"{name}é", f"{name}e\u0301"
    client.create_registered_model(composed)

    assert client.get_registered_model(decomposed).name == composed
    assert refused(client.create_registered_model, decomposed)[0] == "RESOURCE_ALREADY_EXISTS"


def test_case_tells_names_apart(client: MlflowClient, model: str) -> None:
    assert refused(client.get_registered_model, model.upper()) == no_model(model.upper())


def test_a_name_has_at_most_256_characters(client: MlflowClient, name: str) -> None:
    long = name.ljust(256, "x")
    client.create_registered_model(long)

    assert client.get_registered_model(long).name == long
    assert refused(client.create_registered_model, long + "x")[0] == "INVALID_PARAMETER_VALUE"


def test_what_is_not_there_is_not_found(client: MlflowClient, name: str) -> None:
    assert refused(client.get_registered_model, name) == no_model(name)
    assert refused(client.update_registered_model, name, "x") == no_model(name)
    assert refused(client.rename_registered_model, name, "x") == no_model(name)
    assert refused(client.delete_registered_model, name) == no_model(name)
    assert refused(client.get_latest_versions, name) == no_model(name)


def test_a_changed_description_moves_the_models_time(client: MlflowClient, model: str) -> None:
    before = client.get_registered_model(model)
    let_a_millisecond_pass()

    changed = client.update_registered_model(model, "new")

    assert changed.description == client.get_registered_model(model).description == "new"
    assert changed.last_updated_timestamp > before.last_updated_timestamp
    assert changed.creation_timestamp == before.creation_timestamp


def test_an_omitted_description_becomes_empty(client: MlflowClient, api: Api, name: str) -> None:
    client.create_registered_model(name, description="old")

    api.patch("registered-models/update", name=name)

    assert not client.get_registered_model(name).description


def test_a_rename_takes_everything_along(client: MlflowClient, two: str, other: str) -> None:
    client.set_registered_model_tag(two, "team", "risk")
    client.set_registered_model_alias(two, "champion", "1")
    before = client.get_registered_model(two)
    let_a_millisecond_pass()

    client.rename_registered_model(two, other)

    renamed = client.get_registered_model(other)
    assert (renamed.name, renamed.tags) == (other, {"team": "risk"})
    assert renamed.aliases == {"champion": "1"}
    found = client.get_model_version(other, "2")
    assert (found.name, found.source) == (other, "s3://models/2")
    assert renamed.last_updated_timestamp > before.last_updated_timestamp
    assert renamed.creation_timestamp == before.creation_timestamp


def test_a_rename_changes_no_version(client: MlflowClient, two: str, other: str) -> None:
    before = client.get_model_version(two, "2")
    let_a_millisecond_pass()

    client.rename_registered_model(two, other)

    found = client.get_model_version(other, "2")
    assert found.last_updated_timestamp == before.last_updated_timestamp


def test_an_old_name_can_not_be_written_to(client: MlflowClient, two: str, other: str) -> None:
    client.rename_registered_model(two, other)

    assert refused(client.update_registered_model, two, "x") == no_model(two)
    assert refused(client.create_model_version, two, "s3://models/3") == no_model(two)
    assert refused(client.delete_registered_model, two) == no_model(two)


def test_an_old_name_keeps_resolving_after_a_rename(
    client: MlflowClient, two: str, other: str
) -> None:
    client.rename_registered_model(two, other)

    assert client.get_registered_model(two).name == other
    assert client.get_model_version_download_uri(two, "1") == "s3://models/1"


def test_a_taken_name_can_not_be_renamed_to(client: MlflowClient, model: str, other: str) -> None:
    client.create_registered_model(other)

    code, text = refused(client.rename_registered_model, model, other)

    assert code == "RESOURCE_ALREADY_EXISTS"
    assert text.startswith(f"Registered Model (name={other}) already exists.")
    assert client.get_registered_model(model).name == model


def test_a_new_name_is_checked_before_the_old_one(api: Api) -> None:
    text = "Invalid model name 'c:d'. Names cannot contain '/' or ':'."

    found = api.refused("POST", "registered-models/rename", {"name": "a:b", "new_name": "c:d"})

    assert found == (400, *invalid(text))


def test_a_new_name_is_required(api: Api, model: str) -> None:
    missing = "Missing value for required parameter 'new_name'."
    given = {"name": model, "new_name": " "}

    found = api.refused("POST", "registered-models/rename", given)
    assert found == (400, "INVALID_PARAMETER_VALUE", missing)
    found = api.refused("POST", "registered-models/rename", {"name": model})
    assert found == (400, "INVALID_PARAMETER_VALUE", missing + SEE_DOCS)


def test_a_model_is_deleted_whatever_stages_its_versions_are_in(
    client: MlflowClient, two: str
) -> None:
    client.transition_model_version_stage(two, "1", "Production")
    client.set_registered_model_alias(two, "champion", "1")
    client.delete_registered_model(two)

    assert refused(client.get_registered_model, two) == no_model(two)
    gone = absent(f"Model Version (name={two}, version=1) not found")
    assert refused(client.get_model_version, two, "1") == gone
    assert list(client.search_model_versions(f"name = '{two}'")) == []


def test_a_model_made_again_has_nothing_of_the_old_one(client: MlflowClient, two: str) -> None:
    client.set_registered_model_tag(two, "team", "risk")
    client.set_registered_model_alias(two, "champion", "1")
    client.delete_registered_model(two)

    made = client.create_registered_model(two)

    assert (made.tags, made.aliases, list(made.latest_versions)) == ({}, {}, [])
    assert list(client.search_model_versions(f"name = '{two}'")) == []


def test_a_name_taken_again_goes_on_numbering(client: MlflowClient, two: str) -> None:
    client.delete_registered_model(two)
    client.create_registered_model(two)

    made = client.create_model_version(two, "s3://models/other")

    assert str(made.version) == "3"


def test_what_happens_to_versions_moves_the_models_time(client: MlflowClient, model: str) -> None:
    def time_of_model() -> int:
        let_a_millisecond_pass()
        return int(client.get_registered_model(model).last_updated_timestamp)

    times = [time_of_model()]
    client.create_model_version(model, "s3://models/1")
    times.append(time_of_model())
    client.transition_model_version_stage(model, "1", "Staging")
    times.append(time_of_model())
    client.delete_model_version(model, "1")
    times.append(time_of_model())

    assert sorted(set(times)) == times


def test_a_versions_description_does_not_move_the_models_time(
    client: MlflowClient, two: str
) -> None:
    before = client.get_registered_model(two).last_updated_timestamp
    let_a_millisecond_pass()

    client.update_model_version(two, "1", "x")

    assert client.get_registered_model(two).last_updated_timestamp == before
