"""The limits that the protos state are the limits that hold."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    message_factory,
    text_format,
    timestamp_pb2,
)
from google.protobuf.message import Message

from stagewire import pb
from stagewire.errors import RegistryError
from stagewire.service import limits

#: Shapes of limit that the contract does not use today.
SAMPLE = """
name: "stagewire/sample.proto" package: "stagewire.sample" syntax: "proto3"
dependency: "google/protobuf/duration.proto" dependency: "modelregistry/v1/limits.proto"
message_type {
  name: "Sample"
  field { name: "blob" number: 1 type: TYPE_BYTES label: LABEL_OPTIONAL
          options { [modelregistry.v1.limit] { min_length: 2 max_length: 3 } } }
  field { name: "ratio" number: 2 type: TYPE_DOUBLE label: LABEL_OPTIONAL
          options { [modelregistry.v1.limit] { min: -1 max: 1 } } }
  field { name: "scores" number: 3 type: TYPE_INT64 label: LABEL_REPEATED
          options { [modelregistry.v1.limit] { min: 0 max: 10 max_items: 2 } } }
  field { name: "nick" number: 4 type: TYPE_STRING label: LABEL_OPTIONAL
          proto3_optional: true oneof_index: 0
          options { [modelregistry.v1.limit] { min_length: 2 pattern: "\\\\w+" } } }
  field { name: "inner" number: 5 type: TYPE_MESSAGE type_name: ".stagewire.sample.Sample"
          label: LABEL_OPTIONAL }
  field { name: "spans" number: 6 type: TYPE_MESSAGE type_name: ".google.protobuf.Duration"
          label: LABEL_REPEATED }
  field { name: "by_name" number: 7 type: TYPE_MESSAGE label: LABEL_REPEATED
          type_name: ".stagewire.sample.Sample.ByNameEntry"
          options { [modelregistry.v1.limit] { keys { max_length: 3 } } } }
  field { name: "limit" number: 8 type: TYPE_UINT32 label: LABEL_OPTIONAL
          options { [modelregistry.v1.limit] { max: 5 } } }
  nested_type {
    name: "ByNameEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
    field { name: "value" number: 2 type: TYPE_MESSAGE label: LABEL_OPTIONAL
            type_name: ".stagewire.sample.Sample" }
  }
  oneof_decl { name: "_nick" }
}
"""


@pytest.fixture(scope="module")
def sample() -> Any:
    pool = descriptor_pool.Default()
    file = pool.AddSerializedFile(
        text_format.Parse(SAMPLE, descriptor_pb2.FileDescriptorProto()).SerializeToString()
    )
    return message_factory.GetMessageClass(file.message_types_by_name["Sample"])


def violations(message: Message) -> dict[str, str]:
    with pytest.raises(RegistryError) as refusal:
        limits.check(message)
    assert refusal.value.reason == "INVALID_FIELD"
    return {violation.field: violation.description for violation in refusal.value.fields}


def version(**fields: Any) -> pb.CreateModelVersionRequest:
    return pb.CreateModelVersionRequest(model="m", version=pb.ModelVersion(**fields))


@pytest.mark.parametrize(
    "message",
    [
        pb.GetModelRequest(model="x" * 256),
        pb.GetModelVersionRequest(model="m", version=1),
        pb.CreateModelRequest(model=pb.Model(name="mödel 1", tags={"k" * 250: ""})),
        pb.ListModelsRequest(page_size=1000),
        pb.ResolveModelVersionRequest(model="m", alias="a"),
        version(status=pb.MODEL_VERSION_STATUS_READY, flavors=["sklearn"]),
        version(create_time=timestamp_pb2.Timestamp(seconds=253402300799, nanos=999_999_999)),
        version(create_time=timestamp_pb2.Timestamp(seconds=-62135596800)),
        pb.LogMetricsRequest(
            model="m", version=1, metrics=[pb.Metric(key="a", value=float("nan"))]
        ),
        pb.UpdateModelRequest(
            model="m",
            update=pb.ModelUpdate(),
            update_mask=field_mask_pb2.FieldMask(paths=["a"] * 100),
        ),
    ],
)  # fmt: skip
def test_what_is_within_its_limits_passes(message: Message) -> None:
    limits.check(message)


@pytest.mark.parametrize(
    ("message", "field", "told"),
    [
        (pb.GetModelRequest(), "model", "is required: 1 to 256 characters"),
        (pb.GetModelRequest(model="x" * 257), "model", "1 to 256 characters, has 257; shorten"),
        (pb.GetModelRequest(model="a\0"), "model", "NUL character at 2"),
        (pb.GetModelVersionRequest(model="m"), "version", "is required: at least 1"),
        (pb.GetModelVersionRequest(model="m", version=-1), "version", "at least 1, is -1"),
        (pb.ListModelsRequest(page_size=1001), "page_size", "0 to 1,000, is 1001"),
        (pb.CreateModelRequest(), "model", "is required"),
        (pb.CreateModelRequest(model=pb.Model(name="a/b")), "model.name", 'is "a/b"'),
        (pb.CreateModelRequest(model=pb.Model(name="m\n")), "model.name", "must match"),
        (version(tags={"": "x"}), 'version.tags[""]', "the key must have 1 to 250 characters"),
        (version(tags={"k": "x" * 100_001}), 'version.tags["k"]', "at most 100,000 characters"),
        (version(tags={'a"\n': "\0"}), 'version.tags["a\\"\\n"]', "NUL"),
        (version(params={str(i): "" for i in range(501)}), "version.params", "at most 500"),
        (version(flavors=["a", ""]), "version.flavors[1]", "lengthen it"),
        (version(status=99), "version.status", "99 is no ModelVersionStatus; choose one of"),
        (version(lineage=pb.Lineage(run_id="\0")), "version.lineage.run_id", "NUL"),
        (version(stages=["\0"]), "version.stages[0]", "NUL"),
        (
            version(create_time=timestamp_pb2.Timestamp(seconds=253402300800)),
            "version.create_time", "years 1 to 9999",
        ),
        (version(create_time=timestamp_pb2.Timestamp(nanos=-1)), "version.create_time", "nanos"),
        (
            version(lineage=pb.Lineage(parents=[pb.ParentVersion(model="p")])),
            "version.lineage.parents[0].version", "is required",
        ),
        (pb.LogMetricsRequest(model="m", version=1), "metrics", "give 1 to 10,000 of them"),
        (pb.SetModelTagsRequest(model="m"), "tags", "give 1 to 500 of them"),
        (pb.ResolveModelVersionRequest(version=0), "version", "at least 1, is 0"),
        (pb.ResolveModelVersionRequest(alias=""), "alias", "1 to 255 characters, has 0"),
        (
            pb.ReportStatusRequest(
                agent="a", targets=[pb.TargetStatus(target="t", model="m", stage="s")]
            ),
            "targets[0].state", "is required: one of DEPLOYMENT_STATE_",
        ),
        (
            pb.UpdateModelRequest(
                model="m",
                update=pb.ModelUpdate(),
                update_mask=field_mask_pb2.FieldMask(paths=["a"] * 101),
            ),
            "update_mask", "at most 100 paths, has 101",
        ),
    ],
)  # fmt: skip
def test_what_is_beyond_a_limit_is_refused_by_name(message: Message, field: str, told: str) -> None:
    found = violations(message)

    assert list(found) == [field]
    assert told in found[field]


def test_every_violation_is_named_at_once() -> None:
    metrics = [pb.Metric(key="a"), pb.Metric(), pb.Metric(key="b", dataset="d" * 501)]

    found = violations(pb.LogMetricsRequest(version=-1, metrics=metrics))

    assert set(found) == {"model", "version", "metrics[1].key", "metrics[2].dataset"}


def test_no_more_are_named_than_one_can_mend() -> None:
    found = violations(pb.LogMetricsRequest(model="m", version=1, metrics=[pb.Metric()] * 10_000))

    assert len(found) == limits.MAX_VIOLATIONS


def test_the_error_says_how_many_more_there_are() -> None:
    with pytest.raises(RegistryError, match=r"is required.*\(and 1 more\)"):
        limits.check(pb.GetModelVersionRequest())


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"blob": b"ab", "ratio": 1.0, "scores": [0, 10], "limit": 5}, ()),
        ({"blob": b"ab", "nick": "ab", "inner": {"blob": b"xyz"}}, ()),
        ({}, ("blob",)),
        ({"blob": b"a"}, ("blob",)),
        ({"blob": b"abcd"}, ("blob",)),
        ({"blob": b"ab", "ratio": 1.5}, ("ratio",)),
        ({"blob": b"ab", "ratio": float("nan")}, ("ratio",)),
        ({"blob": b"ab", "scores": [0, 11]}, ("scores[1]",)),
        ({"blob": b"ab", "scores": [0, 1, 2]}, ("scores",)),
        ({"blob": b"ab", "nick": ""}, ("nick",)),
        ({"blob": b"ab", "nick": "éé"}, ("nick",)),
        ({"blob": b"ab", "inner": {}}, ("inner.blob",)),
        ({"blob": b"ab", "inner": {"blob": b"ab", "inner": {}}}, ("inner.inner.blob",)),
        ({"blob": b"ab", "by_name": {"a": {}}}, ('by_name["a"].blob',)),
        ({"blob": b"ab", "by_name": {"abcd": {"blob": b"ab"}}}, ('by_name["abcd"]',)),
        ({"blob": b"ab", "limit": 6}, ("limit",)),
        ({"blob": b"ab", "spans": [{"seconds": 1, "nanos": 1}, {"seconds": -1, "nanos": -1}]}, ()),
        ({"blob": b"ab", "spans": [{"seconds": -1, "nanos": 1}]}, ("spans[0]",)),
        ({"blob": b"ab", "spans": [{"seconds": 315_576_000_001}]}, ("spans[0]",)),
        ({"blob": b"ab", "spans": [{"nanos": 1_000_000_000}]}, ("spans[0]",)),
    ],
)
def test_each_kind_of_limit_holds(
    sample: Any, fields: dict[str, Any], found: tuple[str, ...]
) -> None:
    message = sample(**fields)

    if found:
        assert tuple(violations(message)) == found
    else:
        limits.check(message)


def test_durations_of_one_sign_are_valid() -> None:
    limits.check(pb.Hello(bookmark_interval=duration_pb2.Duration(seconds=-1, nanos=-5)))


def test_a_mask_names_each_field_once_in_its_order() -> None:
    mask = field_mask_pb2.FieldMask(paths=["owner", "description", "owner"])

    assert limits.mask_paths(mask, frozenset({"description", "owner"})) == ["owner", "description"]


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ([], "is required: name the fields to change, any of description, owner"),
        (["*"], "would also clear fields"),
        (["owner", "name"], '"name" can\'t be updated; name any of description, owner'),
        ([""], '"" can\'t be updated'),
    ],
)
def test_a_mask_of_what_cannot_be_updated_is_refused(paths: list[str], told: str) -> None:
    with pytest.raises(RegistryError) as refusal:
        limits.mask_paths(
            field_mask_pb2.FieldMask(paths=paths), frozenset({"description", "owner"})
        )

    assert refusal.value.reason == "INVALID_UPDATE_MASK"
    assert told in refusal.value.message
