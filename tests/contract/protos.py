"""The contract as its readers see it: descriptors, the limits on them, and the comments.

Comments are read from the sources, since compiled descriptors carry none. `buf format` (in
`make lint`) keeps one declaration a line, which is all that the reading relies on; a test
checks that it found every declaration.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import message_factory
from modelregistry.v1 import (
    access_service_pb2,
    audit_service_pb2,
    configuration_service_pb2,
    deployment_service_pb2,
    error_reason_pb2,
    limits_pb2,
    metrics_service_pb2,
    namespace_service_pb2,
    registry_service_pb2,
    stage_service_pb2,
    watch_service_pb2,
    webhook_service_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import (
        Descriptor,
        EnumDescriptor,
        FieldDescriptor,
        FileDescriptor,
        MethodDescriptor,
        ServiceDescriptor,
    )

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "protos" / "modelregistry" / "v1"
PACKAGE = "modelregistry.v1"

FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        access_service_pb2,
        audit_service_pb2,
        configuration_service_pb2,
        deployment_service_pb2,
        error_reason_pb2,
        limits_pb2,
        metrics_service_pb2,
        namespace_service_pb2,
        registry_service_pb2,
        stage_service_pb2,
        watch_service_pb2,
        webhook_service_pb2,
    )
]

STRING_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"')
BLOCK = re.compile(r"(message|enum|service|oneof|extend) ([\w.]+) \{")
RPC = re.compile(r"rpc (\w+)\(")
FIELD = re.compile(r"(?:repeated |optional )?(?:map<.+>|[\w.]+) (\w+) = \d+")
ENUM_VALUE = re.compile(r"(\w+) = \d+")


def services() -> list[ServiceDescriptor]:
    return [service for file in FILES for service in file.services_by_name.values()]


def methods() -> list[MethodDescriptor]:
    return [method for service in services() for method in service.methods]


def request_of(method: str) -> Any:
    """Make an empty request of a method."""
    found = next(m for m in methods() if m.name == method)
    return message_factory.GetMessageClass(found.input_type)()


def messages() -> Iterator[Descriptor]:
    def nested(message: Descriptor) -> Iterator[Descriptor]:
        if message.GetOptions().map_entry:
            return
        yield message
        for inner in message.nested_types:
            yield from nested(inner)

    for file in FILES:
        for message in file.message_types_by_name.values():
            yield from nested(message)


def enums() -> list[EnumDescriptor]:
    return [
        *(enum for file in FILES for enum in file.enum_types_by_name.values()),
        *(enum for message in messages() for enum in message.enum_types),
    ]


def limit_of(field: FieldDescriptor) -> limits_pb2.Limit:
    return field.GetOptions().Extensions[limits_pb2.limit]


def is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def is_output_only(field: FieldDescriptor) -> bool:
    return comments()[field.full_name].startswith("Output only")


def accepted_fields() -> list[FieldDescriptor]:
    """Every field that a client may fill in: of requests, and of what they carry."""
    found: dict[str, FieldDescriptor] = {}

    def visit(message: Descriptor) -> None:
        for field in message.fields:
            if field.full_name in found or is_output_only(field):
                continue
            found[field.full_name] = field
            inner = field.message_type
            if inner is not None and inner.file.package == PACKAGE and not is_map(field):
                visit(inner)

    for method in methods():
        visit(method.input_type)
    return list(found.values())


@cache
def comments() -> dict[str, str]:
    """Full name of every declaration -> its comment, on one line.

    A oneof's members belong to its message, an enum's values to the enum.
    """
    found: dict[str, str] = {}
    for path in sorted(SOURCES.glob("*.proto")):
        found |= _comments_in(path.read_text(encoding="utf-8"))
    return found


def _comments_in(source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    comment: list[str] = []
    # Every open brace: what it opened and its name; options open nameless ones.
    scopes: list[tuple[str, str]] = []
    for line in source.splitlines():
        text = STRING_LITERAL.sub('""', line.strip())
        if text.startswith("//"):
            comment.append(text.removeprefix("//").strip())
            continue
        kind = scopes[-1][0] if scopes else "file"
        block = BLOCK.match(text)
        owner = [PACKAGE, *(name for scope, name in scopes if scope in {"message", "enum"})]
        if kind == "service":
            owner.append(scopes[-1][1])
        pattern = {"enum": ENUM_VALUE, "service": RPC}.get(kind, FIELD)
        declared = (block and block.group(2)) or (
            kind in {"message", "oneof", "enum", "service", "extend"}
            and (match := pattern.match(text))
            and match.group(1)
        )
        if declared and not (block and block.group(1) == "extend"):
            found[".".join([*owner, declared])] = " ".join(comment)
        for brace in re.findall(r"[{}]", text):
            if brace == "}":
                scopes.pop()
            elif block:
                scopes.append((block.group(1), block.group(2)))
                block = None
            else:
                scopes.append(("option", ""))
        comment = []
    return found
