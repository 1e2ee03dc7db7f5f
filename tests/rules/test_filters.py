"""A filter finds what it says, on every database alike, and is refused where it says nothing."""

from __future__ import annotations

import datetime as dt
import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagewire import pb
from stagewire.errors import RegistryError
from stagewire.store import filter_trees, filters, schema

READY, FAILED = pb.MODEL_VERSION_STATUS_READY, pb.MODEL_VERSION_STATUS_FAILED_REGISTRATION
#: 2026-01-01T00:00:00Z in microseconds.
NEW_YEAR = 1_767_225_600_000_000


@dataclass
class Version:
    number: int
    model: str = "churn"
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[tuple[str, str], float | None] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        return self.model, self.number


VERSIONS = [
    Version(1, tags={"team": "risk"}, metrics={("auc", ""): 0.5}, stages=("Archived",)),
    Version(
        2,
        tags={"team": "Risk", "odd key": "x", "a`b": "it's"},
        params={"lr": "0.1"},
        metrics={("auc", "a"): 0.5, ("auc", "b"): 0.9},
        stages=("Production", "Shadow"),
        aliases=("champion",),
        columns={"status": READY, "run_id": "r1", "source": "s3://b/50%_off\\x"},
    ),
    Version(
        3,
        tags={"team": ""},
        metrics={("auc", ""): None, ("loss", ""): math.inf},
        stages=("Staging",),
        left=("Production",),
        unset=("champion",),
        columns={"status": FAILED, "creator": "ann", "create_time": NEW_YEAR},
    ),
    Version(
        4,
        params={"lr": "0.01", "opt": "Adam"},
        metrics={("auc", ""): -1.0, ("loss", ""): -math.inf},
        columns={"create_time": NEW_YEAR + 999, "description": "ÄÖ a*b?[c]", "run_id": "R1"},
    ),
    Version(
        1,
        model="Café 2",
        tags={"team": "fraud"},
        aliases=("champion", "Best"),
        stages=("PRODUCTION",),
        columns={"status": READY, "create_time": NEW_YEAR + 1000, "description": "äö A*B"},
    ),
    Version(7, model="CHURN", columns={"source": "\U0001f600", "git_commit": "ab"}),
]
MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "churn": {"tags": {"team": "risk"}, "columns": {"owner": "ann", "mlflow_time": NEW_YEAR}},
    "Café 2": {"tags": {"mlflow.prompt.is_prompt": "true"}, "columns": {"create_time": NEW_YEAR}},
    "CHURN": {"tags": {"mlflow.prompt.is_prompt": "false"}, "columns": {}},
}


def row(table: Any, **given: Any) -> dict[str, Any]:
    """Fill every column that is not given with its type's empty value."""
    empty = {str: "", int: 0, bool: False, bytes: b""}
    return {
        column.name: empty.get(column.type.python_type)
        for column in table.__table__.columns
        if not column.nullable
    } | given


def fill(connection: sa.Connection) -> None:
    def add(table: Any, **given: Any) -> None:
        connection.execute(sa.insert(table), row(table, **given))

    add(schema.Namespace, name="n")
    for name, model in MODELS.items():
        add(schema.Model, id=name, name=name, namespace="n", **model["columns"])
        for key, value in model["tags"].items():
            add(schema.ModelTag, model_id=name, key=key, value=value)
    for version in VERSIONS:
        mine = {"model_id": version.model, "number": version.number}
        add(schema.Version, **mine, **version.columns)
        for key, value in version.tags.items():
            add(schema.VersionTag, **mine, key=key, value=value)
        for key, value in version.params.items():
            add(schema.VersionParam, **mine, key=key, value=value)
        for (key, dataset), measured in version.metrics.items():
            add(schema.LatestMetric, **mine, key=key, dataset=dataset, value=measured)
        for ended, stages in [(None, version.stages), (9, version.left)]:
            for stage in stages:
                add(
                    schema.StageHolder,
                    **mine,
                    stage_key=stage.lower(),
                    stage=stage,
                    left_revision=ended,
                )
        for ended, aliases in [(None, version.aliases), (9, version.unset)]:
            for alias in aliases:
                # Of one model, an alias is on one version at a time.
                since = 1 if ended is None else 2
                add(
                    schema.AliasHolder,
                    **mine,
                    alias=alias,
                    set_revision=since,
                    unset_revision=ended,
                )


