"""Filters, orders, tokens and cursors that are long, deep, ambiguous or forged."""

from __future__ import annotations

import base64
import random
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from stagewire import pb
from tests.hostile import calls, visits
from tests.hostile.barrages import Answer, Gun, Kind
from tests.hostile.places import Place, methods

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hostile.targets import Target

#: As long as a filter may be.
_LONGEST = 10_000
_MARKS = "a" + "\u0315\u0300" * 1_500

_FRAGMENTS = (
    *(
        "(",
        ")",
        "()",
        "((",
        "not ",
        "NOT (",
        "a=",
        "a='b' AND ",
        "name = 'x' OR ",
        "name != 'x' AND ",
    ),
    *(
        "name LIKE '%a%a%a%a%' AND ",
        "name ILIKE '%_%_%_%' OR ",
        "tags.`a` = 'b' AND ",
        "tags.a.b.c",
    ),
    *("metrics.auc > 0.1 OR ", "metrics.auc BETWEEN 0 AND 1 AND ", "stage = 'Production' OR "),
    *(
        "alias = 'a' AND ",
        "version IN (1,2,3) OR ",
        "name IN ('a','b') AND ",
        "params.a != 'b' AND ",
    ),
    *(
        "a.",
        "a::",
        "a:=1 ",
        ";",
        "--\n",
        "/*",
        "*/",
        "'",
        '"',
        "`",
        "''",
        "\\",
        "\\'",
        "%",
        "_",
        "#",
    ),
    *(
        "case ",
        "case when ",
        "begin ",
        "end ",
        "if ",
        "for x loop ",
        "union all ",
        "over w ",
        "a as b ",
    ),
    *(
        "a[1]",
        "(a) b ",
        "f(",
        "a+",
        "a,",
        ".",
        "@",
        "$a$",
        "1",
        "1.",
        "1e",
        "-",
        "0x",
        "1e999 ",
        "é",
    ),
    *(
        "from ",
        "where ",
        "create table ",
        "values (1) ",
        "date '1' ",
        "interval ",
        "at time zone ",
    ),
    *(
        "\0",
        "\n",
        "\t",
        "\u3000",
        "\u2028",
        "\ufeff",
        "\U0001f600",
        "\u0301",
        "is null ",
        "between ",
    ),
    *("any_version_tags.a = 'b' AND ", "tag.`mlflow.prompt.is_prompt` = 'true' AND ", "attribute."),
)
_WHOLE = (
    "name = '" + "x" * 9_900 + "'",
    "name LIKE '" + "%a" * 4_900 + "'",
    "name LIKE '" + "%" * 9_000 + "'",
    "name LIKE '" + "_" * 9_000 + "b'",
    "description LIKE '%" + "a" * 5_000 + "b%'",
    "name = '" + _MARKS + "'",
    "stage = '" + _MARKS + "'",
    "name IN (" + ",".join(f"'{number}'" for number in range(990)) + ")",
    "name IN (" + ",".join(["'" + "x" * 40 + "'"] * 220) + ")",
    "version IN (" + ",".join("1" for _ in range(4_900)) + ")",
    "version = " + "9" * 9_000,
    "metrics.auc = " + "1" * 400 + "." + "1" * 9_000,
    "metrics.auc = 1e" + "9" * 5_000,
    "create_time = '9999-99-99T99:99:99Z'",
    "create_time > '0001-01-01T00:00:00+23:59'",
    "create_time > " + "9" * 300,
    "tags." + "a" * 9_900,
    "tags.`" + "``" * 4_900 + "` = 'x'",
    "x" * 9_990,
    "namex = 'y'",
    "NOT " * 2_400 + "name = 'x'",
    "(" * 31 + "name = 'x'" + ")" * 31,
    " AND ".join(["name = 'x'"] * 100),
    " OR ".join(["tags.a = 'x'"] * 100),
    " OR ".join(["metrics.a > 1"] * 100),
    " AND ".join(["stage != 'x'"] * 100),
    "".join(f"(tags.k{n} = 'x' OR (" for n in range(15)) + "name = 'x'" + "))" * 15,
)
_ORDERS = (
    *("name", "name asc, name desc", "metrics." + "a" * 900, "metrics.`" + "``" * 400 + "`"),
    *("," * 900, "name " * 190, "name asc desc", "'" * 900, "`" * 900, "(" * 900, "\0", "\\"),
    *("tags.a", "version_number DESC", "1", "; drop table models", "name--", " " * 900, "\u3000"),
)


