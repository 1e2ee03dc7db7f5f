"""Searches for models and for versions: filters, orders, pages."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow import MlflowClient

from tests.mlflow.clients.apis import Api
from tests.mlflow.clients.releases import refused

Json = dict[str, Any]


@pytest.fixture
def shelf(client: MlflowClient, name: str) -> str:
    """Have three models, and give what their names begin with."""
    for suffix, tags in (
        ("Alpha", {"team": "risk", "tier": "1"}),
        ("alpha_2", {"team": "Risk", "lone": "x"}),
        ("alpha%3", {"tier": "2"}),
    ):
        client.create_registered_model(f"{name}.{suffix}", tags=tags)
    return f"{name}."


@pytest.fixture
def rack(client: MlflowClient, model: str) -> str:
    """Have five versions, and give their model's name."""
    for number in range(1, 6):
        client.create_model_version(
            model,
            f"s3://bucket/{number}",
            run_id=f"run-{number % 2}",
            tags={"parity": str(number % 2), **({"first": "yes"} if number == 1 else {})},
        )
    return model


def models(client: MlflowClient, shelf: str, text: str, **more: Any) -> list[str]:
    """Search among the models of a shelf; give what tells their names apart."""
    scope = f"name LIKE '{shelf}%'"
    found = client.search_registered_models(f"{scope} AND {text}" if text else scope, **more)
    return [model.name.removeprefix(shelf) for model in found]


def numbers(client: MlflowClient, rack: str, text: str = "", **more: Any) -> list[int]:
    """Search among the versions of a model; give their numbers."""
    scope = f"name = '{rack}'"
    found = client.search_model_versions(f"{scope} AND {text}" if text else scope, **more)
    return [int(version.version) for version in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["Alpha", "alpha%3", "alpha_2"]),
        ("name LIKE '%alpha%'", ["alpha%3", "alpha_2"]),
        ("name ILIKE '%ALPHA%'", ["Alpha", "alpha%3", "alpha_2"]),
        ("name LIKE '%.alpha_2'", ["alpha_2"]),
        ("name LIKE '%alpha__'", ["alpha%3", "alpha_2"]),
        ("name != 'x'", ["Alpha", "alpha%3", "alpha_2"]),
        ("name like '%Alpha'", ["Alpha"]),
        ("tags.team = 'risk'", ["Alpha"]),
        ("tag.team = 'risk'", ["Alpha"]),
        ("tags.`team` = 'risk'", ["Alpha"]),
        ("tags.\"team\" = 'risk'", ["Alpha"]),
        ("tags.team ILIKE 'RISK'", ["Alpha", "alpha_2"]),
        ("tags.team LIKE 'R%'", ["alpha_2"]),
        ("tags.team != 'risk'", ["alpha_2"]),
        ("tags.team != 'other'", ["Alpha", "alpha_2"]),
        ("tags.team = 'risk' AND tags.tier = '1'", ["Alpha"]),
        ("tags.team = 'risk' AND tags.tier = '2'", []),
        ("tags.team != 'risk' AND tags.team != 'Risk'", []),
        ("tags.absent = 'x'", []),
    ],
)
def test_models_are_found_by_name_and_tags(
    client: MlflowClient, shelf: str, text: str, expected: list[str]
) -> None:
    assert models(client, shelf, text) == expected


