"""Model versions."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import SEE_DOCS, Api
from tests.mlflow.clients.laws.test_models import let_a_millisecond_pass, no_model
from tests.mlflow.clients.releases import RELEASE, absent, invalid, refused


def no_version(name: str, version: object) -> tuple[str, str]:
    return absent(f"Model Version (name={name}, version={version}) not found")


def test_a_version_is_created_with_all_that_is_known_of_it(
    client: MlflowClient, model: str
) -> None:
    made = client.create_model_version(
        model,
        "s3://models/1",
        run_id="r1",
        tags={"a": "1"},
        run_link="https://runs/r1",
        description="first",
    )
    found = client.get_model_version(model, "1")

    for version in (made, found):
        assert (version.name, version.version) == (model, "1")
        assert (version.source, version.run_id) == ("s3://models/1", "r1")
        assert (version.run_link, version.description) == ("https://runs/r1", "first")
        assert (version.tags, version.current_stage) == ({"a": "1"}, "None")
        assert (version.status, version.status_message or "") == ("READY", "")
        assert list(version.aliases) == []
    assert made.creation_timestamp == made.last_updated_timestamp
    assert found.creation_timestamp == made.creation_timestamp


def test_versions_are_numbered_from_one(client: MlflowClient, model: str) -> None:
    made = [client.create_model_version(model, "s3://models/x").version for _ in range(3)]

    assert made == ["1", "2", "3"]


def test_equal_versions_are_as_many_as_were_created(client: MlflowClient, two: str) -> None:
    client.create_model_version(two, "s3://models/1", run_id="run1")

    assert len(client.search_model_versions(f"name = '{two}'")) == 3


def test_a_number_is_never_given_again_while_the_model_lives(
    client: MlflowClient, two: str
) -> None:
    client.delete_model_version(two, "2")

    assert client.create_model_version(two, "s3://models/x").version == "3"


def test_a_version_needs_its_model(client: MlflowClient, name: str) -> None:
    assert refused(client.create_model_version, name, "s3://models/1") == no_model(name)


def test_a_source_is_required(api: Api, model: str) -> None:
    missing = f"Missing value for required parameter 'source'.{SEE_DOCS}"

    for given in ({"name": model}, {"name": model, "source": ""}):
        found = api.refused("POST", "model-versions/create", given)
        assert found == (400, "INVALID_PARAMETER_VALUE", missing)


@pytest.mark.parametrize(
    "source", ["s3://b/k", "gs://b/k v", "dbfs:/m", "s3://b/日本", "gs://b/%41"]
)
def test_a_source_comes_back_as_it_was_given(client: MlflowClient, model: str, source: str) -> None:
    client.create_model_version(model, source)

    assert client.get_model_version(model, "1").source == source
    assert client.get_model_version_download_uri(model, "1") == source


@pytest.mark.parametrize(
    "source",
    ["hdfs://host/x", "https://host/x", "abfss://c@host/x", "mlflow-artifacts:/1/r/artifacts/m"],
)
def test_a_source_may_lie_on_any_host(client: MlflowClient, model: str, source: str) -> None:
    client.create_model_version(model, source)

    assert client.get_model_version_download_uri(model, "1") == source


UNSAFE = (
    "Invalid model version source: '{}'. If supplying a source as an http, https, local file path, "
    "ftp, objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative "
    "path references present. Please provide an absolute path."
)


@pytest.mark.parametrize(
    "source",
    [
        "s3://b/../x",
        "gs://h/a/../../b",
        "mlflow-artifacts:/../x",
        "s3://b/%2e%2e/x",
        "s3://b/%252e%252e/x",
    ],
)
def test_a_source_does_not_climb(client: MlflowClient, model: str, source: str) -> None:
    assert refused(client.create_model_version, model, source) == invalid(UNSAFE.format(source))


@pytest.mark.parametrize("source", ["/etc", "file:///etc/passwd", "file:/x", "/a/b"])
def test_a_local_source_lies_in_its_runs_folder(
    client: MlflowClient, model: str, source: str
) -> None:
    text = (
        f"Invalid model version source: '{source}'. To use a local path as a model version source, "
        "the run_id request parameter has to be specified and the local path has to be contained "
        "within the artifact directory of the run specified by the run_id."
    )

    assert refused(client.create_model_version, model, source) == invalid(text)


def test_a_changed_description_moves_the_versions_time(client: MlflowClient, two: str) -> None:
    before = client.get_model_version(two, "1")
    let_a_millisecond_pass()

    changed = client.update_model_version(two, "1", "better")

    assert changed.description == client.get_model_version(two, "1").description == "better"
    assert changed.last_updated_timestamp > before.last_updated_timestamp
    assert changed.creation_timestamp == before.creation_timestamp


def test_an_omitted_description_is_gone(client: MlflowClient, api: Api, model: str) -> None:
    client.create_model_version(model, "s3://models/1", description="old")

    api.patch("model-versions/update", name=model, version="1")

    assert not client.get_model_version(model, "1").description


def test_a_deleted_version_is_not_found_by_anything(client: MlflowClient, two: str) -> None:
    client.delete_model_version(two, "1")

    gone = no_version(two, 1)
    assert refused(client.get_model_version, two, "1") == gone
    assert refused(client.get_model_version_download_uri, two, "1") == gone
    assert refused(client.update_model_version, two, "1", "x") == gone
    assert refused(client.transition_model_version_stage, two, "1", "Staging") == gone
    assert refused(client.set_model_version_tag, two, "1", "k", "v") == gone
    assert refused(client.delete_model_version_tag, two, "1", "k") == gone
    assert refused(client.set_registered_model_alias, two, "champion", "1") == gone
    assert refused(client.delete_model_version, two, "1") == gone
    assert [v.version for v in client.search_model_versions(f"name = '{two}'")] == ["2"]


def test_a_version_is_deleted_in_any_stage(client: MlflowClient, two: str) -> None:
    client.transition_model_version_stage(two, "1", "Production")
    client.delete_model_version(two, "1")

    assert [v.version for v in client.get_latest_versions(two)] == ["2"]


def test_the_download_address_does_not_change(client: MlflowClient, two: str) -> None:
    client.update_model_version(two, "1", "x")
    client.transition_model_version_stage(two, "1", "Production")

    assert client.get_model_version_download_uri(two, "1") == "s3://models/1"


@pytest.mark.parametrize("number", ["x", "1.0", "1e3", "one"])
def test_a_version_is_a_number(client: MlflowClient, two: str, number: str) -> None:
    expected = invalid(f"Parameter 'version' must be an integer, got '{number}'.")

    assert refused(client.get_model_version, two, number) == expected
    assert refused(client.delete_model_version, two, number) == expected


@pytest.mark.parametrize("number", ["0", "-1", "3", "99999999999"])
def test_a_number_that_was_not_given_is_not_found(
    client: MlflowClient, two: str, number: str
) -> None:
    assert refused(client.get_model_version, two, number) == no_version(two, number)


def test_a_copy_names_the_version_it_is_of(client: MlflowClient, two: str, other: str) -> None:
    client.set_registered_model_alias(two, "champion", "2")
    copied = client.copy_model_version(f"models:/{two}@champion", other)
    again = client.copy_model_version(f"models:/{other}/1", other)

    assert (copied.name, copied.version, copied.current_stage) == (other, "1", "None")
    assert copied.source == f"models:/{two}/2"
    assert copied.run_id == again.run_id == "run2"
    assert again.source == f"models:/{other}/1"
    for number in ("1", "2"):
        assert client.get_model_version_download_uri(other, number) == "s3://models/2"


def test_a_copy_takes_tags_and_description_along(
    client: MlflowClient, model: str, other: str
) -> None:
    client.create_model_version(
        model, "s3://models/1", tags={"a": "1"}, description="first", run_link="https://runs/1"
    )

    copied = client.copy_model_version(f"models:/{model}/1", other)

    assert (copied.tags, copied.description) == ({"a": "1"}, "first")
    assert copied.run_link == "https://runs/1"


def test_a_copy_of_what_is_not_there_is_refused(client: MlflowClient, two: str, other: str) -> None:
    _, text = refused(client.copy_model_version, f"models:/{two}/9", other)

    assert text.endswith(no_version(two, 9)[1])


def test_a_copy_outlives_what_it_is_of(client: MlflowClient, two: str, other: str) -> None:
    client.copy_model_version(f"models:/{two}/1", other)
    client.delete_model_version(two, "1")

    assert client.get_model_version_download_uri(other, "1") == "s3://models/1"


def test_a_source_by_stage_becomes_the_version(api: Api, two: str, other: str) -> None:
    api.move(1, "Production", name=two)
    api.model(other)

    made = api.version(other, source=f"models:/{two}/Production")

    assert made["source"] == f"models:/{two}/1"
    assert made["run_id"] == "run1"


if RELEASE >= (3, 0):

    def test_a_logged_model_that_nobody_knows_is_kept_as_the_source(
        client: MlflowClient, model: str
    ) -> None:
        client.create_model_version(model, "models:/m-0123", model_id="m-0123")

        assert client.get_model_version(model, "1").source == "models:/m-0123"
        assert client.get_model_version_download_uri(model, "1") == "models:/m-0123"