@pytest.fixture(scope="module")
def catalog(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        fill(connection)
        yield connection
        connection.rollback()


def found_versions(catalog: sa.Connection, text: str) -> list[tuple[str, int]]:
    version, model = schema.Version, schema.Model
    statement = (
        sa.select(model.name, version.number)
        .join(model, model.id == version.model_id)
        .where(filters.versions(text))
    )
    order = [version.key for version in VERSIONS]
    return sorted(((r.name, r.number) for r in catalog.execute(statement)), key=order.index)


def found_models(catalog: sa.Connection, text: str) -> list[str]:
    statement = sa.select(schema.Model.name).where(filters.models(text))
    return sorted(catalog.scalars(statement), key=list(MODELS).index)


CHURN = [("churn", number) for number in (1, 2, 3, 4)]
C1, C2, C3, C4 = CHURN
CAFE, BIG = ("Café 2", 1), ("CHURN", 7)
ALL = [*CHURN, CAFE, BIG]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ALL),
        ("  \n", ALL),
        ("name = 'churn'", CHURN),
        ('NAME = "churn"', CHURN),
        ("`name` = 'churn' and Version > 2", [C3, C4]),
        ("attribute.name == 'churn' AND attributes.version_number >= 3", [C3, C4]),
        ("name = 'Cafe\u0301 2'", [CAFE]),
        ("name <> 'churn'", [CAFE, BIG]),
        ("name IN ('churn', 'x') and not version in (1, 2)", [C3, C4]),
        ("name > 'D'", CHURN),
        ("name BETWEEN 'CHURN' AND 'D'", [CAFE, BIG]),
        ("name NOT BETWEEN 'CHURN' AND 'D'", CHURN),
        ("name IS NULL", []),
        ("version = 1", [C1, CAFE]),
        ("version = 1.0", [C1, CAFE]),
        ("version = 1.5", []),
        ("version != 1.5", ALL),
        ("version > 2.5", [C3, C4, BIG]),
        ("version <= 1e0", [C1, CAFE]),
        ("version < 99999999999999999999999", ALL),
        ("version > -99999999999999999999999", ALL),
        ("version IN (1.5, 2, 99999999999999999999999)", [C2]),
        ("version BETWEEN 2 AND 3", [C2, C3]),
        ("version BETWEEN 1.5 AND 2.5", [C2]),
        ("tags.team = 'risk'", [C1]),
        ("tag.team ILIKE 'RISK'", [C1, C2]),
        ("tags.team LIKE 'r%'", [C1]),
        ("tags.team != 'risk'", [C2, C3, C4, CAFE, BIG]),
        ("tags.team NOT IN ('risk', 'Risk', '')", [C4, CAFE, BIG]),
        ("tags.team NOT LIKE '%'", [C4, BIG]),
        ("tags.team IS NULL", [C4, BIG]),
        ("tags.team IS NOT NULL AND tags.team <> 'risk'", [C2, C3, CAFE]),
        ("tags.team = ''", [C3]),
        ("tags.`odd key` = 'x'", [C2]),
        ("tags.\"odd key\" = 'x'", [C2]),
        ("tags.`a``b` = 'it''s'", [C2]),
        ("tags.`a``b` = \"it's\"", [C2]),
        ("tags.Team = 'risk'", []),
        ("any_version_tags.team = 'risk'", CHURN),
        ("NOT any_version_tags.team = 'risk'", [CAFE, BIG]),
        ("any_version_tags.team IS NULL", [BIG]),
        ("params.lr < '0.1'", [C4]),
        ("param.opt = 'Adam'", [C4]),
        ("metrics.auc >= 0.5", [C1, C2]),
        ("metric.auc > .5", [C2]),
        ("metrics.auc = -1", [C4]),
        ("metrics.auc != 0.5", [C2, C4]),
        ("NOT metrics.auc = 0.5", [C3, C4, CAFE, BIG]),
        ("metrics.auc NOT IN (0.5, 0.9)", [C4]),
        ("metrics.auc NOT BETWEEN 0 AND 0.6", [C2, C4]),
        ("metrics.auc IS NULL", [C3, CAFE, BIG]),
        ("metrics.auc IS NOT NULL", [C1, C2, C4]),
        ("metrics.loss > 1e308", [C3]),
        ("metrics.loss < 0", [C4]),
        ("metrics.loss >= 1e999", [C3]),
        ("stage = 'production'", [C2, CAFE]),
        ("current_stage = 'PRODUCTION'", [C2, CAFE]),
        ("stage != 'Production'", [C1, C3, C4, BIG]),
        ("stages IN ('staging', 'shadow')", [C2, C3]),
        ("stage LIKE 'PROD%'", [C2, CAFE]),
        ("stage IS NULL", [C4, BIG]),
        ("stage = 'None'", [C4, BIG]),
        ("stage != 'none'", [C1, C2, C3, CAFE]),
        ("stage IN ('None', 'Staging')", [C3, C4, BIG]),
        ("alias = 'champion'", [C2, CAFE]),
        ("alias = 'best'", []),
        ("alias IS NOT NULL AND alias != 'Best'", [C2]),
        ("status = 'READY'", [C2, CAFE]),
        ("status IN ('model_version_status_ready', 'Failed_Registration')", [C2, C3, CAFE]),
        ("status != 'READY'", [C1, C3, C4, BIG]),
        ("creator = 'ann'", [C3]),
        ("creator IS NOT NULL", [C3]),
        ("run_id = 'r1'", [C2]),
        ("run_id ILIKE 'r_'", [C2, C4]),
        ("run_id IS NULL", [C1, C3, CAFE, BIG]),
        ("git_commit = 'ab' or experiment > ''", [BIG]),
        (r"source LIKE '%50\%\_off\\x'", [C2]),
        (r"source LIKE '%50\%_off_x'", [C2]),
        (r"source = 's3://b/50%_off\x'", [C2]),
        (r"source_path LIKE '%off\\_'", [C2]),
        (r"source LIKE '%5\0%'", [C2]),
        ("source LIKE '_'", [BIG]),
        ("description LIKE '%a*b?[c]'", [C4]),
        ("description LIKE '%a*B%'", []),
        ("description ILIKE '%A*B%'", [C4, CAFE]),
        ("description ILIKE 'Ä%'", [C4]),
        ("description LIKE '%[ac]%'", []),
        ("create_time = '2026-01-01T00:00:00Z'", [C3]),
        ("create_time = '2026-01-01t01:00:00.000999+01:00'", [C4]),
        ("create_time = 1767225600000", [C3, C4]),
        ("creation_timestamp != 1767225600000", [C1, C2, CAFE, BIG]),
        ("create_time <= 1767225600000 AND create_time >= 1767225600000", [C3, C4]),
        ("create_time > 1767225600000", [CAFE]),
        ("create_time < 1767225600001 AND create_time > 0", [C3, C4]),
        ("create_time BETWEEN 1767225600000 AND '2026-01-01T00:00:00.001Z'", [C3, C4, CAFE]),
        ("create_time > 9223372036854775807", []),
        ("update_time < '0001-01-01T00:00:00+14:00'", []),
        ("last_updated_timestamp IS NULL", []),
        ("version = 1 OR version = 2 AND name = 'x'", [C1, CAFE]),
        ("(version = 1 OR version = 2) AND name = 'churn'", [C1, C2]),
        ("NOT version = 1 AND NOT (version = 2 OR version = 3)", [C4, BIG]),
        ("not not version=1", [C1, CAFE]),
        ("tags.in = 'x' or version in(1)and name='churn'", [C1]),
        ("name\n=\t'churn'\r\nAND(version=1)", [C1]),
    ],
)  # fmt: skip
def test_versions_are_found(
    catalog: sa.Connection, text: str, found: list[tuple[str, int]]
) -> None:
    assert found_versions(catalog, text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["churn", "Café 2", "CHURN"]),
        ("name ILIKE 'churn'", ["churn", "CHURN"]),
        ("tag.`mlflow.prompt.is_prompt` != 'true'", ["churn", "CHURN"]),
        ("tags.mlflow.prompt.is_prompt = 'true'", ["Café 2"]),
        ("owner = 'ann' AND tags.team = 'risk'", ["churn"]),
        ("owner IS NULL", ["Café 2", "CHURN"]),
        ("stage = 'Production'", ["churn", "Café 2"]),
        ("stage != 'Staging'", ["Café 2", "CHURN"]),
        ("stage = 'None'", ["CHURN"]),
        ("alias = 'Best'", ["Café 2"]),
        ("aliases IS NULL", ["CHURN"]),
        ("create_time >= '2026-01-01T00:00:00Z'", ["Café 2"]),
        ("last_updated_timestamp = 1767225600000", ["churn"]),
        ("update_time = 0 and creator = '' and description IS NULL", ["churn", "Café 2", "CHURN"]),
    ],
)
def test_models_are_found(catalog: sa.Connection, text: str, found: list[str]) -> None:
    assert found_models(catalog, text) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stage = = 'x'", "at character 9: expected a text in quotes or a number, found ="),
        ("stage =", "at character 8: it ends where a text in quotes or a number was expected"),
        ("name = churn", "at character 8: expected a text in quotes or a number, found churn; put"),
        ("name", "at character 5: it ends where a comparison (=, !=, <, <=, >, >=, LIKE, ILIKE,"),
        ("name = 'churn", "at character 8: the quote is never closed"),
        ("name = 'it\\'s'", "13: expected AND, OR or the end, found s; a quote inside"),
        ("name = 'a' && version = 1", "at character 12: & is no operator here; write AND"),
        ("name = 'a'; DROP TABLE models", "at character 11: can't read ; DROP TABLE models"),
        ("(name = 'a'", 'it ends where ")" was expected'),
        ("name = 'a')", "at character 11"),
        ("AND name = 'a'", "at character 1: expected a field such as name or tags.team, NOT or"),
        ("name = 'a' version = 1", "at character 12: expected AND, OR or the end, found version"),
        ("name IN ()", "at character 10: expected a text in quotes or a number"),
        ("name IN ('a' 'b')", "at character 14"),
        ("'a' = name", "at character 1: expected a field"),
        ("name = (SELECT 1)", "at character 8"),
        ("version = 3abc", "at character 11"),
        ("stag = 'x'", 'at character 1: versions have no field "stag"; did you mean "stage"?'),
        ("version = 1 AND tag = 'x'", 'at character 17: versions have no field "tag"'),
        ("colour = 'x'", "Fields are name, version, stage,"),
        ("tags.`` = 'x'", "at character"),
        ("things.x = 'x'", 'no field "things.x"'),
        ("name = 3", "at character 8: expected a name in quotes, found 3"),
        ("name IN ('a', 3)", "at character 15: expected a name in quotes, found 3"),
        ("name LIKE 3", "at character 11: expected a name in quotes"),
        ("version = '3'", "at character 11: expected a number, found '3'"),
        ("version LIKE '3'", 'at character 1: "version" can\'t be compared by LIKE; use one of <,'),
        ("metrics.auc = 'x'", "at character 15: expected a number, found 'x'"),
        ("metrics.auc LIKE 'x'", "can't be compared by LIKE"),
        ("params.lr > 0.1", "at character 13: expected a text in quotes, found 0.1"),
        ("stage > 'Staging'", "can't be compared by >; use one of =, ILIKE, IN, IS, LIKE"),
        ("status = 'DONE'", "one of 'PENDING_REGISTRATION', 'READY', 'FAILED_REGISTRATION'"),
        ("status = 2", "found 2"),
        ("status LIKE 'R%'", "can't be compared by LIKE"),
        ("create_time > 'yesterday'", "a time such as '2026-01-31T12:00:00Z', or whole"),
        ("create_time > '2026-01-01T00:00:00'", "found '2026-01-01T00:00:00'"),
        ("create_time > '2026-02-30T00:00:00Z'", "expected a time"),
        ("create_time > 1.5", "expected a time"),
        ("create_time IN (1)", "can't be compared by IN"),
        ("name LIKE 'a\\'", "at character 11: the pattern ends in a backslash"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_where_it_stands(text: str, told: str) -> None:
    with pytest.raises(RegistryError) as refused:
        filters.versions(text)

    assert refused.value.reason == "INVALID_FILTER"
    assert refused.value.fields[0].field == "filter"
    assert told in refused.value.fields[0].description
    assert "_" not in re.sub(r"[a-z]+_[a-z_]+|[A-Z]+_[A-Z]+", "", refused.value.message)


def test_models_are_not_asked_for_what_versions_have() -> None:
    with pytest.raises(RegistryError, match=r"models have no field .metrics\.auc.*tags\.KEY"):
        filters.models("metrics.auc > 1")


def nested(depth: int) -> str:
    return "(" * depth + "version = 1" + ")" * depth


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        (nested(32), nested(33)),
        ("NOT " * 32 + "version = 1", "NOT " * 33 + "version = 1"),
        (nested(32), nested(4900)),
        ("NOT(" * 16 + "version = 1" + ")" * 16, "NOT(" * 17 + "version = 1" + ")" * 17),
        (" OR ".join(["version = 1"] * 100), " OR ".join(["version = 1"] * 101)),
        (
            f"version IN ({','.join(['1'] * 1000)})",
            f"version IN ({','.join(['1'] * 1001)})",
        ),
        ("version = 1".ljust(10_000), "version = 1".ljust(10_001)),
    ],
)
def test_a_filter_has_bounds(catalog: sa.Connection, within: str, beyond: str) -> None:
    found_versions(catalog, within)

    with pytest.raises(RegistryError) as refused:
        filters.versions(beyond)

    assert refused.value.reason == "INVALID_FILTER"


