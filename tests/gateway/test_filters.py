"""MLflow's filters find here what MLflow says they find, and nothing hostile gets past the words.

That MLflow itself says so is told by `tests/mlflow/test_search.py`; these are its laws one by one.
"""

from __future__ import annotations

import contextlib
import time

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given, settings
from hypothesis import strategies as st

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.errors import RegistryError
from stagewire.mlflow import filters
from stagewire.mlflow.errors import MlflowError
from stagewire.service.registry import Registry
from tests import factories

PROMPT = "mlflow.prompt.is_prompt"


def models(registry: Registry, text: str, *order_by: str) -> list[str]:
    query = filters.models_query(text, order_by)
    request = pb.ListModelsRequest(filter=query.filter, order_by=query.order_by)
    try:
        return [model.name for model in registry.ListModels(request, ANONYMOUS).models]
    except RegistryError as error:
        raise query.refusals.get(error.reason, error) from None


def versions(registry: Registry, text: str, *order_by: str) -> list[tuple[str, int]]:
    query = filters.versions_query(text, order_by)
    request = pb.ListModelVersionsRequest(filter=query.filter, order_by=query.order_by)
    try:
        found = registry.ListModelVersions(request, ANONYMOUS).versions
    except RegistryError as error:
        raise query.refusals.get(error.reason, error) from None
    return [(version.model, version.version) for version in found]


def numbers(registry: Registry, text: str, *order_by: str) -> list[int]:
    return [number for _, number in versions(registry, text, *order_by)]


@pytest.fixture
def filled(registry: Registry) -> Registry:
    """Models a_b, aXb and a\\b with tags; versions of a_b."""
    factories.model(registry, "a_b", tags={"team": "risk", "odd key": "it''s"})
    factories.model(registry, "aXb", tags={"team": ""})
    factories.model(registry, "a\\b")
    factories.version(registry, "a_b", source="s3://b/1", lineage=pb.Lineage(run_id="r1"))
    factories.version(registry, "a_b", source="C:\\m\\2", tags={"team": "risk"})
    factories.version(registry, "a_b", source="s3://b/3", tags={"team": "x"})
    return registry


def test_a_tag_that_differs_is_one_that_is_there(filled: Registry) -> None:
    assert models(filled, "tags.team != 'risk'") == ["aXb"]
    assert numbers(filled, "tag.team != 'risk'") == [3]


def test_wildcards_are_percent_and_underscore_and_a_backslash_is_none(filled: Registry) -> None:
    assert models(filled, "name LIKE 'a_b'") == ["aXb", "a\\b", "a_b"]
    assert models(filled, r"name LIKE 'a\b'") == ["a\\b"]
    assert models(filled, r"name LIKE 'a\_b'") == []
    assert models(filled, r"name LIKE '%\%'") == ["a\\b"]
    assert models(filled, "name LIKE 'axb'") == []
    assert models(filled, "name ILIKE 'axb'") == ["aXb"]
    assert numbers(filled, r"source_path LIKE 'C:\m\%'") == [2]


def test_a_text_is_what_stands_between_its_quotes(filled: Registry) -> None:
    assert models(filled, "tags.`odd key` = 'it''s'") == ["a_b"]
    assert models(filled, 'tags."odd key" = "it\'\'s"') == ["a_b"]
    assert models(filled, "name = 'a_b'") == ["a_b"]


def test_a_list_is_read_as_python_reads_it(filled: Registry) -> None:
    assert models(filled, r"name IN ('a_b', 'a\\b')") == ["a\\b", "a_b"]
    assert models(filled, r"name IN ('a\b')") == []
    assert models(filled, "name NOT IN ('a_b',)") == ["aXb", "a\\b"]
    assert numbers(filled, "run_id NOT IN ('r1') AND run_id = ''") == [3, 2]


def test_clauses_side_by_side_all_hold(filled: Registry) -> None:
    assert numbers(filled, "version_number > 1 tags.team = 'x' AND") == [3]
    assert numbers(filled, "version_number >= '2' and version_number != 3") == [2]
    assert numbers(filled, "version_number < 99999999999999999999999") == [3, 2, 1]


def test_a_key_that_is_empty_is_nobodys(filled: Registry) -> None:
    assert models(filled, "tags.`` != 'x'") == []