def _filter(number: int) -> str:
    if number % 4 == 0:
        return _WHOLE[number // 4 % len(_WHOLE)]
    chance = random.Random(number)
    if number % 4 == 1:
        fragment = _FRAGMENTS[number // 4 % len(_FRAGMENTS)]
        return (fragment * _LONGEST)[:_LONGEST]
    length = chance.choice((20, 200, _LONGEST))
    text = "".join(chance.choices(_FRAGMENTS, k=length // 4))[:length]
    # Another one each time, so that none is answered as one before it.
    return text if number % 4 == 2 else f"name = '{number}' AND " + text[: length - 30]


def _token(number: int) -> str:
    chance = random.Random(number)
    forged: tuple[bytes, ...] = (
        chance.randbytes(chance.randrange(200)),
        zlib.compress(bytes(50_000_000)) if number % 100 == 1 else zlib.compress(b"[" * 10_000),
        zlib.compress(b'["' + b"x" * 16_000 + b'"]'),
        b"[" * 3_000,
        b'{"a": 1}',
        b'["x", NaN, 1e999, "\\ud800", null]',
        b"\x80\x04\x8c\x02os\x8c\x06system\x93",
        b"",
    )
    data = forged[number % len(forged)]
    text = base64.urlsafe_b64encode(data).decode()
    return (text, text.rstrip("="), text.upper(), "%" + text, "=" * 4_000)[number // 8 % 5][:4_096]


@contextmanager
def _called(target: Target) -> Iterator[Gun]:
    named = {method.name: Place(method, ()) for method in methods()}

    def asked(number: int) -> tuple[str, bytes]:
        text, odd = _filter(number), number // 7
        order = _ORDERS[odd % len(_ORDERS)]
        asks = (
            ("ListModels", pb.ListModelsRequest(filter=text)),
            ("ListModelVersions", pb.ListModelVersionsRequest(filter=text)),
            ("ListModelVersions", pb.ListModelVersionsRequest(order_by=order)),
            ("ListModels", pb.ListModelsRequest(page_token=_token(odd))),
            ("ListEvents", pb.ListEventsRequest(page_token=_token(odd))),
            ("Watch", pb.WatchRequest(cursor=_token(odd).encode()[: odd % 60])),
            ("ResolveModelVersion", pb.ResolveModelVersionRequest(uri="models:/" + text[:900])),
        )
        name, request = asks[number % len(asks)]
        return name, request.SerializeToString()

    with calls.caller(target) as caller:

        def shoot(number: int) -> Answer:
            name, request = asked(number)
            return caller.call(named[name], request)

        yield shoot


@contextmanager
def _visited(target: Target) -> Iterator[Gun]:
    writer = visits.Writer(target)
    searches = (
        *("registered-models/search?filter=", "model-versions/search?filter="),
        *("model-versions/search?order_by=", "registered-models/search?order_by="),
        *("registered-models/search?page_token=", "webhooks?page_token="),
    )

    with visits.connection(target) as asks:

        def shoot(number: int) -> Answer:
            search = searches[number % len(searches)]
            odd = number // len(searches)
            text = _filter(odd) if "filter" in search else _token(odd)
            if "order_by" in search:
                text = _ORDERS[odd % len(_ORDERS)]
            # As much as a head may have, once each letter is three.
            path = f"/api/2.0/mlflow/{search}{quote(text)[:60_000]}"
            return asks.ask(writer.written("GET", path.encode(), [], b""))

        yield shoot


def kinds() -> list[Kind]:
    """List the kinds of hostile questions."""
    return [
        Kind("gRPC: filters, orders, tokens and cursors", calls.REFUSALS | {"OK"}, _called),
        Kind("HTTP: filters, orders and tokens", visits.REFUSALS | {"200"}, _visited),
    ]