def test_models_are_found_by_their_exact_name(client: MlflowClient, shelf: str) -> None:
    (found,) = client.search_registered_models(f"name = '{shelf}alpha%3'")

    assert found.name == f"{shelf}alpha%3"
    assert found.tags == {"tier": "2"}
    assert client.search_registered_models(f"name = '{shelf}ALPHA%3'") == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (["name"], ["Alpha", "alpha%3", "alpha_2"]),
        (["name ASC"], ["Alpha", "alpha%3", "alpha_2"]),
        (["name desc"], ["alpha_2", "alpha%3", "Alpha"]),
        (["last_updated_timestamp"], ["Alpha", "alpha_2", "alpha%3"]),
        (["timestamp DESC"], ["alpha%3", "alpha_2", "Alpha"]),
        (["timestamp  Desc", "name"], ["alpha%3", "alpha_2", "Alpha"]),
        (["`name` DESC"], ["alpha_2", "alpha%3", "Alpha"]),
    ],
)
def test_models_come_in_the_order_asked_for(
    client: MlflowClient, shelf: str, order: list[str], expected: list[str]
) -> None:
    assert models(client, shelf, "", order_by=order) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("version_number = 3", [3]),
        ("version_number > 3", [5, 4]),
        ("version_number <= 2", [2, 1]),
        ("version_number != 2 AND version_number < 4", [3, 1]),
        ("run_id = 'run-0'", [4, 2]),
        ("run_id IN ('run-0')", [4, 2]),
        ("run_id IN ('run-0', 'run-1', 'x')", [5, 4, 3, 2, 1]),
        ("source_path = 's3://bucket/2'", [2]),
        ("source_path LIKE 's3://bucket/%'", [5, 4, 3, 2, 1]),
        ("source_path ILIKE 'S3://BUCKET/_'", [5, 4, 3, 2, 1]),
        ("source_path LIKE 'S3%'", []),
        ("tags.parity = '1'", [5, 3, 1]),
        ("tag.parity != '1'", [4, 2]),
        ("tags.first LIKE 'y%'", [1]),
        ("tags.parity = '1' AND tags.first = 'yes'", [1]),
        ("tags.first != 'no'", [1]),
        ("run_id = 'run-1' and version_number >= 3", [5, 3]),
    ],
)
def test_versions_are_found_by_number_run_source_and_tags(
    client: MlflowClient, rack: str, text: str, expected: list[int]
) -> None:
    order = ["version_number DESC"]

    assert numbers(client, rack, text, order_by=order) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([], [2, 5, 4, 3, 1]),
        (["last_updated_timestamp ASC"], [1, 3, 4, 5, 2]),
        (["creation_timestamp"], [1, 2, 3, 4, 5]),
        (["creation_timestamp DESC"], [5, 4, 3, 2, 1]),
        (["version_number ASC"], [1, 2, 3, 4, 5]),
        (["name", "version_number desc"], [5, 4, 3, 2, 1]),
        (["name"], [5, 4, 3, 2, 1]),
    ],
)
def test_versions_come_in_the_order_asked_for(
    client: MlflowClient, rack: str, order: list[str], expected: list[int]
) -> None:
    client.update_model_version(rack, "2", "moved")

    assert numbers(client, rack, order_by=order) == expected


def test_versions_of_all_models_are_found_together(
    client: MlflowClient, rack: str, other: str
) -> None:
    client.create_registered_model(other)
    client.create_model_version(other, "s3://bucket/2", run_id=rack)
    client.create_model_version(rack, "s3://bucket/6", run_id=rack)

    found = client.search_model_versions(f"run_id = '{rack}'", order_by=["name"])

    assert [(v.name, v.version) for v in found] == [(rack, "6"), (other, "1")]


def test_a_found_version_is_shown_whole(client: MlflowClient, rack: str) -> None:
    client.transition_model_version_stage(rack, "1", "Staging")

    (found,) = client.search_model_versions(f"name = '{rack}' AND version_number = 1")
    read = client.get_model_version(rack, "1")

    assert (found.tags, found.current_stage) == ({"parity": "1", "first": "yes"}, "Staging")
    assert (found.source, found.run_id) == (read.source, read.run_id)


def test_a_found_version_knows_its_aliases(client: MlflowClient, rack: str) -> None:
    client.set_registered_model_alias(rack, "champion", "1")

    (found,) = client.search_model_versions(f"name = '{rack}' AND version_number = 1")

    assert list(found.aliases) == ["champion"]


def test_a_found_model_is_shown_whole(client: MlflowClient, rack: str) -> None:
    client.set_registered_model_alias(rack, "champion", "1")
    client.transition_model_version_stage(rack, "1", "Staging")

    (found,) = client.search_registered_models(f"name = '{rack}'")

    assert found.aliases == {"champion": "1"}
    latest = {v.current_stage: v.version for v in found.latest_versions}
    assert latest == {"None": "5", "Staging": "1"}


