"""Refusals as gRPC statuses with google.rpc details: the one place where codes are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from stagewire import errors

if TYPE_CHECKING:
    from google.protobuf.message import Message

DOMAIN = "stagewire"
# Details travel in a trailer; 8 KiB of metadata is what every client accepts.
_MOST_VIOLATIONS = 20
_LONGEST_TEXT = 1000
_LONGEST_MESSAGE = 3000


def of(error: BaseException) -> grpc.Status:
    """Translate an error; what is not a refusal of ours is INTERNAL and tells nothing."""
    if not isinstance(error, errors.RegistryError):
        error = errors.RegistryError(
            "INTERNAL", "a fault of the server's; its log has it under this request's id"
        )
    status = status_pb2.Status(
        code=getattr(grpc.StatusCode, error.code).value[0],
        message=error.message[:_LONGEST_MESSAGE],
        details=[_packed(detail) for detail in _details(error)],
    )
    made: grpc.Status = rpc_status.to_status(status)
    return made


def _details(error: errors.RegistryError) -> list[Message]:
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    ]
    if error.fields:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=violation.field[:_LONGEST_TEXT],
                        description=violation.description[:_LONGEST_TEXT],
                    )
                    for violation in error.fields[:_MOST_VIOLATIONS]
                ]
            )
        )
    if error.preconditions:
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type=violation.type,
                        subject=violation.subject[:_LONGEST_TEXT],
                        description=violation.description[:_LONGEST_TEXT],
                    )
                    for violation in error.preconditions[:_MOST_VIOLATIONS]
                ]
            )
        )
    if error.resource_name:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=error.resource_type,
                resource_name=error.resource_name[:_LONGEST_TEXT],
                description=error.message[:_LONGEST_TEXT],
            )
        )
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(int(error.retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
