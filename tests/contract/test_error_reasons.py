"""Each refusal has one name, one gRPC code and an example, in the contract and in the code."""

from __future__ import annotations

import re

import grpc
from modelregistry.v1 import error_reason_pb2

from stagewire import errors
from tests.contract import protos

ENUM = error_reason_pb2.ErrorReason.DESCRIPTOR
#: Without the prefix, as `errors.RegistryError.reason` has it, and without the zero value.
REASONS = {
    value.name.removeprefix("ERROR_REASON_"): protos.comments()[f"{ENUM.full_name}.{value.name}"]
    for value in ENUM.values
    if value.number
}


def test_every_reason_maps_to_one_code() -> None:
    assert set(errors.CODES) == set(REASONS)


def test_the_code_is_the_one_the_comment_begins_with() -> None:
    stated = {reason: comment.partition(". ")[0] for reason, comment in REASONS.items()}

    assert stated == errors.CODES


def test_codes_are_grpc_status_codes() -> None:
    assert set(errors.CODES.values()) <= {code.name for code in grpc.StatusCode}


def test_every_reason_has_an_example() -> None:
    without = [
        reason for reason, comment in REASONS.items() if not re.search(r"Example: \S", comment)
    ]

    assert without == []