def test_no_value_becomes_part_of_the_statement() -> None:
    values = ["v1'x", "v2%x", "v3", "v4", "v5", "v6"]
    text = (
        "tags.`v5` = 'v1''x' AND name LIKE 'v2%x' AND stage IN ('v3', 'v4') AND metrics.v6 > 17.25"
    )

    statement = str(sa.select(schema.Version).where(filters.versions(text)))

    assert not any(value in statement for value in [*values, "17.25"])


# The same questions asked of the fixture above in plain Python.

COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.eq, "<>": operator.eq,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
TEXTS = ["", "a", "risk", "Risk", "0.1", "it's", "r1", "Ä", "churn", "\\", "%", '"']
PATTERNS = ["%", "_", "r%", "R_", "%i%k", "%s%", "\\%", "%\\\\%", "Ä%", "[a]", "*", "?_", "%%", ""]
NUMBERS = [-1, 0, 0.5, 0.9, 1, 2, 3.5, 7, 1e300]
STAGE_NAMES = ["Production", "STAGING", "archived", "None", "x"]


def texts_of(version: Version, word: str) -> list[str]:
    group, _, key = word.partition(".")
    if group == "tags":
        return [version.tags[key]] if key in version.tags else []
    if group == "params":
        return [version.params[key]] if key in version.params else []
    if word == "alias":
        return list(version.aliases)
    return [version.model if word == "name" else version.columns.get(word, "")]


