"""The error tree: a class for each reason of the contract, with everything the server said."""

from __future__ import annotations

import pickle
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from stagewire import pb
from stagewire.client import errors, statuses
from stagewire.errors import CODES
from tests.client.scripted import Refusal, Registry

REASONS = [
    name.removeprefix("ERROR_REASON_")
    for name, number in pb.ErrorReason.items()
    if number != pb.ERROR_REASON_UNSPECIFIED
]


def refused(registry: Registry, client: Any, refusal: Refusal) -> errors.StagewireError:
    registry.on("UpdateModel", refusal)
    with pytest.raises(errors.StagewireError) as raised:
        client.registry.UpdateModel(pb.UpdateModelRequest(model="churn"))
    return raised.value


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_class_in_its_codes_family(reason: str) -> None:
    code = grpc.StatusCode[CODES[reason]]

    found = statuses.class_of(code, reason)

    assert found.__name__.upper() == reason.replace("_", "")
    assert found.code is code


def test_an_error_brings_all_that_the_server_said(registry: Registry, client: Any) -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    said = Refusal(
        "ABORTED",
        "REVISION_MISMATCH",
        message="model 'churn' is at revision 9, not 7",
        metadata={"current_revision": "9"},
        details=[
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field="owner", description="long")
                ]
            ),
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type="IN_USE", subject="churn/3", description="in Production"
                    )
                ]
            ),
            error_details_pb2.ResourceInfo(resource_type="model", resource_name="churn"),
            retry,
        ],
    )

    error = refused(registry, client, said)

    assert type(error) is errors.RevisionMismatch
    assert isinstance(error, errors.Aborted)
    assert error.code is grpc.StatusCode.ABORTED
    assert error.reason == "REVISION_MISMATCH"
    assert str(error) == error.message == "model 'churn' is at revision 9, not 7"
    assert error.metadata == {"current_revision": "9"}
    assert error.field_violations == (errors.FieldViolation("owner", "long"),)
    assert error.preconditions == (
        errors.PreconditionViolation("IN_USE", "churn/3", "in Production"),
    )
    assert error.resource == errors.Resource("model", "churn")
    assert error.retry_after == 1.5
    assert isinstance(error.grpc_error, grpc.RpcError)


def test_a_reason_from_a_newer_server_is_raised_as_its_codes_class(
    registry: Registry, client: Any
) -> None:
    error = refused(registry, client, Refusal("FAILED_PRECONDITION", "MOON_IS_FULL"))

    assert type(error) is errors.FailedPrecondition
    assert error.reason == "MOON_IS_FULL"


def test_a_reason_never_takes_a_class_of_another_code(registry: Registry, client: Any) -> None:
    error = refused(registry, client, Refusal("NOT_FOUND", "REVISION_MISMATCH"))

    assert type(error) is errors.NotFound


def test_an_error_without_details_has_its_codes_class(registry: Registry, client: Any) -> None:
    error = refused(registry, client, Refusal("PERMISSION_DENIED"))

    assert type(error) is errors.PermissionDenied
    assert error.reason == ""


def test_an_error_survives_pickling(registry: Registry, client: Any) -> None:
    error = refused(registry, client, Refusal("ABORTED", "CONTENTION", message="again"))
    error.grpc_error = None

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(copy) is errors.Contention
    assert (copy.message, copy.reason) == ("again", "CONTENTION")


def test_no_server_is_unavailable_without_a_reason(registry: Registry, client: Any) -> None:
    registry.stop()

    with pytest.raises(errors.Unavailable) as raised:
        client.registry.GetModel(pb.GetModelRequest(model="churn"))

    assert raised.value.reason == ""
