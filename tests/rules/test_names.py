"""What can be a name, and how each is spelled."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagewire import names
from stagewire.errors import RegistryError
from stagewire.names import Selector

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "name", ["churn", "churn model", "...", "a@b", "模型", "x" * 256, "v1", "%2F"]
)
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert names.canonical_model(name) == name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "is required"),
        (".", "folder"),
        ("..", "folder"),
        ("a/b", "'/' at 2"),
        ("a:b", "':' at 2"),
        ("a\0b", "control character (U+0000) at 2"),
        ("a\n", "control character (U+000A)"),
        ("a\x9f", "control character (U+009F)"),
        ("a\ud800", "lone surrogate (U+D800)"),
        (" a", "white space"),
        ("a\u3000", "white space"),
        ("x" * 257, "has 257; shorten it"),
    ],
)
def test_a_model_is_refused_what_is_no_name(name: str, told: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        names.canonical_model(name)

    assert refusal.value.reason == "INVALID_FIELD"
    assert refusal.value.fields[0].field == "model.name"
    assert told in refusal.value.fields[0].description
    refusal.value.message.encode()


def test_two_spellings_of_one_text_are_one_name() -> None:
    assert names.canonical_model(DECOMPOSED) == names.canonical_model(COMPOSED)
    assert names.lookup_model(DECOMPOSED) == names.canonical_model(COMPOSED)


def test_length_counts_after_composing() -> None:
    assert len(names.canonical_model("e\u0301" * 256)) == 256


@given(st.text())
def test_a_canonical_name_is_its_own_canonical_form(name: str) -> None:
    try:
        canonical = names.canonical_model(name)
    except RegistryError:
        return

    assert names.canonical_model(canonical) == canonical == names.lookup_model(canonical)


def test_the_longest_spelling_of_a_name_is_still_that_name() -> None:
    # One character that is four when decomposed, and one that is three when folded.
    longest = "\u1f82" * names.MODEL_MAX_LENGTH
    stage = "\u1f82\u0390" * (names.STAGE_MAX_LENGTH // 2)

    assert names.lookup_model(unicodedata.normalize("NFD", longest)) == longest
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFD", stage).casefold())
    assert names.stage_key(decomposed) == names.stage_key(stage)


def test_what_is_longer_than_any_name_is_left_as_it_is() -> None:
    # Putting a million marks into order would take the interpreter for minutes.
    endless = "a" + "\u0315\u0300" * 500_000

    assert names.lookup_model(endless) == endless
    assert names.stage_key(endless) == endless


@given(st.text())
def test_letter_case_and_composition_do_not_change_a_stage_key(name: str) -> None:
    key = names.stage_key(name)

    assert names.stage_key(key) == key
    assert names.stage_key(unicodedata.normalize("NFD", name)) == key
    assert names.stage_key(unicodedata.normalize("NFC", name)) == key
    assert names.stage_key(name.casefold()) == key


def test_stages_differing_only_in_case_have_one_key() -> None:
    assert names.stage_key("PRODUCTION") == names.stage_key("Production") == "production"


@pytest.mark.parametrize(
    "name",
    ["None", "NONE", "latest", "Latest", "", "a/b", "a:b", "a@b", "a\tb", " a", "12", "s" * 129],
)
def test_a_stage_is_refused_what_is_reserved_or_no_name(name: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        names.canonical_stage(name, "stage.name")

    assert refusal.value.fields[0].field == "stage.name"


def test_a_stage_keeps_its_letter_case() -> None:
    assert names.canonical_stage("Pre-Prod 2", "stage.name") == "Pre-Prod 2"


@pytest.mark.parametrize("alias", ["champion", "v", "v1a", "1", "a.b_c-d", "version1", "x" * 255])
def test_an_ordinary_alias_is_accepted(alias: str) -> None:
    names.check_alias(alias, "alias")


@pytest.mark.parametrize(
    "alias", ["", "latest", "LATEST", "v1", "V01", "a b", "a@b", "a\u0308", "a\n", "x" * 256]
)
def test_an_alias_is_refused_what_could_be_read_otherwise(alias: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        names.check_alias(alias, "alias")

    assert refusal.value.fields[0].field == "alias"


def test_no_namespace_means_default() -> None:
    assert names.namespace_or_default("") == "default"
    assert names.namespace_or_default("team") == "team"


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("models:/churn/3", ("churn", Selector(version=3))),
        ("models:/churn/03", ("churn", Selector(version=3))),
        ("models:/churn/2147483647", ("churn", Selector(version=2**31 - 1))),
        ("models:/churn/Production", ("churn", Selector(stage="Production"))),
        ("models:/churn/None", ("churn", Selector(stage="None"))),
        ("models:/churn/²", ("churn", Selector(stage="²"))),
        ("models:/churn/latest", ("churn", Selector())),
        ("models:/churn/Latest", ("churn", Selector())),
        ("models:/churn@champion", ("churn", Selector(alias="champion"))),
        ("models:/a@b@champion", ("a@b", Selector(alias="champion"))),
        ("models:/a@b/3", ("a@b", Selector(version=3))),
        ("models:/my model?#%2F/3", ("my model?#%2F", Selector(version=3))),
        (f"models:/{DECOMPOSED}/3", (COMPOSED, Selector(version=3))),
        ("Models:/churn/3", ("churn", Selector(version=3))),
    ],
)
def test_a_models_uri_is_read_as_mlflow_reads_it(uri: str, meant: tuple[str, Selector]) -> None:
    assert names.parse_models_uri(uri) == meant


@pytest.mark.parametrize(
    "uri",
    [
        "", "models:", "models:/", "models:/churn", "models:/churn/", "models:/churn/ ",
        "models:/churn@", "models:/@champion", "models://host/churn/3", "models:/churn/3/4",
        "models:/churn/3@a/4", "runs:/churn/3", "churn/3", "models:/churn/0",
        "models:/churn/2147483648",
        "models:/churn/" + "9" * 5000,
    ],
)  # fmt: skip
def test_another_uri_is_refused_with_what_to_write(uri: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        names.parse_models_uri(uri)

    assert refusal.value.fields[0].field == "uri"