def numbers_of(version: Version, word: str) -> list[float]:
    if word == "version":
        return [version.number]
    key = word.partition(".")[2]
    return [v for (k, _), v in version.metrics.items() if k == key and v is not None]


def matches(pattern: str, text: str, *, folded: bool) -> bool:
    if folded:
        pattern, text = (re.sub("[A-Z]", lambda c: c[0].lower(), each) for each in (pattern, text))
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"%": ".*", "_": "."}
    return bool(
        re.fullmatch("".join(wild.get(p) or re.escape(p[-1]) for p in parts), text, re.DOTALL)
    )


Question = tuple[str, Callable[[Version], bool]]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@st.composite
def text_questions(draw: st.DrawFn) -> Question:
    word = draw(
        st.sampled_from(
            ["name", "tags.team", "tags.a", "params.lr", "run_id", "source", "description", "alias"]
        )
    )
    if draw(st.booleans()):
        pattern = draw(st.sampled_from(PATTERNS))
        like = draw(st.sampled_from(["LIKE", "ILIKE"]))
        negated = draw(st.booleans())

        def is_like(version: Version) -> bool:
            values = texts_of(version, word)
            return negated != any(matches(pattern, v, folded=like == "ILIKE") for v in values)

        return f"{word} {'NOT ' * negated}{like} {quoted(pattern)}", is_like
    if draw(st.booleans()):
        values = draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3))
        negated = draw(st.booleans())
        listed = ", ".join(quoted(value) for value in values)
        return (
            f"{word} {'NOT ' * negated}IN ({listed})",
            lambda version: negated != any(v in values for v in texts_of(version, word)),
        )
    value = draw(st.sampled_from(TEXTS))
    sign = draw(st.sampled_from(["=", "!=", "<>"] if word == "alias" else sorted(COMPARED)))
    return (
        f"{word} {sign} {quoted(value)}",
        lambda version: (
            (sign in {"!=", "<>"}) != any(COMPARED[sign](v, value) for v in texts_of(version, word))
        ),
    )