def test_latest_versions_of_a_found_model_know_their_aliases(
    client: MlflowClient, rack: str
) -> None:
    client.set_registered_model_alias(rack, "champion", "5")

    (found,) = client.search_registered_models(f"name = '{rack}'")

    assert [list(v.aliases) for v in found.latest_versions] == [["champion"]]


def test_models_come_in_pages(client: MlflowClient, shelf: str) -> None:
    text = f"name LIKE '{shelf}%'"
    first = client.search_registered_models(text, max_results=2)
    second = client.search_registered_models(text, max_results=2, page_token=first.token)

    assert [len(first), len(second)] == [2, 1]
    assert not second.token
    assert [m.name for m in [*first, *second]] == sorted(m.name for m in [*first, *second])


def test_the_last_page_says_so_even_when_it_is_full(client: MlflowClient, shelf: str) -> None:
    assert not client.search_registered_models(f"name LIKE '{shelf}%'", max_results=3).token


def test_versions_come_in_pages(client: MlflowClient, rack: str) -> None:
    found: list[int] = []
    token = None
    for size in (2, 2, 1):
        page = client.search_model_versions(
            f"name = '{rack}'", max_results=2, order_by=["version_number"], page_token=token
        )
        assert len(page) == size
        found += [int(v.version) for v in page]
        token = page.token

    assert not token
    assert found == [1, 2, 3, 4, 5]


def test_pages_neither_skip_nor_repeat_while_others_write(api: Api, rack: str) -> None:
    query = {"filter": f"name = '{rack}'", "order_by": "version_number ASC"}
    first = api.get("model-versions/search", max_results=2, **query)
    api.delete("model-versions/delete", name=rack, version="1")

    rest = api.get("model-versions/search", page_token=first["next_page_token"], **query)

    assert [v["version"] for v in rest["model_versions"]] == ["3", "4", "5"]


@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_a_token_is_one_that_was_given(api: Api, path: str) -> None:
    found = api.refused("GET", path, {"page_token": "not base64!"})

    text = "Invalid page token, could not base64-decode"
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


def test_there_is_a_most_that_may_be_asked_for(api: Api) -> None:
    for path, most in (("registered-models/search", 1000), ("model-versions/search", 200_000)):
        api.get(path, max_results=most, filter="name = 'none'")
        status, code, text = api.refused("GET", path, {"max_results": most + 1})
        assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
        assert str(most + 1) in text


@pytest.mark.parametrize("most", ["0", "-1"])
def test_no_versions_can_not_be_asked_for(api: Api, most: str) -> None:
    found = api.refused("GET", "model-versions/search", {"max_results": most})

    text = f"Invalid value for max_results. It must be a positive integer, but got {most}"
    assert found == (400, "INVALID_PARAMETER_VALUE", text)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("colour = 'x'", "Invalid attribute key 'colour' specified. Valid keys are "),
        ("name", "Invalid clause(s) in filter string: "),
        ("name = name", "Parameter value is either not quoted or unidentified quote types used"),
        ("name = x", "Parameter value is either not quoted or unidentified quote types used"),
        ("name LIKE", "Invalid clause(s) in filter string: "),
    ],
)
@pytest.mark.parametrize("path", ["registered-models/search", "model-versions/search"])
def test_a_filter_that_is_none_is_told_why(api: Api, path: str, text: str, begins: str) -> None:
    status, code, message = api.refused("GET", path, {"filter": text})

    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert message.startswith(begins)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("run_id IN ()", "expected a non-empty list of string values, but got empty list"),
        ("run_id IN (1)", "but got different type in list"),
    ],
)
def test_a_list_that_is_none_is_told_why(api: Api, text: str, ends: str) -> None:
    status, code, message = api.refused("GET", "model-versions/search", {"filter": text})

    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert ends in message


