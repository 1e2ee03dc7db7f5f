"""The one error tree: every refusal is a `RegistryError` with a reason of the contract.

Raised anywhere, translated once per edge. Don't add a class for a new refusal: add an
`ErrorReason` to the contract and raise `RegistryError` with it. Texts speak to the caller and
say what to do; a driver's text never goes in here, it is logged.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The gRPC code that goes with each reason: what a program does next.
CODES: dict[str, str] = {
    "INVALID_FIELD": "INVALID_ARGUMENT",
    "INVALID_FILTER": "INVALID_ARGUMENT",
    "INVALID_ORDER_BY": "INVALID_ARGUMENT",
    "INVALID_PAGE_TOKEN": "INVALID_ARGUMENT",
    "INVALID_CURSOR": "INVALID_ARGUMENT",
    "INVALID_UPDATE_MASK": "INVALID_ARGUMENT",
    "REQUEST_ID_REUSED": "INVALID_ARGUMENT",
    "SOURCE_UNSAFE": "INVALID_ARGUMENT",
    "SOURCE_NOT_IN_RUN": "INVALID_ARGUMENT",
    "WEBHOOK_ADDRESS_REFUSED": "INVALID_ARGUMENT",
    "NAMESPACE_NOT_FOUND": "NOT_FOUND",
    "MODEL_NOT_FOUND": "NOT_FOUND",
    "VERSION_NOT_FOUND": "NOT_FOUND",
    "STAGE_NOT_FOUND": "NOT_FOUND",
    "ALIAS_NOT_FOUND": "NOT_FOUND",
    "STAGE_EMPTY": "NOT_FOUND",
    "AGENT_NOT_FOUND": "NOT_FOUND",
    "WEBHOOK_NOT_FOUND": "NOT_FOUND",
    "DELIVERY_NOT_FOUND": "NOT_FOUND",
    "TOKEN_NOT_FOUND": "NOT_FOUND",
    "GRANT_NOT_FOUND": "NOT_FOUND",
    "NAMESPACE_EXISTS": "ALREADY_EXISTS",
    "MODEL_EXISTS": "ALREADY_EXISTS",
    "STAGE_EXISTS": "ALREADY_EXISTS",
    "ALIAS_EXISTS": "ALREADY_EXISTS",
    "IMPORT_CONFLICT": "ALREADY_EXISTS",
    "REVISION_MISMATCH": "ABORTED",
    "CONTENTION": "ABORTED",
    "RENAMED": "FAILED_PRECONDITION",
    "NAME_HAS_HISTORY": "FAILED_PRECONDITION",
    "MODEL_IN_USE": "FAILED_PRECONDITION",
    "VERSION_IN_USE": "FAILED_PRECONDITION",
    "STAGE_IN_USE": "FAILED_PRECONDITION",
    "NAMESPACE_NOT_EMPTY": "FAILED_PRECONDITION",
    "STAGE_OCCUPIED": "FAILED_PRECONDITION",
    "VERSION_NOT_READY": "FAILED_PRECONDITION",
    "NOTHING_TO_ROLL_BACK": "FAILED_PRECONDITION",
    "ROLLBACK_TARGET_DELETED": "FAILED_PRECONDITION",
    "NOT_DELETED": "FAILED_PRECONDITION",
    "PURGED": "FAILED_PRECONDITION",
    "NAMESPACE_PROTECTED": "FAILED_PRECONDITION",
    "SECRETS_KEY_MISSING": "FAILED_PRECONDITION",
    "WEBHOOK_DISABLED": "FAILED_PRECONDITION",
    "SECRET_SHOWN_ONCE": "FAILED_PRECONDITION",
    "LAST_ADMIN": "FAILED_PRECONDITION",
    "REVISION_AHEAD": "OUT_OF_RANGE",
    "CURSOR_AHEAD": "OUT_OF_RANGE",
    "LOG_DIVERGED": "OUT_OF_RANGE",
    "COMPACTED": "OUT_OF_RANGE",
    "OTHER_LOG": "FAILED_PRECONDITION",
    "FILTER_CHANGED": "FAILED_PRECONDITION",
    "PERMISSIONS_CHANGED": "FAILED_PRECONDITION",
    "TRANSACTION_TOO_LARGE": "RESOURCE_EXHAUSTED",
    "SLOW_CONSUMER": "RESOURCE_EXHAUSTED",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "TOO_MANY_WATCHES": "RESOURCE_EXHAUSTED",
    "QUOTA_EXCEEDED": "RESOURCE_EXHAUSTED",
    "RATE_LIMITED": "RESOURCE_EXHAUSTED",
    "DEADLINE_PASSED": "DEADLINE_EXCEEDED",
    "DATABASE_UNAVAILABLE": "UNAVAILABLE",
    "SHUTTING_DOWN": "UNAVAILABLE",
    "CREDENTIALS_MISSING": "UNAUTHENTICATED",
    "CREDENTIALS_INVALID": "UNAUTHENTICATED",
    "CREDENTIALS_EXPIRED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "IDENTITY_PROVIDER_UNAVAILABLE": "UNAVAILABLE",
    "INTERNAL": "INTERNAL",
}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of the request that is wrong, and how to right it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """One thing that stands in the way: its type, what it is about, and what was found."""

    type: str
    subject: str
    description: str


@dataclass(frozen=True, slots=True)
class QuotaViolation:
    """One quota that is used up, and whose it is."""

    subject: str
    description: str


@dataclass
class RegistryError(Exception):
    """A refusal. `reason` is an `ErrorReason` without its prefix."""

    reason: str
    message: str
    fields: Sequence[FieldViolation] = ()
    preconditions: Sequence[PreconditionViolation] = ()
    quotas: Sequence[QuotaViolation] = ()
    resource_type: str = ""
    resource_name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    retry_after_seconds: float | None = None

    def __post_init__(self) -> None:
        """Keep the exception picklable and its text the message."""
        Exception.__init__(self, self.message)

    @property
    def code(self) -> str:
        """Name of the gRPC status code."""
        return CODES[self.reason]

    def __str__(self) -> str:
        """Give the text for the caller."""
        return self.message


def invalid(name: str, description: str, *, reason: str = "INVALID_FIELD") -> RegistryError:
    """Build the refusal of one field."""
    return RegistryError(
        reason, f"{name}: {description}", fields=[FieldViolation(name, description)]
    )


def not_found(reason: str, kind: str, name: str, message: str) -> RegistryError:
    """Build the refusal for something that is not there."""
    return RegistryError(reason, message, resource_type=kind, resource_name=name)


def precondition(reason: str, subject: str, message: str) -> RegistryError:
    """Build a refusal with one thing in the way."""
    return RegistryError(
        reason, message, preconditions=[PreconditionViolation(reason, subject, message)]
    )
