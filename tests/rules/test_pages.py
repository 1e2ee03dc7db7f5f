"""Walking through pages gives every row once, in the order asked for, on every database."""

from __future__ import annotations

import base64
import functools
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stagewire.errors import RegistryError
from stagewire.store import pages, schema
from stagewire.store.pages import Key

INFINITY = math.inf


class Item(NamedTuple):
    id: int
    name: str
    number: int
    score: float | None


items = sa.Table(
    "page_items",
    sa.MetaData(),
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", schema.TEXT, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("score", schema.DOUBLE),
)
COLUMNS = {"id": items.c.id, "name": items.c.name, "number": items.c.number, "score": items.c.score}

names = st.sampled_from(["", "a", "B", "b", "ä", "a%", "\U0001f600", "\uffff", "'\"\\\x01"])
numbers = st.sampled_from([0, 1, 2, -1, 2**63 - 1, -(2**63)])
scores = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1.0, 1 / 3, INFINITY, -INFINITY, 5e-324, 1.7976931348623157e308]),
)
rows = st.lists(
    st.builds(Item, st.integers(0, 10**6), names, numbers, scores),
    max_size=25,
    unique_by=lambda item: item.id,
)
orders = st.lists(
    st.tuples(st.sampled_from(["name", "number", "score"]), st.booleans()),
    max_size=3,
    unique_by=lambda term: term[0],
)
fast = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def keys_of(order: Sequence[tuple[str, bool]], *, ids_descending: bool) -> list[Key]:
    named = [Key(COLUMNS[name], desc, nullable=name == "score") for name, desc in order]
    return [*named, Key(items.c.id, ids_descending)]


def expected(
    content: Sequence[Item], order: Sequence[tuple[str, bool]], *, ids_descending: bool
) -> list[Item]:
    """Sort as the contract says: each key in its direction, what has none last."""
    arranged = list(content)
    for name, descending in reversed([*order, ("id", ids_descending)]):
        read = functools.partial(lambda name, item: getattr(item, name), name)
        having = [item for item in arranged if read(item) is not None]
        lacking = [item for item in arranged if read(item) is None]
        arranged = sorted(having, key=read, reverse=descending) + lacking
    return arranged


def page(
    connection: sa.Connection, keys: Sequence[Key], token: str, size: int, *query: object
) -> tuple[list[Item], str]:
    paged = pages.paginate(sa.select(items), keys, token=token, size=size, query=query)
    found, token = paged.split(connection.execute(paged.statement).all())
    return [Item(row.id, row.name, row.number, row.score) for row in found], token


@pytest.fixture
def table(connection: sa.Connection) -> Iterator[sa.Connection]:
    items.create(connection)
    yield connection
    connection.rollback()
    items.drop(connection, checkfirst=True)
    connection.commit()


@fast
@given(content=rows, order=orders, ids_descending=st.booleans(), size=st.integers(1, 7))
def test_pages_together_are_the_whole_in_its_order(
    table: sa.Connection,
    content: list[Item],
    order: list[tuple[str, bool]],
    ids_descending: bool,
    size: int,
) -> None:
    table.execute(items.delete())
    if content:
        table.execute(items.insert(), [item._asdict() for item in content])
    keys = keys_of(order, ids_descending=ids_descending)

    found: list[Item] = []
    token, more = "", True
    while more:
        rows, token = page(table, keys, token, size)
        found += rows
        more = bool(token)
        assert len(rows) == size or not more

    assert found == expected(content, order, ids_descending=ids_descending)


@fast
@given(
    content=rows,
    order=orders,
    ids_descending=st.booleans(),
    size=st.integers(1, 5),
    changes=st.lists(st.tuples(st.integers(0, 24), rows), max_size=6),
)
def test_rows_that_stay_are_given_once_whatever_comes_and_goes(
    *,
    table: sa.Connection,
    content: list[Item],
    order: list[tuple[str, bool]],
    ids_descending: bool,
    size: int,
    changes: list[tuple[int, list[Item]]],
) -> None:
    table.execute(items.delete())
    if content:
        table.execute(items.insert(), [item._asdict() for item in content])
    keys = keys_of(order, ids_descending=ids_descending)
    staying, used = set(content), {item.id for item in content}

    found: list[Item] = []
    token, more = "", True
    while more:
        rows, token = page(table, keys, token, size)
        found += rows
        more = bool(token)
        if changes:
            place, coming = changes.pop()
            if place < len(content):
                staying.discard(content[place])
                table.execute(items.delete().where(items.c.id == content[place].id))
            fresh = [item._asdict() for item in coming if item.id not in used]
            used |= {item.id for item in coming}
            if fresh:
                table.execute(items.insert(), fresh)

    assert len(found) == len(set(found))
    arranged = expected(content, order, ids_descending=ids_descending)
    assert [i for i in found if i in staying] == [i for i in arranged if i in staying]


