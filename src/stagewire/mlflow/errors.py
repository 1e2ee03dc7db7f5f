"""Refusals as MLflow's clients read them: a code, a text, and the HTTP status that goes with both.

What the caller could mend never answers a 5xx: clients repeat those for minutes.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stagewire.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INVALID = "INVALID_PARAMETER_VALUE"
ABSENT = "RESOURCE_DOES_NOT_EXIST"
EXISTS = "RESOURCE_ALREADY_EXISTS"

#: The HTTP status of each code of MLflow's that is sent here.
STATUSES: dict[str, int] = {
    INVALID: 400,
    "BAD_REQUEST": 400,
    EXISTS: 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    ABSENT: 404,
    "ENDPOINT_NOT_FOUND": 404,
    "RESOURCE_CONFLICT": 409,
    "REQUEST_LIMIT_EXCEEDED": 429,
    "INTERNAL_ERROR": 500,
    "NOT_IMPLEMENTED": 501,
    "TEMPORARILY_UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

#: MLflow's code for each gRPC code.
_CODES = {
    "INVALID_ARGUMENT": INVALID,
    "FAILED_PRECONDITION": INVALID,
    "OUT_OF_RANGE": INVALID,
    "NOT_FOUND": ABSENT,
    "ALREADY_EXISTS": EXISTS,
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "ABORTED": "RESOURCE_CONFLICT",
    "RESOURCE_EXHAUSTED": "REQUEST_LIMIT_EXCEEDED",
    "UNAVAILABLE": "TEMPORARILY_UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
}
#: Reasons whose gRPC code would make a client repeat what can't succeed.
_REASONS = {"TRANSACTION_TOO_LARGE": INVALID, "QUOTA_EXCEEDED": INVALID}

SEE_DOCS = " See the API docs for more information about request parameters."
#: More of a refused value than anyone reads.
_QUOTED_LENGTH = 10_000


@dataclass
class MlflowError(Exception):
    """A refusal in MLflow's words: `code` is one of its error codes."""

    code: str
    message: str
    #: Where the code's own status would say less.
    status: int = 0
    retry_after_seconds: float | None = None

    def __post_init__(self) -> None:
        """Keep the exception's text the message."""
        Exception.__init__(self, self.message)

    @property
    def http_status(self) -> int:
        """Give the HTTP status it is answered with."""
        return self.status or STATUSES.get(self.code, 400)


def translated(error: RegistryError) -> MlflowError:
    """Give a refusal of the registry's MLflow's code; its text is ours."""
    code = _REASONS.get(error.reason) or of_grpc(error.code)
    return MlflowError(code, error.message, retry_after_seconds=error.retry_after_seconds)


def of_grpc(code: str) -> str:
    """Give MLflow's code for a gRPC code."""
    return _CODES.get(code, "INTERNAL_ERROR")


@contextmanager
def saying(texts: Mapping[str, MlflowError]) -> Iterator[None]:
    """Answer refusals of these reasons with MLflow's own texts."""
    try:
        yield
    except RegistryError as error:
        if error.reason not in texts:
            raise
        raise texts[error.reason] from None


def invalid(message: str) -> MlflowError:
    """Build the refusal of a parameter."""
    return MlflowError(INVALID, message)


def missing(parameter: str) -> MlflowError:
    """Build the refusal of a parameter that is required and not there, as MLflow's store says."""
    return invalid(f"Missing value for required parameter '{parameter}'.")


def invalid_value(parameter: str, value: Any, why: str) -> MlflowError:
    """Build the refusal of a value, repeating it as JSON."""
    try:
        shown = json.dumps(value, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        shown = "…"
    if len(shown) > _QUOTED_LENGTH:
        shown = shown[:_QUOTED_LENGTH] + "…"
    return invalid(f"Invalid value {shown} for parameter '{parameter}' supplied: {why}")


def absent(message: str) -> MlflowError:
    """Build the refusal of something that is not there."""
    return MlflowError(ABSENT, message)


def exists(message: str) -> MlflowError:
    """Build the refusal of something that is there already."""
    return MlflowError(EXISTS, message)


def absent_version(name: str, version: int) -> MlflowError:
    """Build the refusal of a version that is not there."""
    return absent(f"Model Version (name={name}, version={version}) not found")


def of_model(name: str) -> dict[str, MlflowError]:
    """Give the texts of calls that name a model; writes don't follow an old name."""
    refusal = absent(f"Registered Model with name={name} not found")
    return {"MODEL_NOT_FOUND": refusal, "RENAMED": refusal}


def of_version(name: str, version: int) -> dict[str, MlflowError]:
    """Give the texts of calls that name a version."""
    refusal = absent_version(name, version)
    return {"MODEL_NOT_FOUND": refusal, "VERSION_NOT_FOUND": refusal, "RENAMED": refusal}


def absent_workspace(name: str) -> MlflowError:
    """Build the refusal of a workspace, which is a namespace, that is not there."""
    return absent(f"Workspace '{name}' not found")
