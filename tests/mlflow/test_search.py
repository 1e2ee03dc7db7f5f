"""MLflow's own store and ours find the same, in the same order, and refuse in the same words."""

from __future__ import annotations

import json
import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagewire import pb
from stagewire.callers import ANONYMOUS
from stagewire.errors import RegistryError
from stagewire.mlflow import filters
from stagewire.mlflow.errors import MlflowError, translated
from stagewire.service.registry import Registry
from stagewire.store import upgrades
from stagewire.store.opening import open_database
from tests import factories
from tests.mlflow.processes import mlflow_python

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "mlflow.prompt.is_prompt"

NAMES = ["a", "A", "ab", "a_b", "aXb", "a%b", "a\\b", "it's", 'q"t', "日本", "é", "b c", "`b`"]
VALUES = ["", "v", "V", "v_", "vx", "50%", "a\\b", "it's", "it''s", '"q"', "true", "TRUE", "é", " "]
KEYS = ["k", "K", "a.b", "a b", "team", "version", PROMPT]
RUNS = ["", "r1", "R1", "r_1", "rx1"]
SOURCES = ["s3://b/m", "S3://b/M", "C:\\m\\1", "dbfs:/50%_off"]


class Mlflow:
    """MLflow's store in a process of its own."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("answering.py")
        self.log = (folder / "mlflow.log").open("w")
        self.process = subprocess.Popen(
            [mlflow_python("3"), script, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **given}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, Path(self.log.name).read_text()[-2000:]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self.process.communicate()
        self.log.close()


class Both:
    """The same rows in MLflow's store and in ours."""

    def __init__(self, mlflow: Mlflow, registry: Registry) -> None:
        self.mlflow = mlflow
        self.registry = registry

    def write(self, do: str, **given: Any) -> None:
        answer = self.mlflow.ask(do, **given)
        assert "refused" not in answer, (do, given, answer)
        match do:
            case "model":
                factories.model(self.registry, **given)
            case "version":
                lineage = pb.Lineage(run_id=given.pop("run_id"))
                factories.version(self.registry, lineage=lineage, **given)
            case "describe":
                factories.describe(self.registry, given["name"], given["number"], "anew")
            case "delete":
                request = pb.DeleteModelVersionRequest(
                    model=given["name"], version=given["number"], force=True
                )
                self.registry.DeleteModelVersion(request, ANONYMOUS)

    def compare(self, kind: str, text: str, order_by: list[str]) -> None:
        theirs = self.mlflow.ask(kind, text=text, order_by=order_by)
        ours = self._ask(kind, text, order_by)
        if "found" in theirs:
            assert ours == theirs
        elif "refused" in ours:
            assert ours["code"] == "INVALID_PARAMETER_VALUE"
            # A 5xx of MLflow's is a text that it did not foresee.
            if theirs["code"] == "INVALID_PARAMETER_VALUE":
                assert _even(ours["refused"]) == _even(theirs["refused"])

    def _ask(self, kind: str, text: str, order_by: list[str]) -> dict[str, Any]:
        query = filters.Query("", "")
        try:
            if kind == "models":
                query = filters.models_query(text, order_by)
                asked = pb.ListModelsRequest(
                    filter=query.filter, order_by=query.order_by, page_size=1000
                )
                models = self.registry.ListModels(asked, ANONYMOUS).models
                return {"found": [[model.name] for model in models]}
            query = filters.versions_query(text, order_by)
            request = pb.ListModelVersionsRequest(
                filter=query.filter, order_by=query.order_by, page_size=1000
            )
            versions = self.registry.ListModelVersions(request, ANONYMOUS).versions
            return {"found": [[version.model, version.version] for version in versions]}
        except MlflowError as error:
            refusal = error
        except RegistryError as error:
            refusal = query.refusals.get(error.reason) or translated(error)
        return {"code": refusal.code, "refused": refusal.message}


def _even(text: str) -> str:
    """Bring the sets that a text repeats into one order."""
    return re.sub(r"\{([^{}]*)\}", lambda m: ", ".join(sorted(m[1].split(", "))), text)


@pytest.fixture(scope="module", params=range(3))
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    """Fill both with random rows."""
    folder = tmp_path_factory.mktemp("both")
    url = f"sqlite:///{folder}/stagewire.db"

    upgrades.upgrade(url)
    database = open_database(url)
    registry = Registry(database)
    registry.bootstrap()
    mlflow = Mlflow(folder)
    made = Both(mlflow, registry)
    _fill(made, random.Random(request.param))
    yield made
    mlflow.close()
    database.close()