def test_what_only_the_registry_reads_is_found_as_well(filled: Registry) -> None:
    factories.promote(filled, 2, name="a_b")
    factories.alias(filled, 3, name="a_b")
    assert sorted(numbers(filled, "stage = 'Production' OR alias = 'champion'")) == [2, 3]
    assert sorted(numbers(filled, "NOT (stage = 'Production')")) == [1, 3]
    assert numbers(filled, "status = 'READY' AND tags.team IS NULL") == [1]
    assert models(filled, "  ") == ["aXb", "a\\b", "a_b"]
    assert models(filled, "", "create_time desc") == ["a\\b", "aXb", "a_b"]


@pytest.fixture
def prompted(registry: Registry) -> Registry:
    """A model, and a prompt whose second version is not marked as one."""
    factories.model(registry, "model")
    factories.version(registry, "model")
    factories.model(registry, "prompt", tags={PROMPT: "true"})
    factories.version(registry, "prompt", tags={PROMPT: "true"})
    factories.version(registry, "prompt")
    return registry


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"tag.`{PROMPT}` != 'true'",
        f"tags.`{PROMPT}` = 'false'",
        f"tags.{PROMPT} LIKE 'true'",
        f"tags.{PROMPT} = 'no' AND tags.{PROMPT} = 'true'",
        f"name = 'model' OR name = 'prompt' AND tag.`{PROMPT}` != 'true'",
        "name = 'model' OR name = 'prompt'",
        f" AND tag.`{PROMPT}` != 'true'",
    ],
)
def test_prompts_are_hidden_with_all_their_versions(prompted: Registry, text: str) -> None:
    assert models(prompted, text) == ["model"]
    assert versions(prompted, text) == [("model", 1)]


@pytest.mark.parametrize(
    "text", [f"tags.`{PROMPT}` = 'true'", f"tags.{PROMPT} != 'false'", f"(tags.{PROMPT} = 'true')"]
)
def test_prompts_are_found_by_those_that_ask_for_them(prompted: Registry, text: str) -> None:
    assert models(prompted, text) == ["prompt"]
    assert versions(prompted, text) == [("prompt", 1)]


def test_a_prompt_stays_one_when_the_version_that_says_so_is_deleted(prompted: Registry) -> None:
    prompted.DeleteModelVersion(
        pb.DeleteModelVersionRequest(model="prompt", version=1, force=True), ANONYMOUS
    )
    assert versions(prompted, "") == [("model", 1)]


def test_models_come_by_name_and_versions_by_their_last_change(registry: Registry) -> None:
    for name in ("b", "a"):
        factories.model(registry, name)
    for name in ("b", "a", "b"):
        factories.version(registry, name)
    assert models(registry, "") == ["a", "b"]
    changed = pb.UpdateModelRequest(
        model="b",
        update=pb.ModelUpdate(description="anew"),
        update_mask=FieldMask(paths=["description"]),
    )
    registry.UpdateModel(changed, ANONYMOUS)
    assert models(registry, "", "timestamp DESC") == ["b", "a"]
    assert models(registry, "", "last_updated_timestamp") == ["a", "b"]
    assert versions(registry, "") == [("b", 2), ("a", 1), ("b", 1)]
    assert versions(registry, "", "name") == [("a", 1), ("b", 2), ("b", 1)]
    assert versions(registry, "", "version_number\tasc") == [("a", 1), ("b", 1), ("b", 2)]
    assert versions(registry, "", "`name` DESC", "version_number") == [
        ("b", 1), ("b", 2), ("a", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("colour = 'x'", "Invalid attribute key 'colour' specified. Valid keys are '{'name'}'"),
        ("run.x = 'x'", "Invalid entity type 'run'."),
        ("name = x", "Parameter value is either not quoted or unidentified quote types"),
        ("name = 'a' 5", "Invalid clause(s) in filter string: "),
        ("name IN ()", "expected a non-empty list of string values, but got empty list"),
        ("name IN (1)", "but got different type in list: (1,)"),
        ("name IN (a)", "but got ill-formed list."),
        (f"name IN (0x{'f' * 5000})", "but got different type in list: (0xfff"),
        ("name RLIKE 'a'", "Invalid comparator for attribute: RLIKE"),
        ("tags.k RLIKE 'a'", "Invalid comparator for tag: RLIKE"),
        ("tags.k = 5", "Expected a quoted string value for tag (e.g. 'my-value'). Got value 5"),
        ("name = 'a'; name = 'b'", "Search filter contained multiple expression"),
        ("'a' = 'b'", "Invalid comparison clause. Expected 'Identifier' found ''a''"),
        ("name = 'a') OR (name = 'b'", "Invalid clause(s) in filter string: "),
    ],
)
def test_what_nobody_reads_is_refused_in_mlflows_words(
    registry: Registry, text: str, told: str
) -> None:
    with pytest.raises(MlflowError) as refusal:
        models(registry, text)
    assert told in refusal.value.message
    assert refusal.value.code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    ("order_by", "told"),
    [
        (["name", "name DESC"], "`order_by` contains duplicate fields: ['name', 'name DESC']"),
        (["timestamp", "last_updated_timestamp"], "`order_by` contains duplicate fields: "),
        (["colour"], "Invalid order by key 'colour' specified. Valid keys are '{'name', 't"),
        (["name up"], "Invalid ordering key in order_by clause 'name up'."),
        (["name asc desc"], "Invalid order_by clause 'name asc desc'. Could not be parsed."),
        (["name", " "], "Invalid order_by clause ' '. Could not be parsed."),
    ],
)
def test_orders_that_nobody_reads_are_refused_in_mlflows_words(
    registry: Registry, order_by: list[str], told: str
) -> None:
    with pytest.raises(MlflowError) as refusal:
        models(registry, "", *order_by)
    assert told in refusal.value.message
    assert refusal.value.code == "INVALID_PARAMETER_VALUE"


