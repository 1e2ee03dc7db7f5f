"""Random requests: mostly sensible, some hostile, some of the wrong shape."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.mlflow.clients.differential.pairs import Operation

PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}

#: What has broken registries before, or looks as if it might.
NASTY = (
    *("..", ".", "../x", "a/../b", "%2e%2e", "%252e%252e", "..%2f", "a/b", "a:b", "/", ":", "//"),
    *("'", '"', "''", '\\"', "\\", "`", ";--", "' OR '1'='1", "%", "_", "%s", "{}", "{0}", "$x"),
    *("é", "ﬁ", "日本", "🦊", "\u200b", "\u202e", "İ", "ß", "ǅ", "\uffff", "\U0010ffff", "א"),
    *(" ", "\t", "\n", "\x7f", "\x01", "\0", "a\0b", "\ud800", "a\udfffb", " x", "x ", "\xa0"),
    *("null", "None", "true", "1", "-1", "latest", "v1", "@", "a@b", "#", "?", "&", "+", "<b>"),
    *("x" * 250, "x" * 256, "x" * 257, "ü" * 255, "x" * 5001),
)
#: What no model can be called, whatever comes before or after.
no_names = st.sampled_from(["", " ", "\t\n", ".", "..", "/", "a/b", "a:b", "../a", ":"])
hostile = st.sampled_from(NASTY) | st.text(max_size=12)
texts = st.sampled_from(["", "a", "b", "some words", "0"]) | hostile

#: Values that are of another type than a text.
mistyped: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, -5, 1.5, True, False, ["a"], [], [[]], {"a": 1}, {}, 2**70, None, float("nan")]
)

keys = st.sampled_from(["a", "b", "team", "a.b", "a b", "a/b", "ключ"]) | hostile
tags = st.lists(
    st.fixed_dictionaries({"key": keys, "value": texts})
    | st.just(PROMPT)
    | st.sampled_from([{"key": "a"}, {"value": "a"}, {}]),
    max_size=3,
)
stages = st.sampled_from(
    [
        *("None", "Staging", "Production", "Archived", "none", "STAGING", "pRoDuCtIoN", "archived"),
        *("Canary", "", " Staging", "Stagi\u0307ng", "Deleted_Internal", "latest"),
    ]
)
aliases = st.sampled_from(
    [
        *("champion", "challenger", "a-b_c", "ä", "日本", "Champion", "1", "latest", "LATEST"),
        *("v1", "V2", "v", "v1x", "a.b", "a b", "a/b", "", "x" * 255, "x" * 256, "a\n", "٣", "v٣"),
    ]
)
numbers = st.sampled_from(
    [
        *("1", "1", "1", "2", "2", "3", "0", "-1", "9", "99999999999", "x", "1.0", "", " 1 ", "+1"),
        *("01", "1_0", "٣", "1\n", "0x1", "1e1", "--1", "²", "9" * 5000),
    ]
)
sources = st.sampled_from(
    [
        *("s3://bucket/a", "gs://bucket/b", "dbfs:/c", "s3://bucket/a b", "s3://bucket/%41"),
        *("s3://bucket/../x", "s3://bucket/a/..", "s3://b/%2e%2e/x", "s3://b/%252e%252e/x"),
        *("s3://b/..%2fx", "s3://b/x%00", "s3://b/a/./b", "s3://b//a", "s3://b/a\\..\\b", "s3://"),
        *("/etc/passwd", "/a/../b", "file:///etc", "file:/x", "relative", "a/../b", "..", "~", ""),
        *("s3://b/日本", "s3://b/a;b", "s3://b/a#f", "s3://b/a?q=../x", "S3://b/x", "gs://u:p@b/x"),
        *("prompt-template", "dummy-source"),
    ]
)
fields = st.sampled_from(
    ["name", "version", "key", "value", "alias", "stage", "source", "tags", "new_name", "order_by"]
)
methods_of_paths = st.sampled_from(
    [
        ("GET", "registered-models/get"),
        ("GET", "registered-models/search"),
        ("GET", "registered-models/alias"),
        ("GET", "registered-models/get-latest-versions"),
        ("GET", "model-versions/get"),
        ("GET", "model-versions/search"),
        ("GET", "model-versions/get-download-uri"),
        ("POST", "registered-models/create"),
        ("POST", "registered-models/rename"),
        ("PATCH", "registered-models/update"),
        ("DELETE", "registered-models/delete"),
        ("POST", "registered-models/get-latest-versions"),
        ("POST", "registered-models/set-tag"),
        ("DELETE", "registered-models/delete-tag"),
        ("POST", "registered-models/alias"),
        ("DELETE", "registered-models/alias"),
        ("POST", "model-versions/create"),
        ("PATCH", "model-versions/update"),
        ("POST", "model-versions/transition-stage"),
        ("DELETE", "model-versions/delete"),
        ("POST", "model-versions/set-tag"),
        ("DELETE", "model-versions/delete-tag"),
    ]
)

values = st.sampled_from(["a", "b", "", "x%", "%", "_", "A", "it''s", "s3://bucket/a", "run1", "é"])
filters = st.sampled_from(
    [
        *("", " ", "name", "name =", "name = x", "x = 'a'", "name = 'a' OR name = 'b'"),
        *("run_id IN ()", "run_id IN ('a',)", "run_id IN (1)", "version_number = 'a'"),
        *("name LIKE '%' AND", "tags.a IS NULL", "NOT name = 'a'", 'name = "a"', "'a' = name"),
        *("creation_timestamp > 0", "current_stage = 'Staging'", "alias = 'a'", "a'b", "((("),
    ]
) | st.lists(
    st.one_of(
        st.builds(
            "{} {} '{}'".format,
            st.sampled_from(["name", "tags.a", "tag.`team`", 'tags."a b"', "run_id"]),
            st.sampled_from(["=", "!=", "LIKE", "ILIKE", "like", ">"]),
            values,
        ),
        st.builds(
            "version_number {} {}".format,
            st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
            st.integers(-1, 4),
        ),
        st.just("tag.`mlflow.prompt.is_prompt` = 'true'"),
        st.just("tag.`mlflow.prompt.is_prompt` != 'true'"),
        st.just("source_path LIKE 's3%'"),
        st.just("run_id IN ('run1', 'run2')"),
    ),
    min_size=1,
    max_size=3,
).map(" AND ".join)
orders = st.lists(
    st.sampled_from(
        [
            *("name", "name ASC", "name desc", "last_updated_timestamp", "timestamp DESC"),
            *("last_updated_timestamp DESC", "creation_timestamp", "version_number DESC"),
            *("version_number", "colour", "name up", "`name`", "", "name,", "run_id", "tags.a"),
        ]
    ),
    max_size=2,
)
counts = st.sampled_from([1, 2, 3, 1000, 0, -1, 1001, "x", "", "1.5", 200_000, 200_001])


@st.composite
def spoilt(draw: st.DrawFn, operation: Operation) -> Operation:
    """Spoil a request a little: a field goes, is of another type, or comes from nowhere."""
    fields = dict(operation.fields)
    name = draw(st.sampled_from(sorted(fields)))
    match draw(st.sampled_from(["drop", "mistype", "null", "unknown", "nest"])):
        case "drop":
            del fields[name]
        case "mistype":
            fields[name] = draw(mistyped)
        case "null":
            fields[name] = None
        case "unknown":
            fields["colour"] = draw(mistyped)
        case _:
            fields[name] = [fields[name]]
    return Operation(operation.method, operation.path, fields)