def filled(table: sa.Connection, count: int) -> list[Key]:
    table.execute(items.insert(), [Item(i, "n", 0, None)._asdict() for i in range(count)])
    return [Key(items.c.id)]


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (7, 7), (1000, 1000), (5000, 1000)])
def test_a_page_is_as_large_as_asked_within_bounds(
    table: sa.Connection, asked: int, given: int
) -> None:
    keys = filled(table, 1001)

    found, token = page(table, keys, "", asked)

    assert len(found) == given
    assert token


def test_the_last_page_has_no_token_even_when_it_is_full(table: sa.Connection) -> None:
    keys = filled(table, 4)

    _, token = page(table, keys, "", 2)
    found, end = page(table, keys, token, 2)

    assert [item.id for item in found] == [2, 3]
    assert end == ""


def test_the_page_size_may_change_on_the_way(table: sa.Connection) -> None:
    keys = filled(table, 5)

    _, token = page(table, keys, "", 1)
    found, _ = page(table, keys, token, 4)

    assert [item.id for item in found] == [1, 2, 3, 4]


def refusal(token: str, keys: Sequence[Key] = (Key(items.c.id),), *query: object) -> str:
    with pytest.raises(RegistryError) as refused:
        pages.paginate(sa.select(items), keys, token=token, size=1, query=query)
    assert refused.value.reason == "INVALID_PAGE_TOKEN"
    assert refused.value.fields[0].field == "page_token"
    return refused.value.message


def token_of(table: sa.Connection, *query: object) -> str:
    return page(table, filled(table, 2), "", 1, *query)[1]


def test_a_token_of_another_query_is_refused(table: sa.Connection) -> None:
    token = token_of(table, "ListModels", "default", "name = 'a'")

    for query in [(), ("ListModels", "default", "name = 'b'"), ("ListModels", "x", "name = 'a'")]:
        assert "another query" in refusal(token, (Key(items.c.id),), *query)


def test_a_token_of_another_direction_is_refused(table: sa.Connection) -> None:
    assert "another query" in refusal(token_of(table), [Key(items.c.id, descending=True)])


def test_any_changed_character_of_a_token_is_noticed(table: sa.Connection) -> None:
    token = token_of(table)

    for place, character in enumerate(token):
        other = "B" if character == "A" else "A"
        refusal(token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("token", ["x", "====", "nonsense", "ä", "-_-_", " ", "\0", "A" * 4096])
def test_nonsense_is_no_token(token: str) -> None:
    assert "damaged" in refusal(token)


def test_a_shortened_or_lengthened_token_is_refused(table: sa.Connection) -> None:
    token = token_of(table)

    for damaged in [token[:-1], token[:-2], token[4:], token + "A", token + "=", token + "AAAA"]:
        assert "damaged" in refusal(damaged)


def forged(values: object, keys: Sequence[Key]) -> str:
    """Make a token whose checksums are right."""
    query_digest = pages._digest(repr(((), [key.descending for key in keys])).encode())
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    packed = query_digest + zlib.compress(text)
    return base64.urlsafe_b64encode(pages._digest(packed) + packed).decode().rstrip("=")


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        1,
        ["a", 1.0],
        ["a", 1.0, 1, 1],
        [1, 1.0, 1],
        ["a", 1, 1],
        ["a", "x", 1],
        ["a", 1.0, 1.0],
        ["a", 1.0, True],
        ["a", 1.0, None],
        [None, 1.0, 1],
        ["a", math.nan, 1],
        ["a", 1.0, 2**63],
        ["\0", 1.0, 1],
        ["\ud800", 1.0, 1],
        b"not json",
        b"\xff",
        b"[" * 10_000,
        b'["' + b"a" * 10**6 + b'", 1.0, 1]',
        b"[1" + b"0" * 5000 + b"]",
    ],
)
def test_a_forged_token_reaches_no_database(values: object) -> None:
    keys = [Key(items.c.name), Key(items.c.score, nullable=True), Key(items.c.id)]
    pages.paginate(sa.select(items), keys, token=forged(["a", None, 1], keys), size=1, query=())

    assert "damaged" in refusal(forged(values, keys), keys)


def test_the_longest_keys_fit_into_a_token(table: sa.Connection) -> None:
    keys = [Key(items.c.name), Key(items.c.id)]
    for number, character in enumerate(["\x01", '"', "\U0001f600", "é"]):
        table.execute(items.insert(), Item(number, character * 1200, 0, None)._asdict())

    token = ""
    for _ in range(3):
        _, token = page(table, keys, token, 1)
        assert 0 < len(token) <= 4096


def terms(keys: Sequence[Key]) -> list[tuple[str, bool]]:
    return [(str(key.expression), key.descending) for key in keys]


