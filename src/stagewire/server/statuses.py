"""Refusals as gRPC statuses with google.rpc details: the one place where codes are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from stagewire import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

DOMAIN = "stagewire"
# Message and details travel in a trailer, and 8 KiB of metadata is what every client accepts: a
# longer refusal would reach it as RESOURCE_EXHAUSTED. The message is percent-encoded there, the
# details, which hold it once more, are in base64.
_MESSAGE_COST = 1500
_DETAILS_BYTES = 4500
_MOST_VIOLATIONS = 20
_LONGEST_SUBJECT = 300
_LONGEST_DESCRIPTION = 400
# Names are given whole: programs go on with them.
_LONGEST_NAME = 1024


def of(error: BaseException) -> grpc.Status:
    """Translate an error; what is not a refusal of ours is INTERNAL and tells nothing."""
    if not isinstance(error, errors.RegistryError):
        error = errors.RegistryError(
            "INTERNAL", "a fault of the server's; its log has it under this request's id"
        )
    status = status_pb2.Status(
        code=getattr(grpc.StatusCode, error.code).value[0], message=_header_text(error.message)
    )
    for detail in _details(error):
        packed = _packed(detail)
        while status.ByteSize() + packed.ByteSize() > _DETAILS_BYTES and _shorten(detail):
            packed = _packed(detail)
        status.details.append(packed)
    made: grpc.Status = rpc_status.to_status(status)
    return made


def _details(error: errors.RegistryError) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if error.resource_name:
        yield error_details_pb2.ResourceInfo(
            resource_type=error.resource_type,
            resource_name=_clipped(error.resource_name, _LONGEST_NAME),
        )
    if error.fields:
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field=_clipped(violation.field, _LONGEST_SUBJECT),
                    description=_clipped(violation.description, _LONGEST_DESCRIPTION),
                )
                for violation in error.fields[:_MOST_VIOLATIONS]
            ]
        )
    if error.quotas:
        yield error_details_pb2.QuotaFailure(
            violations=[
                error_details_pb2.QuotaFailure.Violation(
                    subject=_clipped(violation.subject, _LONGEST_SUBJECT),
                    description=_clipped(violation.description, _LONGEST_DESCRIPTION),
                )
                for violation in error.quotas[:_MOST_VIOLATIONS]
            ]
        )
    if error.preconditions:
        yield error_details_pb2.PreconditionFailure(
            violations=[
                error_details_pb2.PreconditionFailure.Violation(
                    type=violation.type,
                    subject=_clipped(violation.subject, _LONGEST_SUBJECT),
                    description=_clipped(violation.description, _LONGEST_DESCRIPTION),
                )
                for violation in error.preconditions[:_MOST_VIOLATIONS]
            ]
        )


def _shorten(detail: Any) -> bool:
    """Drop the last of several violations; say whether there was one to drop."""
    for name in ("field_violations", "violations"):
        violations: Any = getattr(detail, name, ())
        if len(violations) > 1:
            del violations[-1]
            return True
    return False


def _clipped(text: str, most_bytes: int) -> str:
    data = text.encode()
    if len(data) <= most_bytes:
        return text
    return data[:most_bytes].decode(errors="ignore") + "…"


def _header_text(text: str) -> str:
    """Clip a message by what its characters take in a header, percent-encoded."""
    cost = 0
    for place, character in enumerate(text):
        plain = " " <= character <= "~" and character != "%"
        cost += 1 if plain else 3 * len(character.encode())
        if cost > _MESSAGE_COST:
            return text[:place] + "…"
    return text


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
