"""What stands in options is parsed or refused with a remedy."""

import math
from datetime import UTC, datetime, timedelta

import pytest
import typer

from stagewire.cli import arguments


def test_pairs_split_at_the_first_equals_sign() -> None:
    assert arguments.pairs("--tag", ["a=1", "b=", "c=x=y"]) == {"a": "1", "b": "", "c": "x=y"}


@pytest.mark.parametrize("text", ["oops", "=1", ""])
def test_pairs_refuse_what_is_no_pair_and_say_what_to_write(text: str) -> None:
    with pytest.raises(typer.BadParameter) as refusal:
        arguments.pairs("--tag", [text])

    assert "KEY=VALUE; write --tag" in refusal.value.message
    assert refusal.value.param_hint == "'--tag'"


def test_pairs_refuse_a_key_given_twice() -> None:
    with pytest.raises(typer.BadParameter, match="'a' is given twice"):
        arguments.pairs("--tag", ["a=1", "a=2"])


def test_numbers_take_nan_and_infinities() -> None:
    found = arguments.numbers("--metric", ["auc=0.9", "x=-inf", "y=NaN"])

    assert found["auc"] == 0.9
    assert found["x"] == -math.inf
    assert math.isnan(found["y"])


def test_numbers_refuse_words() -> None:
    with pytest.raises(
        typer.BadParameter, match=r"'high' is not a number; write --metric auc=0\.93"
    ):
        arguments.numbers("--metric", ["auc=high"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("2h", 7200), ("7d", 604800), ("1w", 604800)]
)
def test_a_moment_may_be_an_age(text: str, seconds: int) -> None:
    found = arguments.moment("--since", text)

    assert found is not None
    age = datetime.now(UTC) - found.ToDatetime(UTC)
    assert abs(age - timedelta(seconds=seconds)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "text", ["2026-05-01T12:00:00Z", "2026-05-01T14:00:00+02:00", "2026-05-01T12:00"]
)
def test_a_moment_without_an_offset_is_utc(text: str) -> None:
    found = arguments.moment("--since", text)

    assert found is not None
    assert found.ToDatetime(UTC) == datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_no_moment_is_none() -> None:
    assert arguments.moment("--since", "") is None


@pytest.mark.parametrize("text", ["yesterday", "5x", "999999999w"])
def test_a_moment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time; write"):
        arguments.moment("--since", text)


def test_a_reference_may_hold_spaces_and_only_the_last_slash_counts() -> None:
    assert arguments.reference("--parent", "my model/12") == ("my model", 12)


@pytest.mark.parametrize(
    "text", ["churn", "churn/", "/3", "churn/0", "churn/x", "churn/99999999999"]
)
def test_a_reference_without_a_number_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not MODEL/VERSION"):
        arguments.reference("--parent", text)


def test_kinds_are_taken_short_or_whole() -> None:
    names = ["KIND_UNSPECIFIED", "KIND_STAGES_CHANGED"]

    for text in ("stages-changed", "STAGES_CHANGED", "kind_stages_changed"):
        assert arguments.chosen("--kind", [text], prefix="KIND_", names=names) == [names[1]]


def test_unknown_kinds_are_refused_with_the_choices() -> None:
    with pytest.raises(typer.BadParameter, match="'x' is none of stages_changed"):
        arguments.chosen(
            "--kind", ["x"], prefix="KIND_", names=["KIND_UNSPECIFIED", "KIND_STAGES_CHANGED"]
        )
