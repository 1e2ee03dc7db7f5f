"""Stages and their latest versions."""

from __future__ import annotations

import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import SEE_DOCS, Api
from tests.mlflow.clients.laws.test_models import let_a_millisecond_pass, no_model
from tests.mlflow.clients.laws.test_versions import no_version
from tests.mlflow.clients.releases import invalid, refused

NO_STAGE = (
    "Invalid Model Version stage: {}. Value must be one of None, Staging, Production, Archived."
)
NOT_ACTIVE = (
    "Model version transition cannot archive existing model versions because '{}' is not an Active "
    "stage. Valid stages are ['Staging', 'Production']"
)


def stages(client: MlflowClient, name: str) -> dict[str, str]:
    return {v.version: v.current_stage for v in client.search_model_versions(f"name = '{name}'")}


@pytest.fixture
def three(client: MlflowClient, two: str) -> str:
    client.create_model_version(two, "s3://models/3")
    return two


@pytest.mark.parametrize(
    ("asked", "stage"),
    [
        ("Staging", "Staging"),
        ("production", "Production"),
        ("ARCHIVED", "Archived"),
        ("nONE", "None"),
    ],
)
def test_a_stage_is_known_in_any_case(
    client: MlflowClient, two: str, asked: str, stage: str
) -> None:
    moved = client.transition_model_version_stage(two, "1", asked)

    assert moved.current_stage == client.get_model_version(two, "1").current_stage == stage


def test_every_stage_leads_to_every_stage(client: MlflowClient, two: str) -> None:
    every = ["None", "Staging", "Production", "Archived"]
    walk = [stage for first in every for second in every for stage in (first, second)]

    for stage in walk:
        assert client.transition_model_version_stage(two, "1", stage).current_stage == stage
        assert stages(client, two) == {"1": stage, "2": "None"}


def test_a_stage_is_one_of_four(client: MlflowClient, two: str) -> None:
    expected = invalid(NO_STAGE.format("Canary"))

    assert refused(client.transition_model_version_stage, two, "1", "Canary") == expected
    assert refused(client.get_latest_versions, two, ["Canary"]) == expected


def test_a_stage_is_looked_at_before_the_version(api: Api, name: str) -> None:
    given = {"name": name, "version": "9", "stage": "Canary", "archive_existing_versions": False}

    found = api.refused("POST", "model-versions/transition-stage", given)

    assert found == (400, *invalid(NO_STAGE.format("Canary")))


def test_a_stage_is_required(api: Api, two: str) -> None:
    given = {"name": two, "version": "1", "archive_existing_versions": False}
    missing = f"Missing value for required parameter 'stage'.{SEE_DOCS}"

    found = api.refused("POST", "model-versions/transition-stage", given)

    assert found == (400, "INVALID_PARAMETER_VALUE", missing)


def test_a_version_that_is_not_there_enters_no_stage(client: MlflowClient, two: str) -> None:
    expected = no_version(two, 9)

    assert refused(client.transition_model_version_stage, two, "9", "Staging") == expected


def test_several_versions_may_share_a_stage(client: MlflowClient, three: str) -> None:
    client.transition_model_version_stage(three, "1", "Production")
    client.transition_model_version_stage(three, "2", "Production", archive_existing_versions=False)

    assert stages(client, three) == {"1": "Production", "2": "Production", "3": "None"}


def test_existing_versions_are_archived_when_asked(client: MlflowClient, three: str) -> None:
    for number in ("1", "2"):
        client.transition_model_version_stage(three, number, "Production")
    let_a_millisecond_pass()

    moved = client.transition_model_version_stage(
        three, "3", "Production", archive_existing_versions=True
    )

    assert stages(client, three) == {"1": "Archived", "2": "Archived", "3": "Production"}
    times = {client.get_model_version(three, number).last_updated_timestamp for number in "123"} | {
        client.get_registered_model(three).last_updated_timestamp
    }
    assert times == {moved.last_updated_timestamp}


def test_archiving_leaves_other_stages_alone(client: MlflowClient, three: str) -> None:
    client.transition_model_version_stage(three, "1", "Staging")
    client.transition_model_version_stage(three, "2", "Production")

    client.transition_model_version_stage(three, "3", "Production", archive_existing_versions=True)

    assert stages(client, three) == {"1": "Staging", "2": "Archived", "3": "Production"}


def test_archiving_does_not_move_the_version_itself(client: MlflowClient, two: str) -> None:
    for _ in range(2):
        client.transition_model_version_stage(
            two, "1", "Production", archive_existing_versions=True
        )

    assert stages(client, two) == {"1": "Production", "2": "None"}


@pytest.mark.parametrize("stage", ["None", "Archived", "archived"])
def test_only_active_stages_archive_whom_they_hold(api: Api, two: str, stage: str) -> None:
    given = {"name": two, "version": "1", "stage": stage, "archive_existing_versions": True}

    found = api.refused("POST", "model-versions/transition-stage", given)

    assert found[2] == NOT_ACTIVE.format(stage)


@pytest.mark.parametrize("stage", ["None", "Archived"])
def test_a_stage_that_archives_nobody_is_a_mistake_and_no_fault(
    api: Api, two: str, stage: str
) -> None:
    given = {"name": two, "version": "1", "stage": stage, "archive_existing_versions": True}

    found = api.refused("POST", "model-versions/transition-stage", given)

    assert found[:2] == (400, "INVALID_PARAMETER_VALUE")


def test_latest_versions_are_the_highest_of_each_stage(client: MlflowClient, three: str) -> None:
    client.create_model_version(three, "s3://models/4")
    for number, stage in (("1", "Staging"), ("3", "Staging"), ("2", "Production")):
        client.transition_model_version_stage(three, number, stage)

    def latest(asked: list[str] | None = None) -> dict[str, str]:
        found = client.get_latest_versions(three, asked)
        return {v.current_stage: v.version for v in found}

    assert latest() == latest([]) == {"None": "4", "Staging": "3", "Production": "2"}
    assert latest(["Staging"]) == {"Staging": "3"}
    assert latest(["production", "NONE"]) == {"None": "4", "Production": "2"}
    assert latest(["Archived"]) == {}
    shown = client.get_registered_model(three).latest_versions
    assert {v.current_stage: v.version for v in shown} == latest()


def test_a_deleted_version_is_no_latest_one(client: MlflowClient, three: str) -> None:
    client.delete_model_version(three, "3")

    assert [v.version for v in client.get_latest_versions(three)] == ["2"]
    assert [v.version for v in client.get_registered_model(three).latest_versions] == ["2"]


def test_latest_versions_of_no_model_are_not_found(client: MlflowClient, name: str) -> None:
    assert refused(client.get_latest_versions, name, ["Production"]) == no_model(name)


def test_latest_versions_are_posted_for_or_got(api: Api, two: str) -> None:
    posted = api.post("registered-models/get-latest-versions", name=two, stages=["None"])
    got = api.get("registered-models/get-latest-versions", name=two, stages=["None", "Archived"])

    assert posted == got
    assert [v["version"] for v in got["model_versions"]] == ["2"]


def test_latest_versions_know_their_aliases(client: MlflowClient, two: str) -> None:
    client.set_registered_model_alias(two, "champion", "2")

    assert [list(v.aliases) for v in client.get_latest_versions(two)] == [["champion"]]


def test_a_model_shows_the_aliases_of_its_latest_versions(client: MlflowClient, two: str) -> None:
    client.set_registered_model_alias(two, "champion", "2")

    (latest,) = client.get_registered_model(two).latest_versions
    assert list(latest.aliases) == ["champion"]