@pytest.mark.parametrize(
    ("order_by", "meant"),
    [
        ("", [("Model.name", False), ("Model.id", False)]),
        ("  ", [("Model.name", False), ("Model.id", False)]),
        ("name DESC", [("Model.name", True), ("Model.id", True)]),
        ("create_time", [("Model.create_time", False), ("Model.id", False)]),
        (" Update_Time  asc ", [("Model.update_time", False), ("Model.id", False)]),
        ("attribute.timestamp desc", [("Model.mlflow_time", True), ("Model.id", True)]),
        (
            "update_time desc, name",
            [("Model.update_time", True), ("Model.name", False), ("Model.id", False)],
        ),
    ],
)
def test_models_are_ordered_as_asked(order_by: str, meant: list[tuple[str, bool]]) -> None:
    assert terms(pages.order_models(order_by)) == meant


@pytest.mark.parametrize(
    ("order_by", "meant"),
    [
        ("", ["Version.create_time desc", "Version.model_id desc", "Version.number desc"]),
        ("version", ["Version.number", "Version.model_id"]),
        ("version_number desc", ["Version.number desc", "Version.model_id desc"]),
        ("name", ["Model.name", "Version.model_id", "Version.number"]),
        (
            "last_updated_timestamp DESC,name ASC,version_number DESC",
            ["Version.mlflow_time desc", "Model.name", "Version.number desc",
             "Version.model_id desc"],
        ),
    ],
)  # fmt: skip
def test_versions_are_ordered_as_asked(order_by: str, meant: list[str]) -> None:
    found = terms(pages.order_versions(order_by))

    assert [f"{name} desc" if desc else name for name, desc in found] == meant


@pytest.mark.parametrize(
    "order_by",
    [
        "colour", "name sideways", "name,", ",name", "name desc desc", "metrics.", "metrics",
        "tags.a", "name; DROP TABLE models", "name, name", "metrics.``", "name version",
        "create_time, creation_timestamp desc", "metrics.a, metrics.`a`",
        "metrics.a,metrics.b,metrics.c,metrics.d,metrics.e",
    ],
)  # fmt: skip
def test_what_orders_nothing_is_refused(order_by: str) -> None:
    with pytest.raises(RegistryError) as refused:
        pages.order_versions(order_by)

    assert refused.value.reason == "INVALID_ORDER_BY"
    assert refused.value.fields[0].field == "order_by"


def test_a_refused_order_is_told_what_there_is() -> None:
    with pytest.raises(RegistryError, match="name, create_time or update_time, then asc or desc"):
        pages.order_models("metrics.auc")


SCORES: dict[int, dict[str, float | None]] = {
    1: {"": 0.5},
    2: {"": None},
    3: {"a": 0.1, "b": 0.9},
    4: {},
    5: {"": INFINITY},
    6: {"x": 0.5},
}


@pytest.mark.parametrize(
    ("order_by", "numbers"),
    [
        ("metrics.auc desc", [5, 3, 6, 1, 4, 2]),
        ("metric.auc", [3, 1, 6, 5, 2, 4]),
        ('metrics."odd ""key""" desc', [6, 5, 4, 3, 2, 1]),
        ("metrics.`auc` desc, version", [5, 3, 1, 6, 2, 4]),
        ("version", [1, 2, 3, 4, 5, 6]),
    ],
)
def test_versions_without_the_metric_come_last(
    connection: sa.Connection, order_by: str, numbers: list[int]
) -> None:
    model, version = schema.Model, schema.Version
    connection.execute(sa.insert(schema.Namespace), row(schema.Namespace, name="n"))
    connection.execute(sa.insert(model), row(model, id="m", namespace="n"))
    for number, metrics in SCORES.items():
        connection.execute(sa.insert(version), row(version, model_id="m", number=number))
        for dataset, value in metrics.items():
            point = row(schema.LatestMetric, model_id="m", number=number, key="auc")
            connection.execute(
                sa.insert(schema.LatestMetric), point | {"dataset": dataset, "value": value}
            )
    statement = sa.select(version.number).join(model, model.id == version.model_id)

    found: list[int] = []
    token, more = "", True
    while more:
        paged = pages.paginate(
            statement, pages.order_versions(order_by), token=token, size=2, query=(order_by,)
        )
        read, token = paged.split(connection.execute(paged.statement).all())
        found += [each.number for each in read]
        more = bool(token)

    assert found == numbers


def row(table: Any, **given: Any) -> dict[str, Any]:
    """Fill every column that is not given with its type's empty value."""
    empty = {str: "", int: 0, bool: False, bytes: b""}
    return {
        column.name: empty.get(column.type.python_type)
        for column in table.__table__.columns
        if not column.nullable
    } | given