@st.composite
def number_questions(draw: st.DrawFn) -> Question:
    word = draw(st.sampled_from(["version", "metrics.auc", "metrics.loss"]))
    first, second = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(NUMBERS))
    negated = draw(st.booleans())
    is_not = "NOT " * negated
    if draw(st.booleans()):
        return (
            f"{word} {is_not}BETWEEN {first} AND {second}",
            lambda version: any(
                negated != (first <= v <= second) for v in numbers_of(version, word)
            ),
        )
    if draw(st.booleans()):
        return (
            f"{word} {is_not}IN ({first}, {second})",
            lambda version: any(
                negated != (v in {first, second}) for v in numbers_of(version, word)
            ),
        )
    sign = draw(st.sampled_from(sorted(COMPARED)))
    opposite = sign in {"!=", "<>"}
    return (
        f"{word}{sign}{first}",
        lambda version: any(
            opposite != COMPARED[sign](v, first) for v in numbers_of(version, word)
        ),
    )


@st.composite
def stage_questions(draw: st.DrawFn) -> Question:
    names = draw(st.lists(st.sampled_from(STAGE_NAMES), min_size=1, max_size=3))
    negated = draw(st.booleans())
    wanted = {name.lower() for name in names}

    def holds(version: Version) -> bool:
        held = {stage.lower() for stage in version.stages} or {"none"}
        return negated != bool(held & wanted)

    return f"stage {'NOT ' * negated}IN ({', '.join(map(quoted, names))})", holds