@pytest.mark.parametrize(
    ("path", "order", "begins"),
    [
        ("registered-models/search", "colour", "Invalid order by key 'colour' specified."),
        (
            "registered-models/search",
            "name up",
            "Invalid ordering key in order_by clause 'name up'.",
        ),
        ("model-versions/search", "colour", "Invalid attribute key 'colour' specified"),
        ("model-versions/search", "name up", "Invalid ordering key in order_by clause 'name up'."),
    ],
)
def test_an_order_that_is_none_is_told_why(api: Api, path: str, order: str, begins: str) -> None:
    status, code, message = api.refused("GET", path, {"order_by": order})

    assert (status, code) == (400, "INVALID_PARAMETER_VALUE")
    assert message.startswith(begins)


def test_an_order_names_a_field_once(api: Api) -> None:
    query = {"order_by": ["name", "name DESC"]}

    _, _, text = api.refused("GET", "registered-models/search", query)

    assert "`order_by` contains duplicate fields" in text


@pytest.mark.parametrize("hostile", ["x' OR '1'='1", "%", "_", "\\", "'; DROP TABLE x; --"])
def test_a_value_is_a_value_whatever_is_in_it(
    client: MlflowClient, shelf: str, hostile: str
) -> None:
    quoted = '"' + hostile + '"'
    for text in (f"name = {quoted}", f"tags.team = {quoted}"):
        assert client.search_registered_models(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version_number = 1 OR version_number = 2", [2, 1]),
        ("NOT version_number > 1", [1]),
        ("stage = 'Staging'", [1]),
        ("alias = 'champion'", [2]),
    ],
)
def test_a_filter_may_say_more_than_mlflows(
    client: MlflowClient, rack: str, text: str, expected: list[int]
) -> None:
    client.transition_model_version_stage(rack, "1", "Staging")
    client.set_registered_model_alias(rack, "champion", "2")

    found = numbers(client, rack, f"({text})", order_by=["version_number DESC"])

    assert found == expected


def test_a_filter_of_nothing_finds_what_there_is(client: MlflowClient, shelf: str) -> None:
    names = {m.name for m in client.search_registered_models("", max_results=1000)}

    assert f"{shelf}Alpha" in names


def test_prompts_are_found_by_no_search_for_models(api: Api, name: str, other: str) -> None:
    prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    api.model(name, tags=[prompt])
    api.model(other)
    scope = f"name LIKE '{name}%'"

    def found(text: str) -> list[str]:
        page = api.get("registered-models/search", filter=text)
        return [model["name"] for model in page.get("registered_models", ())]

    assert found(scope) == [other]
    assert found(f"{scope} AND tag.`mlflow.prompt.is_prompt` = 'true'") == [name]
    assert found(f"{scope} AND tag.`mlflow.prompt.is_prompt` != 'false'") == [name]
    assert found(f"{scope} AND tag.`mlflow.prompt.is_prompt` != 'true'") == [other]
    assert found(f"{scope} AND tag.`mlflow.prompt.is_prompt` = 'false'") == [other]
    assert found(f"tag.`mlflow.prompt.is_prompt` != 'true' AND {scope}") == [other]


def test_prompts_versions_are_found_by_no_search_for_versions(
    api: Api, name: str, other: str
) -> None:
    prompt = {"key": "mlflow.prompt.is_prompt", "value": "true"}
    api.model(name, tags=[prompt])
    api.version(name, source="prompt-template", tags=[prompt], run_id=name)
    api.model(other)
    api.version(other, run_id=name)

    def found(text: str) -> list[str]:
        page = api.get("model-versions/search", filter=f"run_id = '{name}'{text}")
        return [version["name"] for version in page.get("model_versions", ())]

    assert found("") == [other]
    assert found(" AND tags.`mlflow.prompt.is_prompt` = 'true'") == [name]


def test_refusals_of_the_client_come_before_any_request(client: MlflowClient) -> None:
    assert refused(client.get_registered_model, "")[0] == "INVALID_PARAMETER_VALUE"