def _fill(both: Both, chance: random.Random) -> None:
    def tags() -> dict[str, str]:
        keys = chance.sample(KEYS[:-1], chance.randrange(4))
        marked = {PROMPT: chance.choice(["true", "TRUE", "false"])} if chance.random() < 0.3 else {}
        return {key: chance.choice(VALUES) for key in keys} | marked

    for name in chance.sample(NAMES, len(NAMES)):
        both.write("model", name=name, tags=tags())
    made: dict[str, int] = {}
    for _ in range(40):
        name = chance.choice(NAMES)
        source, run = chance.choice(SOURCES), chance.choice(RUNS)
        both.write("version", name=name, source=source, run_id=run, tags=tags())
        made[name] = made.get(name, 0) + 1
    for name in chance.sample(sorted(made), 6):
        both.write("describe", name=name, number=chance.randint(1, made[name]))
    for name in chance.sample(sorted(made), 5):
        both.write("delete", name=name, number=chance.randint(1, made[name]))


def _spelled(word: str) -> st.SearchStrategy[str]:
    return st.sampled_from([word, word.lower(), word.title()])


_VALUES = st.sampled_from([*VALUES, *NAMES, *RUNS, *SOURCES]) | st.text("aAbv_%\\'", max_size=4)
_PATTERNS = st.text("aAbBvVxr1_%\\sS3:/", max_size=5)


def _quoted(value: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"'{value}'", f'"{value}"'])


_KEYS = st.sampled_from(KEYS).flatmap(
    lambda key: st.sampled_from(
        [f"tags.`{key}`", f'tag."{key}"', f"tags.'{key}'", *([f"tags.{key}"] * (" " not in key))]
    )
)
_COMPARED = st.tuples(
    st.sampled_from(["name", "run_id", "source_path", "attribute.name"]) | _KEYS,
    st.sampled_from(["=", "!="]),
    _VALUES.flatmap(_quoted),
)
_LIKE = st.tuples(
    st.sampled_from(["name", "run_id", "source_path"]) | _KEYS,
    st.sampled_from(["LIKE", "ILIKE"]).flatmap(_spelled),
    _PATTERNS.flatmap(_quoted),
)
_LISTED = st.tuples(
    st.sampled_from(["name", "run_id"]),
    st.sampled_from(["IN", "NOT IN"]).flatmap(_spelled),
    st.lists(_VALUES.map(repr), max_size=3).map(lambda values: f"({', '.join(values)})"),
)
_NUMBERED = st.tuples(
    st.just("version_number"),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    st.sampled_from(["1", "2", "'3'", "-1", "0", "'x'", "2.5", str(10**30)]),
)
_PROMPTED = st.tuples(
    st.just(f"tag.`{PROMPT}`"),
    st.sampled_from(["=", "!="]),
    st.sampled_from(["'true'", "'false'", "'TRUE'", "'False'"]),
)
_CLAUSE = (_COMPARED | _LIKE | _LISTED | _NUMBERED | _PROMPTED).flatmap(
    lambda parts: st.sampled_from([" ", "  ", "\n"]).map(lambda blank: blank.join(parts))
)
FILTERS = st.lists(_CLAUSE, max_size=3).flatmap(
    lambda parts: st.sampled_from([" AND ", " and ", "\tAND\n"]).map(lambda word: word.join(parts))
)
_WORDS = st.sampled_from(
    [
        *("name", "run_id", "version_number", "tags.k", "tag.`a b`", "attribute.name", "'v'"),
        *("AND", "and", "OR", "NOT", "IN", "IS", "NULL", "LIKE", "ILIKE", "=", "!=", "<", "=="),
        *("(", ")", "('a','b')", "()", ",", ";", "'a'", '"a"', "`a`", "5", "-1", "2.5", "'1'"),
        *("size", "a.b", "name = 'a'", "run_id IN ('r1')", "--", "/*", "*/", "'", "x"),
    ]
)
SOUP = st.lists(_WORDS, min_size=1, max_size=8).map(" ".join)
ORDERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("name", "timestamp", "last_updated_timestamp", "version_number"),
                *("creation_timestamp", "`name`", "attribute.name", "tag.name", "size", "NAME"),
            ]
        ),
        st.sampled_from(["", " asc", " DESC", "  desc", "\tASC", " up", " asc desc", ";", ","]),
    ).map("".join)
    | st.sampled_from(["", " ", "'name'", '"name" desc', "name'", "TIMESTAMP desc"]),
    max_size=3,
)
_LAWS = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
KINDS = st.sampled_from(["models", "versions"])


@given(kind=KINDS, text=FILTERS)
@_LAWS
def test_filters_find_what_mlflow_finds(both: Both, kind: str, text: str) -> None:
    both.compare(kind, text, [])


@given(kind=KINDS, text=SOUP)
@_LAWS
def test_words_in_any_order_are_read_or_refused_as_mlflow_does(
    both: Both, kind: str, text: str
) -> None:
    both.compare(kind, text, [])


@given(kind=KINDS, order_by=ORDERS)
@_LAWS
def test_orders_are_mlflows(both: Both, kind: str, order_by: list[str]) -> None:
    both.compare(kind, "", order_by)