def joined(inner: st.SearchStrategy[Question]) -> st.SearchStrategy[Question]:
    def both(pair: tuple[Question, Question, str]) -> Question:
        (left, is_left), (right, is_right), word = pair
        meet = {
            "AND": lambda v: is_left(v) and is_right(v),
            "OR": lambda v: is_left(v) or is_right(v),
        }
        return f"({left}) {word} ({right})", meet[word]

    def opposite(question: Question) -> Question:
        text, holds = question
        return f"NOT ({text})", lambda version: not holds(version)

    return st.tuples(inner, inner, st.sampled_from(["AND", "OR"])).map(both) | inner.map(opposite)


questions = st.recursive(
    text_questions() | number_questions() | stage_questions(), joined, max_leaves=5
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(question=questions)
def test_databases_answer_as_plain_python_does(catalog: sa.Connection, question: Question) -> None:
    text, holds = question

    assert found_versions(catalog, text) == [v.key for v in VERSIONS if holds(v)]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["name", "tags.a", "=", "!", "'a'", '"', "`", "(", ")", "AND", "NOT", "IN", "3", ","]
        )
        | st.text(max_size=3),
        max_size=8,
    )
)  # fmt: skip
def test_any_text_is_understood_or_refused(words: list[str]) -> None:
    text = " ".join(words)

    try:
        str(filters.versions(text))
    except RegistryError as error:
        reason = error.reason
    else:
        reason = "INVALID_FILTER"

    assert reason == "INVALID_FILTER"


def test_a_filter_seen_before_is_not_parsed_again() -> None:
    filter_trees._remembered.cache_clear()

    filters.versions("name = 'a'")
    filters.versions("name = 'a'")

    assert filter_trees._remembered.cache_info().hits == 1


def test_a_long_filter_is_not_kept() -> None:
    # Its tree takes fifty times its length, and anybody can send another one each time.
    filter_trees._remembered.cache_clear()

    filter_trees.parse(f"version IN ({', '.join(['1'] * 900)})")

    assert filter_trees._remembered.cache_info().currsize == 0


def test_the_new_year_is_what_it_is_taken_for() -> None:
    assert dt.datetime.fromtimestamp(NEW_YEAR / 1e6, dt.UTC).isoformat() == (
        "2026-01-01T00:00:00+00:00"
    )


def test_sqlite_asks_each_version_for_its_metrics_and_not_a_metric_for_its_versions(
    sqlite_url: str,
) -> None:
    engine = sa.create_engine(sqlite_url)
    statement = sa.select(schema.Version).where(filters.versions("metrics.auc > 0.1"))
    text = statement.compile(engine, compile_kwargs={"literal_binds": True})

    with engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}")]
    engine.dispose()

    assert any("latest_metrics" in step and "(model_id=? AND number=?" in step for step in plan)
