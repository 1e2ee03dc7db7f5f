"""Every field says what it takes, and the option beside it holds what the comment says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.descriptor import FieldDescriptor

from stagewire import errors
from tests.contract import protos

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import MethodDescriptor

TEXTS = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES}
#: How comments state a bound: "up to 5,000 characters", "at most 500", "1 to 256 characters".
STATED_BOUND = re.compile(r"\b(?:up to|at most|\d+ to) (\d[\d,]*)")
CODE_OR_REASON = re.compile(r"\b[A-Z][A-Z_]{3,}\b")
CODES = set(errors.CODES.values())


def test_the_reading_of_the_sources_finds_every_declaration() -> None:
    declared = {
        *(message.full_name for message in protos.messages()),
        *(field.full_name for message in protos.messages() for field in message.fields),
        *(
            oneof.full_name
            for message in protos.messages()
            for oneof in message.oneofs
            if not oneof.name.startswith("_")  # protoc's own, one for each `optional`
        ),
        *(enum.full_name for enum in protos.enums()),
        *(f"{enum.full_name}.{value.name}" for enum in protos.enums() for value in enum.values),
        *(service.full_name for service in protos.services()),
        *(method.full_name for method in protos.methods()),
        *(name for file in protos.FILES for name in _extensions(file.name)),
    }

    assert set(protos.comments()) == declared


def _extensions(file_name: str) -> list[str]:
    return [f"{protos.PACKAGE}.limit"] if file_name.endswith("limits.proto") else []


def test_every_proto_is_read_here() -> None:
    on_disk = {f"modelregistry/v1/{path.name}" for path in protos.SOURCES.glob("*.proto")}

    assert {file.name for file in protos.FILES} == on_disk


def test_every_declaration_carries_a_comment() -> None:
    assert [name for name, comment in protos.comments().items() if not comment] == []


def test_request_fields_say_whether_they_are_required() -> None:
    fields = [
        field
        for method in protos.methods()
        for field in method.input_type.fields
        if field.containing_oneof is None
    ]

    silent = [
        field.full_name
        for field in fields
        if not re.match(r"(Required|Optional)\b", protos.comments()[field.full_name])
    ]

    assert silent == []


def test_required_and_optional_mean_what_the_limit_holds() -> None:
    disagreeing = [
        field.full_name
        for field in protos.accepted_fields()
        if (stated := _stated_as_required(field)) is not None
        and (held := _held_as_required(field)) is not None
        and stated != held
    ]

    assert disagreeing == []


def _stated_as_required(field: FieldDescriptor) -> bool | None:
    comment = protos.comments()[field.full_name]
    if comment.startswith("Required."):
        return True
    return False if comment.startswith("Optional.") else None


def _held_as_required(field: FieldDescriptor) -> bool | None:
    """Whether the limit refuses absence; none where it can't tell.

    A number's zero may be meant, and an absent update_mask has a refusal of its own.
    """
    limit = protos.limit_of(field)
    if field.is_repeated:
        return limit.min_items > 0
    if field.type in TEXTS:
        return limit.min_length > 0
    if field.type == FieldDescriptor.TYPE_ENUM:
        return limit.required
    if field.message_type is not None and field.message_type.file.package == protos.PACKAGE:
        return limit.required
    return None


def test_everything_that_can_grow_has_a_limit() -> None:
    unlimited = [where for field in protos.accepted_fields() for where in _unlimited_parts(field)]

    assert unlimited == []


def _unlimited_parts(field: FieldDescriptor) -> Iterator[str]:
    limit = protos.limit_of(field)
    if field.is_repeated and not limit.max_items:
        yield f"{field.full_name}: max_items"
    if field.message_type is not None and protos.is_map(field):
        entry = field.message_type.fields_by_name
        if entry["key"].type in TEXTS and not limit.keys.max_length:
            yield f"{field.full_name}: keys.max_length"
        if entry["value"].type in TEXTS and not limit.values.max_length:
            yield f"{field.full_name}: values.max_length"
    elif field.type in TEXTS and not limit.max_length:
        yield f"{field.full_name}: max_length"


def test_bounds_in_a_comment_are_those_in_the_option() -> None:
    disagreeing = [
        f"{field.full_name}: comment says {bound}, option has {sorted(held)}"
        for field in protos.accepted_fields()
        for bound in _stated_bounds(protos.comments()[field.full_name])
        if bound not in (held := _upper_bounds(field))
    ]

    assert disagreeing == []


def _stated_bounds(comment: str) -> list[int]:
    return [int(number.replace(",", "")) for number in STATED_BOUND.findall(comment)]


def _upper_bounds(field: FieldDescriptor) -> set[int]:
    limit = protos.limit_of(field)
    return {
        bound
        for part in (limit, limit.keys, limit.values)
        for bound in (part.max_length, part.max_items, part.max)
        if bound
    }


def test_patterns_leave_anchoring_to_the_checker() -> None:
    patterns = [protos.limit_of(field).pattern for field in protos.accepted_fields()]

    anchored = [pattern for pattern in patterns if re.search(r"^\^|\$$", pattern)]

    assert anchored == []


def test_every_rpc_says_what_it_refuses() -> None:
    silent = [
        method.full_name
        for method in protos.methods()
        if "Refuses: " not in protos.comments()[method.full_name]
    ]

    assert silent == []


def test_refusals_named_by_an_rpc_exist_and_stand_under_their_own_code() -> None:
    wrong = [
        f"{method.full_name}: {reason} under {code}"
        for method in protos.methods()
        for code, reason in _refusals(method)
        if errors.CODES.get(reason) != code
    ]

    assert wrong == []


def _refusals(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """The (code, reason) pairs of "Refuses: NOT_FOUND MODEL_NOT_FOUND; ABORTED ..."."""
    code = ""
    refused = protos.comments()[method.full_name].partition("Refuses: ")[2]
    for word in CODE_OR_REASON.findall(refused):
        if word in CODES:
            code = word
        else:
            yield code, word