def test_texts_that_are_too_long_are_refused_unread() -> None:
    with pytest.raises(MlflowError, match="at most 10,000 characters, but has 10,001"):
        filters.models_query("x" * 10_001, [])
    with pytest.raises(MlflowError, match="at most 1,000 characters"):
        filters.versions_query("", ["name"] * 1000)


_WORDS = st.sampled_from(
    [
        *("name", "run_id", "source_path", "version_number", "tags.k", "tag.`a b`", "tags."),
        *("attribute.name", "stage", "AND", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE"),
        *("BETWEEN", "=", "!=", "<", ">=", "(", ")", ",", ";", ".", "'", '"', "`", "'a'", '"b"'),
        *("`c`", "('a','b')", "5", "-1", "1e9", "\\", "%", "--", "/*", "*/", "$$", "::", "@", "#"),
        *("[", "]", "{", "}", "case", "end", "begin", "as", "asc", "desc", "timestamp", "é"),
        *("\n", "\0", "\ud800"),
    ]
)
_SOUP = st.lists(_WORDS, max_size=30).flatmap(
    lambda words: st.sampled_from(["", " "]).map(lambda blank: blank.join(words))
)


@given(
    text=_SOUP | st.text(max_size=60),
    order=st.lists(_SOUP | st.text(max_size=20), max_size=3),
)
@settings(max_examples=500, deadline=None)
def test_no_text_ends_in_anything_but_an_answer_or_a_refusal(text: str, order: list[str]) -> None:
    for query in (filters.models_query, filters.versions_query):
        try:
            query(text, order)
        except MlflowError as refusal:
            assert refusal.code == "INVALID_PARAMETER_VALUE"  # noqa: PT017


@pytest.mark.parametrize(
    "word",
    [
        *(
            "(",
            "()",
            "a=",
            "a=b ",
            ";",
            "a;",
            "a:",
            "''",
            "'a' ",
            "a.",
            "\\",
            "case ",
            "a IN ('b') ",
        ),
        *("a:=1 ", "a[1]", "(a) b ", "a, "),
    ],
)
def test_no_filter_takes_more_than_a_moment(word: str) -> None:
    text = (word * filters.LONGEST_FILTER)[: filters.LONGEST_FILTER]
    started = time.process_time()
    with contextlib.suppress(MlflowError):
        filters.versions_query(text, [])
    assert time.process_time() - started < 1


def test_a_filter_of_too_many_words_is_read_by_the_registry_alone(filled: Registry) -> None:
    others = ", ".join(f"'m{number}'" for number in range(999))

    assert models(filled, f"name IN ('a_b', {others})") == ["a_b"]
